r"""The loop: attempt a step, decide, keep what was asked for, go on.

Two planes. The *data plane* holds tensors: the packed state, what the method carries, the error ratio. The *control plane* holds
NumPy float64 numbers: elapsed time ``s``, step ``h``, decisions; shape () where the whole state shares its steps, (m,) where
each of the m samples under way has its own. Both kinds of batching run through the same lines; they differ in how a decision is
applied (`_pick`) and in that samples which have ended are taken out of the batch, so that they cost no more evaluations.

Elapsed time runs from 0 to ``|t1 - t0|`` whatever the direction; tensors that methods see carry the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators.collect import Index, Separate, Shared
from isocline.integrators.controllers.base import Array, Flags, Memory
from isocline.integrators.controllers.constant import whole
from isocline.integrators.crossing import Crossing, located, signs
from isocline.integrators.dense import Interpolant
from isocline.integrators.initial import first_step
from isocline.integrators.march import STRETCH, march, plain
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.outcome import solution_of
from isocline.integrators.problem import Problem, StepTaken, attempt
from isocline.integrators.solution import Reason, Solution
from isocline.integrators.terms import Counter, bound, restricted

TINY = 16 * np.finfo(np.float64).eps


def _either(condition: Flags, a: Array, b: Array) -> Array:
    return a if condition else b


class Loop:
    """One integration under way.

    Args:
        problem: what is integrated.
    """

    def __init__(self, problem: Problem) -> None:
        p = self.problem = problem
        self.batched = bool(p.shape)
        self.counter = Counter() if p.counted else None
        self.terms: Any = bound(p.terms, p.args, p.packing, self.counter)
        self.noisy = hasattr(p.terms, "over")
        self.sign = p.sign
        self.active: Index = np.arange(p.shape[0] if self.batched else 1)
        self.s: Array = 0.0 * p.t0
        self.h: Array = 0.0 * p.t0
        self.end: Array = self.sign * (p.t1 - p.t0)
        self.nudge = 4 * torch.finfo(p.real).eps * (np.abs(p.t0) + np.abs(p.t1))
        self.jumps = self._elapsed(p.controller.jumps)
        self.stops = np.concatenate([self._elapsed(p.controller.stops), self.jumps - self.nudge[..., None]], -1)
        self.y, self.t0 = p.y0, p.t0
        self.make = p.attempt or attempt
        self.real, self.dims, self.inside = p.real, p.event_dims, p.inside
        self.error_order, self.adaptive = p.method.error_order, p.controller.adaptive
        self.where: Any = np.where if self.batched else _either
        self.smallest = TINY * (np.abs(p.t0) + self.end)
        count = p.shape or (1,)
        self.nfe, self.accepted, self.rejected = (np.zeros(count, np.int64) for _ in range(3))
        self.tried = 0
        self.plain, self.failed_march = plain(p), False
        self.reasons, self.ends = [Reason.OK] * count[0], np.zeros(count)
        self.named = [""] * count[0]
        self.errors = torch.zeros(p.shape, dtype=self.real, device=p.y0.device) if p.controller.adaptive else None
        self.records: list[tuple[Any, ...]] = []
        self.pieces: tuple[list[float], list[float], list[Interpolant]] = ([], [], [])
        self.t_final: Tensor | None = None
        self._open()

    # ------------------------------------------------------------------------------------------------ times

    def _elapsed(self, times: Sequence[float]) -> Array:
        """Return given times as elapsed ones, shape (n,) or (B, n)."""
        return self.sign * (np.asarray(times, np.float64) - self.problem.t0[..., None])

    def tensor(self, x: Array) -> Tensor:
        """Return control numbers in the precision of the state, shape () or (m, 1, ..., 1)."""
        if not self.batched:
            return torch.scalar_tensor(float(x), dtype=self.real, device=self.y.device)
        return torch.as_tensor(x).to(self.y.device, self.real).reshape(-1, *[1] * self.problem.event_dims)

    def time(self, s: Array) -> Tensor:
        """Return the time at an elapsed time, as methods see it."""
        return self.tensor(self.t0 + self.sign * s)

    def _next_stop(self) -> Array:
        if not self.stops.shape[-1]:
            return self.end
        later = self.stops > self.s[..., None] + TINY * (np.abs(self.t0) + self.end)[..., None]
        return np.minimum(np.where(later, self.stops, np.inf).min(-1), self.end)

    # ------------------------------------------------------------------------------------------------ start

    def _open(self) -> None:
        p = self.problem
        want = self.sign * (p.save.times(p.shape, p.t0, p.t1) - p.t0[..., None])
        want = np.minimum(want, self.end[..., None])
        if p.save.mask is not None:
            want = np.where(p.save.mask.cpu().numpy().astype(bool), want, np.nan)
        if not self.batched and (np.diff(want) < 0).any():
            raise InvalidInput("the save times must be sorted in the direction of integration")
        self.kept: Any = [self._collector(w) for w in (want[..., :0], want, want[..., :0], want[..., :0])]
        self.begin_collecting()
        self.memory = p.controller.start(p.shape)
        self._start_method()

    def _collector(self, want: Array) -> Shared | Separate:
        return Separate(self.problem.shape[0], want) if self.batched else Shared(want)

    def begin_collecting(self) -> None:
        """Keep the first state, and what is asked for at the first time."""
        p, start, wanted = self.problem, self.kept[0], self.kept[1]
        if self.batched:
            everyone = self.active
            if p.save.t0:
                start.add(everyone, np.zeros_like(everyone), self.s, self.y)
            row, slot = np.nonzero(wanted.want <= 0)
            if len(row):
                wanted.add(row, slot, np.zeros(len(row)), self.y[torch.as_tensor(row, device=self.y.device)])
            return
        if p.save.t0:
            start.add(np.zeros(1), self.y[None])
        early = int((wanted.want <= 0).sum())
        if early:
            wanted.add(np.zeros(early), self.y[None].expand(early, *self.y.shape))

    def _start_method(self) -> None:
        """Find the first step and what the method carries; both may need the slope at the start."""
        p = self.problem
        t = self.time(self.s)
        f = None
        if p.dt0 is not None:
            self.h = np.full(p.shape, abs(float(p.dt0)))
            self.h = whole(self.h, self.end) if not p.controller.adaptive else self.h
        elif p.controller.adaptive and self.noisy:
            raise InvalidInput("adaptive steps of an SDE need the first one: pass dt0=...")
        elif p.controller.adaptive:
            f = self.terms.vf(t, self.y)
            self.h = first_step(
                self.terms.vf, f, self.y, self.end, self._ahead, p.controller, p.method.error_order, p.event_dims
            )
            self.count(2)
        elif p.controller.stops:
            self.h = np.full(p.shape, np.inf)
        else:
            raise InvalidInput("steps of one size need it: pass dt0=..., or a controller such as PID(1e-5, 1e-7)")
        self.state = p.method.start(self.terms, t, self.y, f)
        self._settle_count()
        self.signs = signs(p.events, self.terms, t, self.y, p.packing, self.batched)

    def _ahead(self, s: Array) -> tuple[Tensor, Tensor]:
        return self.time(s), self.tensor(self.sign * s)

    # ------------------------------------------------------------------------------------------------ steps

    def run(self) -> Loop:
        """Integrate to the end, an event or a failure."""
        if self._finish(self.s >= self.end, Reason.OK):
            return self
        while self.tried < self.problem.max_steps:
            if self.problem.sprint is not None:
                self.problem.sprint(self, self.next_call())
            if self.plain:
                march(self)
            if self._advance():
                return self
        self._finish(np.ones_like(self.s, dtype=bool), self._blame(Reason.MAX_STEPS))
        return self

    def _beyond(self, stop: Array) -> Array:
        """Return where the next step starts after one that ended at `stop`: just behind a jump, if there is one."""
        if not self.jumps.shape[-1]:
            return stop
        ahead = self.jumps - stop[..., None]
        near = (ahead > 0) & (ahead <= 1.01 * self.nudge[..., None])
        return np.where(near, self.jumps + self.nudge[..., None], stop[..., None]).max(-1)

    def next_call(self) -> Array:
        """Return the elapsed time up to which nothing but steps is asked for; the whole state shares its steps."""
        wanted = self.kept[1].want
        after = wanted[np.searchsorted(wanted, self.s, side="right") :]
        return np.minimum(self._next_stop(), after[0]) if len(after) else self._next_stop()

    def _advance(self) -> bool:
        """Make one attempt; return whether everything has ended."""
        p = self.problem
        self.tried += 1
        stop = self._next_stop()
        clipped = self.s + self.h * STRETCH >= stop
        size = self.where(clipped, stop - self.s, self.h)
        terms = self.terms
        if self.noisy:
            size, terms = self._with_noise(clipped, size)
        t, h = self.time(self.s), self.tensor(self.sign * size)
        step, ratio, error = self.make(p.method, p.controller, terms, t, h, self.y, self.state, self.dims, self.inside)
        self.count(step.evaluations)
        seen = ratio.detach().double().cpu().numpy() if self.batched else np.float64(ratio.item())
        choice = p.controller.decide(size, seen, self.memory, self.error_order)
        accept = choice.accept
        if p.record:
            self._write_record(size, ratio, accept, step)
        if p.on_step is not None:
            index = self.active if self.batched else None
            at = self.t0 + self.sign * self.s
            p.on_step(StepTaken(index, accept, at, self.sign * size, self.s, size, self.y, self.state))
        self._tally(accept, error)
        if self.noisy and self.adaptive:
            self._remember(accept, self.s + size)
        crossing = self._look_for_events(accept, step, t, size)
        reached = self.where(accept, self.where(clipped, self._beyond(stop), self.s + size), self.s)
        if crossing is not None:
            reached = self.where(crossing.hit, self.s + crossing.theta * size, reached)
        self._keep(step, accept, size, reached, step.y if crossing is None else crossing.y)
        self._settle_count()
        self._move(step, accept, choice.h, clipped, reached, choice.memory)
        return self._judge(seen, step, crossing)

    def _with_noise(self, clipped: Flags, size: Array) -> tuple[Array, Any]:
        """Return the step, ended where the Brownian path is cheap to know, and the terms that know the path over it."""
        at = self.t0 + self.sign * self.s
        if self.adaptive:
            size = self.where(clipped, size, self.sign * self.terms.fitted(at, self.sign * size))
        return size, self.terms.over(at, self.sign * size)

    def _remember(self, accept: Flags, reached: Array) -> None:
        """Let later steps end where a rejected one did: what was learnt of the noise there must not be thrown away."""
        if np.all(accept):
            return
        later = self.stops > self.s[..., None]
        ahead = self.stops[..., later.any(tuple(range(later.ndim - 1)))]
        self.stops = np.concatenate([ahead, np.where(accept, np.inf, reached)[..., None]], -1)

    def _tally(self, accept: Flags, error: Tensor | None) -> None:
        if not self.batched:
            (self.accepted if accept else self.rejected)[0] += 1
            if accept and error is not None and self.errors is not None:
                self.errors = self.errors + error
            return
        self.accepted[self.active] += accept
        self.rejected[self.active] += ~np.asarray(accept)
        if self.errors is None or error is None:
            return
        self.errors[torch.as_tensor(self.active)] += torch.where(self._flags(accept, 0), error, 0.0)

    def _keep(self, step: Step, accept: Flags, size: Array, reached: Array, y: Tensor) -> None:
        p = self.problem
        if self.batched:
            self.kept[1].inside(self.active, self.s, size, step, reached)
            if p.save.steps and accept.any():
                which = np.nonzero(accept)[0]
                chosen = self.active[which]
                self.kept[2].add(chosen, self.accepted[chosen] - 1, reached[which], y[torch.as_tensor(which)])
            return
        if not accept:
            return
        self.kept[1].inside(self.s, size, step, reached)
        if p.save.steps:
            self.kept[2].add(reached[None], y[None])
        if p.save.dense:
            starts, ends, inside = self.pieces
            starts.append(float(self.t0 + self.sign * self.s))
            ends.append(float(self.t0 + self.sign * (self.s + size)))
            inside.append(step.dense)

    def _move(self, step: Step, accept: Flags, h: Array, clipped: Flags, reached: Array, memory: Memory) -> None:
        """Take the step where it is accepted; a step that was cut short proposes no less than what was wanted before."""
        self.h = self.where(accept & clipped, np.maximum(h, self.h), h)
        self.y = self._pick(accept, step.y, self.y)
        if step.state or step.again or self.state:
            self.state = self._carried(accept, step)
        self.s, self.memory = reached, memory
        if self.jumps.shape[-1]:
            self._restart_after_jump(accept)

    def _carried(self, accept: Flags, step: Step) -> Carry:
        if not self.batched:
            return step.state if accept else step.again
        if accept.all():
            return step.state
        if len(step.state) != len(step.again):  # the method starts afresh after accepted steps
            return () if accept.any() else step.again
        return tuple(self._pick(accept, a, b) for a, b in zip(step.state, step.again, strict=True))

    def _restart_after_jump(self, accept: Flags) -> None:
        at = (np.abs(self.jumps + self.nudge[..., None] - self.s[..., None]) <= 1e-3 * self.nudge[..., None]).any(-1)
        if not (at & accept).any():
            return
        fresh = self.problem.method.start(self.terms, self.time(self.s), self.y, None)
        if len(fresh) != len(self.state) or not self.batched:
            self.state = fresh
        else:
            self.state = tuple(self._pick(at & accept, a, b) for a, b in zip(fresh, self.state, strict=True))
        self._settle_count()

    # ------------------------------------------------------------------------------------------------ ends

    def _look_for_events(self, accept: Flags, step: Step, t: Tensor, size: Array) -> Crossing | None:
        p = self.problem
        if not p.events:
            return None
        end = t + self.tensor(self.sign * size)
        after = signs(p.events, self.terms, end, step.y, p.packing, self.batched)
        found = located(p.events, self.signs, after, accept, self, step, t, size)
        self.signs = [np.where(accept, new, old) for new, old in zip(after, self.signs, strict=True)]
        return found

    def _judge(self, ratio: Array, step: Step, crossing: Crossing | None) -> bool:
        """End what has ended: by an event, at the end, by a failure. Return whether nothing is left."""
        failing = ~np.isfinite(ratio)
        unsolved = step.failed is not None and bool(step.failed.any())
        reason = Reason.NOT_SOLVED if unsolved else Reason.NOT_FINITE
        if self.adaptive:
            small = (self.h < self.smallest) & (self.s < self.end)
            if small.any() and not (failing & small).any():
                reason = self._blame(Reason.STEP_TOO_SMALL)
            failing = small
        ended = failing | (self.s >= self.end)
        if crossing is None and not ended.any():
            return False
        reasons: Any = np.where(failing, np.array(reason, object), Reason.OK)  # type: ignore[call-overload]
        if crossing is not None:
            ended |= crossing.hit
            reasons = np.where(crossing.hit, np.array(Reason.EVENT, object), reasons)
            self._apply(crossing)
        return self._finish(ended, reasons)

    def _blame(self, otherwise: Reason) -> Reason:
        """Return `TOLERANCE_TOO_SMALL` where what is tolerated is below the rounding of the state."""
        scale = getattr(self.problem.controller, "scale", None) or getattr(
            getattr(self.problem.controller, "inner", None), "scale", None
        )
        if scale is None:
            return otherwise
        rounding = 4 * torch.finfo(self.real).eps * self.y.detach().abs()
        return Reason.TOLERANCE_TOO_SMALL if bool((scale(self.y) < rounding).any()) else otherwise

    def _apply(self, crossing: Crossing) -> None:
        """Move the samples that met an event to where they met it."""
        self.y = self._pick(crossing.hit, crossing.y, self.y)
        self.t_final = crossing.t if not self.batched else self._moments(crossing)
        for k in np.nonzero(np.atleast_1d(crossing.hit))[0]:
            self.named[self.active[k]] = self.problem.events[int(np.atleast_1d(crossing.which)[k])].name

    def _moments(self, crossing: Crossing) -> Tensor:
        """Return the times of all events so far, (B,), NaN where there was none."""
        known = crossing.t.new_full(self.problem.shape, torch.nan) if self.t_final is None else self.t_final
        rows = torch.as_tensor(self.active[crossing.hit], device=known.device)
        return known.index_put((rows,), crossing.t[torch.as_tensor(crossing.hit)])

    def _finish(self, ended: Flags, reasons: Any) -> bool:
        """Take ended samples out of the batch; return whether none is left."""
        flags, why = (
            np.atleast_1d(ended),
            np.broadcast_to(np.asarray(reasons, dtype=object), np.atleast_1d(ended).shape),
        )
        if not flags.any():
            return False
        missed = any(event.required for event in self.problem.events)
        for k in np.nonzero(flags)[0]:
            reason = why[k]
            self.reasons[self.active[k]] = Reason.EVENT_MISSED if reason is Reason.OK and missed else reason
            self.ends[self.active[k]] = float(np.atleast_1d(self.s)[k])
        if not self.batched:
            self.kept[3].add(self.s[None], self.y[None])
            return True
        gone, left = np.nonzero(flags)[0], np.nonzero(~flags)[0]
        self.kept[3].add(self.active[gone], np.zeros_like(gone), self.s[gone], self.y[torch.as_tensor(gone)])
        self._compact(left)
        return len(left) == 0

    def _compact(self, left: Index) -> None:
        """Keep only some of the samples under way."""
        rows = torch.as_tensor(left, device=self.y.device)
        self.active, self.s, self.h = self.active[left], self.s[left], self.h[left]
        self.end, self.t0, self.smallest = self.end[left], self.t0[left], self.smallest[left]
        self.nudge = self.nudge[left]
        self.stops, self.jumps = self.stops[left], self.jumps[left]
        self.memory = tuple(m[left] for m in self.memory)
        self.y, self.state = self.y[rows], tuple(x[rows] for x in self.state)
        self.signs = [x[left] for x in self.signs]
        self.terms = restricted(self.terms, torch.as_tensor(self.active, device=self.y.device))

    # ------------------------------------------------------------------------------------------------ books

    def _flags(self, accept: Flags, dims: int) -> Tensor:
        return torch.as_tensor(np.asarray(accept), device=self.y.device).reshape(-1, *[1] * dims)

    def _pick(self, accept: Flags, new: Tensor, old: Tensor) -> Tensor:
        if not self.batched:
            return new if accept else old
        if accept.all():
            return new
        return torch.where(self._flags(accept, new.ndim - 1), new, old)

    def count(self, declared: int) -> None:
        """Write down evaluations: those that were counted, or as many as were declared."""
        if self.counter is None:
            self.nfe[self.everyone] += declared
        else:
            self._settle_count()

    @property
    def everyone(self) -> Any:
        """The places of the samples under way in the books."""
        return self.active if self.batched else 0

    def _settle_count(self) -> None:
        if self.counter is not None and self.counter.evaluations:
            self.nfe[self.everyone] += self.counter.evaluations
            self.counter.evaluations = 0

    def book(self, tried: int, taken: int, evaluations: int, error: Tensor) -> None:
        """Write down attempts that were made outside of the loop, with the sum of their errors."""
        self.tried += tried
        self.accepted[0] += taken
        self.rejected[0] += tried - taken
        self.nfe[0] += evaluations
        if self.errors is not None:
            self.errors = self.errors + error.to(self.errors.dtype)

    def _write_record(self, size: Array, ratio: Tensor, accept: Flags, step: Step) -> None:
        stiffness = getattr(self.problem.method, "stiffness", lambda step: None)(step)
        at = self.t0 + self.sign * self.s
        if (
            not self.batched and not accept
        ):  # no gradient of a penalty goes through what was thrown away, and may have overflowed
            ratio, stiffness = ratio.detach(), None if stiffness is None else stiffness.detach()
        self.records.append((self.active, at, self.sign * size, ratio, accept, stiffness, step.evaluations))

    def solution(self) -> Solution:
        """Return what was kept, in the user's structure."""
        return solution_of(self)
