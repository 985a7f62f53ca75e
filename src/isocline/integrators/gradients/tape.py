r"""The tape: the grid of accepted steps, written down while the loop runs, from which the same steps can be made again.

For each accepted step the tape holds its start and its size as float64; for each state that was kept, the step in
which it lies and ``theta``, its place there. Where samples have steps of their own, the tape is aligned by number:
the k-th accepted step of every sample that has one is made again together, though the loop made them in different
rounds. No controller is asked again.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline.integrators.collect import Index
from isocline.integrators.controllers.base import Array, Flags
from isocline.integrators.crossing import Crossing, corrected
from isocline.integrators.loop import Loop
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.problem import Problem, StepTaken
from isocline.integrators.solution import Reason
from isocline.integrators.terms import restricted

Cap = Callable[[int], float]
FIRST, TIMES, ENDS, FINAL, MOMENT = range(5)
COARSEST = 8


@dataclass(frozen=True)
class Grid:
    """Accepted steps.

    Args:
        s: elapsed time at the start of each, float64, shape (n,), or (n, B); infinite where a sample has ended.
        size: size of each, positive, the same shape.
        counts: accepted steps of each sample, (B,), or None where the whole state shares its steps.
    """

    s: Array
    size: Array
    counts: Index | None = None

    def __len__(self) -> int:
        return len(self.s)

    @property
    def nbytes(self) -> int:
        """Memory of the grid."""
        return self.s.nbytes + self.size.nbytes

    def rows(self, k: int) -> Index | None:
        """Return the samples that have a k-th step; None for all of them."""
        if self.counts is None or (self.counts > k).all():
            return None
        return np.nonzero(self.counts > k)[0]


class Recorder:
    """Writes down the steps of a state that shares them, and some of the states.

    Args:
        cap: how many states may be held after n steps; None for none but the last. Every 8th is held at first, and
            every second one is dropped whenever there are more.
    """

    def __init__(self, cap: Cap | None) -> None:
        self.cap, self.stride = cap, COARSEST
        self.s, self.size = array("d"), array("d")
        self.states: dict[int, Carry] = {}
        self.last: Carry = ()
        self.width, self.again = 0, False

    def __call__(self, taken: StepTaken) -> None:
        """Write down an attempt; what a repetition reads is not what the step before it had left."""
        if not self.again:
            self.width = len(taken.state)
        self.again = not taken.accept
        if self.again:
            return
        k = len(self.s)
        self.last = (taken.y, *taken.state[: self.width])
        self.s.append(float(taken.elapsed))
        self.size.append(float(taken.size))
        if self.cap is not None and k % self.stride == 0:
            self.states[k] = self.last if k else self.last[:1]
            self._thin(k + 1)

    def _thin(self, n: int) -> None:
        while self.cap is not None and len(self.states) > max(2.0, self.cap(n)):
            self.stride *= 2
            self.states = {k: carry for k, carry in self.states.items() if k % self.stride == 0}

    def grid(self) -> Grid:
        """Return the accepted steps."""
        return Grid(np.array(self.s), np.array(self.size))


class SeparateRecorder(Recorder):
    """Writes down the steps of samples that have their own.

    Args:
        cap: how many states may be held after n steps of the furthest sample.
        batch: number of samples.
    """

    def __init__(self, cap: Cap | None, batch: int) -> None:
        super().__init__(cap)
        self.counts = np.zeros(batch, np.int64)
        self.widths, self.retry = np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.rounds: list[tuple[Index, Index, Array, Array]] = []

    def __call__(self, taken: StepTaken) -> None:
        """Write down an attempt of all samples under way."""
        active = taken.active
        assert active is not None
        fresh = active[~self.retry[active]]
        self.widths[fresh] = len(taken.state)
        self.retry[active] = ~taken.accept
        rows = np.nonzero(taken.accept)[0]
        samples = active[rows]
        ranks = self.counts[samples]
        self.rounds.append((samples, ranks, taken.elapsed[rows], taken.size[rows]))
        self.counts[samples] += 1
        if len(rows):
            self._hold(taken, samples, rows, ranks)

    def _hold(self, taken: StepTaken, samples: Index, rows: Index, ranks: Index) -> None:
        batch, width = len(self.counts), int(self.widths[samples].min())
        carry = (taken.y, *taken.state[:width])
        self.last = filled(self.last, carry, samples, rows, batch)
        for k in np.unique(ranks[ranks % self.stride == 0]).tolist() if self.cap is not None else ():
            mine = ranks == k
            self.states[k] = filled(self.states.get(k, ()), carry, samples[mine], rows[mine], batch)
        self._thin(int(self.counts.max()))

    def grid(self) -> Grid:
        """Return the accepted steps, aligned by number."""
        shape = (int(self.counts.max()), len(self.counts))
        s, size = np.full(shape, np.inf), np.zeros(shape)
        for samples, ranks, start, length in self.rounds:
            s[ranks, samples], size[ranks, samples] = start, length
        return Grid(s, size, self.counts)


def filled(held: Carry, carry: Carry, samples: Index, rows: Index, batch: int) -> Carry:
    """Return tensors (B, *) into which rows of the carry are written; where widths differ, what both have."""
    to, of = torch.as_tensor(samples), torch.as_tensor(rows)
    if not held:
        held = tuple(x.new_zeros((batch, *x.shape[1:])) for x in carry)
    pairs = list(zip(held, carry, strict=False))
    return tuple(old.index_copy_(0, to.to(old.device), new[of.to(new.device)]) for old, new in pairs)


@dataclass(frozen=True)
class Visit:
    """Kept states that lie in one step.

    Args:
        kept: which collection they are in.
        places: where in it, shape (m,).
        theta: where in the step, shape (m,).
        samples: which samples, (m,), or None where the whole state shares its steps.
        event: whether an event happened there.
    """

    kept: int
    places: Index
    theta: Array
    samples: Index | None
    event: bool = False


@dataclass(frozen=True)
class Again:
    """A step made again: its rows of the batch (None for all), its time and size, the step, and the terms it was made with."""

    rows: Index | None
    t: Tensor
    h: Tensor
    size: Array
    step: Step
    terms: Any


@dataclass
class Tape:
    """A solution from which gradients can be had.

    Args:
        problem: what was integrated.
        grid: its accepted steps.
        states: carries ``(y, *state)`` before some steps, by number.
        last: the carry before the last step; where samples have steps of their own, before the last one of each.
        visits: what was kept of each step, by number; -1 for the first state.
        named: for each sample the number of the event that ended it, or -1.
    """

    problem: Problem
    grid: Grid
    states: dict[int, Carry]
    last: Carry
    visits: dict[int, list[Visit]]
    named: Index
    sign: float
    restarts: Flags
    dims: int = field(init=False)

    def __post_init__(self) -> None:
        self.dims = self.problem.event_dims

    @classmethod
    def of(cls, loop: Loop, recorder: Recorder) -> Tape:
        """Return the tape of a loop that has ended."""
        p, grid = loop.problem, recorder.grid()
        named = np.array([next((i for i, e in enumerate(p.events) if e.name == name), -1) for name in loop.named])
        met = np.array([reason is Reason.EVENT for reason in loop.reasons])
        visits = _visits(loop, grid, met)
        states = recorder.states
        return cls(p, grid, states, recorder.last, visits, np.where(met, named, -1), loop.sign, _restarts(loop, grid))

    # -------------------------------------------------------------------------------------------- steps

    def advance(self, terms: Any, k: int, carry: Carry) -> tuple[Carry, Again]:
        """Make the k-th step again; return the carry after it and the step."""
        rows = self.grid.rows(k)
        part = carry
        if rows is not None:
            index = torch.as_tensor(rows, device=carry[0].device)
            terms, part = restricted(terms, index), tuple(x[index] for x in carry)
        t, h, size = self.times(k, rows)
        state = self._opened(terms, k, rows, t, part)
        terms = self._with_noise(terms, k, rows)
        step = self.problem.method.step(terms, t, h, part[0], state)
        after = (step.y, *step.state)
        again = Again(rows, t, h, size, step, terms)
        return (after if rows is None else self._merged(carry, after, rows)), again

    def retreat(self, terms: Any, k: int, carry: Carry) -> Carry:
        """Undo the k-th step: return the carry before it, given that after it; samples whose last step it was stay as they are."""
        method: Any = self.problem.method
        rows = self.grid.rows(k + 1)
        part = carry
        if rows is not None:
            index = torch.as_tensor(rows, device=carry[0].device)
            terms, part = restricted(terms, index), tuple(x[index] for x in carry)
        t, h, _ = self.times(k, rows)
        terms = self._with_noise(terms, k, rows)
        y, state = method.inverse(terms, t, h, part[0], part[1:])
        return (y, *state) if rows is None else self._merged(carry, (y, *state), rows)

    def _with_noise(self, terms: Any, k: int, rows: Index | None) -> Any:
        """Return the terms that know what the Brownian path does over the k-th step, where there is one."""
        if not hasattr(terms, "over"):
            return terms
        where = slice(None) if rows is None else rows
        s, size, t0 = self.grid.s[k], self.grid.size[k], self.problem.t0
        if self.problem.shape:
            s, size, t0 = s[where], size[where], t0[where]
        return terms.over(t0 + self.sign * s, self.sign * size)

    def times(self, k: int, rows: Index | None) -> tuple[Tensor, Tensor, Array]:
        """Return start and signed size of the k-th step as methods see them, and the size as a number."""
        s, size, t0 = self.grid.s[k], self.grid.size[k], self.problem.t0
        if rows is not None:
            s, size, t0 = s[rows], size[rows], t0[rows]
        return self.tensor(t0 + self.sign * s), self.tensor(self.sign * size), size

    def tensor(self, x: Any) -> Tensor:
        """Return control numbers in the precision of the state, shape () or (m, 1, ..., 1)."""
        y, real = self.problem.y0, self.problem.real
        if self.grid.counts is None:
            return torch.tensor(float(x), dtype=real, device=y.device)
        return torch.as_tensor(x).to(y.device, real).reshape(-1, *[1] * self.dims)

    def _opened(self, terms: Any, k: int, rows: Index | None, t: Tensor, part: Carry) -> Carry:
        """Return what the k-th step reads besides the state: new at the start and after jumps of the field."""
        p, where = self.problem, slice(None) if rows is None else rows
        if k == 0:
            return p.method.start(terms, t, part[0], None)
        flags = self.restarts[k] if self.grid.counts is None else self.restarts[k][where]
        if not flags.any():
            return part[1:]
        fresh = p.method.start(terms, t, part[0], None)
        if len(fresh) != len(part) - 1 or not p.shape:
            return fresh
        mask = torch.as_tensor(flags, device=part[0].device)
        return tuple(
            torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(fresh, part[1:], strict=True)
        )

    def _merged(self, carry: Carry, after: Carry, rows: Index) -> Carry:
        index = torch.as_tensor(rows, device=carry[0].device)
        batch = len(carry[0])
        old = (*carry, *(x.new_zeros((batch, *x.shape[1:])) for x in after[len(carry) :]))
        return tuple(a.index_copy(0, index, b) for a, b in zip(old, after, strict=False))

    # -------------------------------------------------------------------------------------------- outputs

    def seen(self, k: int, again: Again) -> list[tuple[int, Index, Tensor]]:
        """Return what was kept of the k-th step: collection, places in it, states (m, *)."""
        found: list[tuple[int, Index, Tensor]] = []
        for visit in self.visits.get(k, ()):
            if visit.event:
                crossing = self._crossing(k, again, visit)
                found.append((visit.kept, visit.places, self._of_samples(again, visit, crossing.y)))
                if visit.samples is None and crossing.t.requires_grad:
                    found.append((MOMENT, visit.places, crossing.t.reshape(1)))
            else:
                found.append((visit.kept, visit.places, self._inside(again, visit)))
        return found

    def _inside(self, again: Again, visit: Visit) -> Tensor:
        at_end = bool((visit.theta == 1.0).all())
        theta = torch.as_tensor(visit.theta, device=again.step.y.device)
        if visit.samples is None:
            return again.step.y[None].expand(len(theta), *again.step.y.shape) if at_end else again.step.dense(theta)
        if at_end:
            return self._of_samples(again, visit, again.step.y)
        return again.step.dense.rows(self._index(again, visit), theta)

    def _of_samples(self, again: Again, visit: Visit, y: Tensor) -> Tensor:
        return y[None] if visit.samples is None else y[self._index(again, visit)]

    def _index(self, again: Again, visit: Visit) -> Tensor:
        """Return where the samples of a visit are among those that made the step."""
        assert visit.samples is not None
        index = visit.samples if again.rows is None else np.searchsorted(again.rows, visit.samples)
        return torch.as_tensor(index, device=again.step.y.device)

    def _crossing(self, k: int, again: Again, visit: Visit) -> Crossing:
        p = self.problem
        where = slice(None) if again.rows is None else again.rows
        s, t0 = (self.grid.s[k][where], p.t0[where]) if p.shape else (self.grid.s[k], p.t0)
        hit, theta = np.zeros(np.shape(s), bool), np.ones(np.shape(s))
        place = () if visit.samples is None else self._index(again, visit).cpu().numpy()
        hit[place], theta[place] = True, visit.theta if visit.samples is not None else visit.theta[0]
        which = self.named[where] if p.shape else self.named[0]
        stand_in: Any = SimpleNamespace(
            tensor=self.tensor, sign=self.sign, t0=t0, s=s, batched=bool(p.shape), terms=again.terms, problem=p
        )
        return corrected(p.events, hit, which, theta, stand_in, again.step, again.t, again.size)


def _restarts(loop: Loop, grid: Grid) -> Flags:
    """Return before which steps the method starts afresh because the field jumps, shape (n,) or (n, B)."""
    p = loop.problem
    jumps = loop.sign * (np.asarray(p.controller.jumps, np.float64) - p.t0[..., None])
    if not jumps.shape[-1]:
        return np.zeros(grid.s.shape, bool)
    nudge = (4 * torch.finfo(p.real).eps * (np.abs(p.t0) + np.abs(p.t1)))[..., None]
    return np.asarray((np.abs(jumps + nudge - grid.s[..., None]) <= 1e-3 * nudge).any(-1))


def _visits(loop: Loop, grid: Grid, met: Flags) -> dict[int, list[Visit]]:
    """Return for each step what was kept of it."""
    found: dict[int, list[Visit]] = defaultdict(list)
    for kept, held in enumerate(loop.kept):
        if not held.pieces:
            continue
        elapsed = np.concatenate([np.atleast_1d(x) for x in held.times]) if held.times else np.zeros(0)
        samples = np.concatenate(held.samples) if loop.batched else None
        steps, theta = _located(grid, kept, elapsed, samples, held)
        event = (kept == FINAL) & (met[samples] if samples is not None else np.full(len(elapsed), met[0]))
        for mine in _groups(steps, theta == 1.0, event):
            first, who = mine[0], None if samples is None else samples[mine]
            found[int(steps[first])].append(Visit(kept, mine, theta[mine], who, bool(event[first])))
    return dict(found)


def _groups(*keys: Any) -> list[Index]:
    """Return the places that share all keys, in order."""
    if not len(keys[0]):
        return []
    order = np.lexsort(keys[::-1])
    changed = np.any([np.diff(key[order].astype(np.int64)) != 0 for key in keys], axis=0)
    return [np.sort(part) for part in np.split(order, np.nonzero(changed)[0] + 1)]


def _located(grid: Grid, kept: int, elapsed: Array, samples: Index | None, held: Any) -> tuple[Index, Array]:
    """Return the step in which each kept state lies (-1: the first state) and its place there."""
    count = len(elapsed)
    steps: Any
    if samples is None:
        inside = np.searchsorted(grid.s, elapsed, side="left") - 1
        steps = np.arange(count) if kept == ENDS else np.full(count, len(grid) - 1) if kept == FINAL else inside
        where: Any = steps
    else:
        assert grid.counts is not None
        own = [np.searchsorted(grid.s[:, b], e, side="left") - 1 for b, e in zip(samples, elapsed, strict=True)]
        ends = np.concatenate(held.slots)
        steps = ends if kept == ENDS else grid.counts[samples] - 1 if kept == FINAL else np.array(own, np.int64)
        where = (steps, samples)
    starts, sizes = (x[where] if len(x) else np.zeros(count) for x in (grid.s, grid.size))
    theta = np.where(steps < 0, 1.0, (elapsed - starts) / np.where(sizes > 0, sizes, 1.0))
    return steps, np.where((theta > 1.0 - 1e-9) | (kept == ENDS), 1.0, theta)
