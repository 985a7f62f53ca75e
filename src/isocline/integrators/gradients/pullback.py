r"""Vector-Jacobian products of steps that are made again.

With ``w_k`` the cotangent of the carry before step k and ``u_k`` those of the states that were kept of it, going backwards,

    w_k = (d carry_{k+1} / d carry_k)^T w_{k+1} + (d kept_k / d carry_k)^T u_k

and likewise for arguments and parameters, which are added up. The carry is all that a method hands on (the state, but
also a slope that is used again), so that the result is the derivative of the discrete solution. The forward pass
builds no graph; a graph exists for the steps of one segment at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch
from isocline.integrators.gradients.once import once
from isocline.integrators.gradients.parameters import (
    Parameters,
    ends_of,
    refuse_hidden,
    seen,
    tensors_of,
    with_tensors,
)
from isocline.integrators.gradients.tape import FIRST, MOMENT, Cap, Recorder, SeparateRecorder, Tape
from isocline.integrators.loop import Loop
from isocline.integrators.methods.base import Carry
from isocline.integrators.problem import Problem, StepTaken
from isocline.integrators.solution import Solution
from isocline.integrators.terms import bound

Grads = list[Tensor | None]


class Pullback:
    """The backward pass over a tape.

    Args:
        tape: what was recorded.
        args: the arguments, made of tensors of their own.
        inputs: tensors that gradients are wanted for, besides the state.
        kept: cotangents of what was kept, by collection.
        mode: the name that messages use.
    """

    def __init__(
        self, tape: Tape, args: Any, inputs: Sequence[Tensor], kept: Sequence[Tensor | None], mode: str
    ) -> None:
        self.tape, self.inputs, self.kept, self.mode = tape, tuple(inputs), kept, mode
        self.terms: Any = bound(tape.problem.terms, args, tape.problem.packing)
        self.grads: Grads = [None] * len(inputs)
        self.checked = False

    def forth(self, k: int, carry: Carry) -> Carry:
        """Return the carry after the k-th step."""
        with torch.no_grad():
            return self.tape.advance(self.terms, k, carry)[0]

    def back(self, start: int, stop: int, carry: Carry, cotangent: Grads) -> Grads:
        """Return the cotangent of the carry before step `start`, given that after step ``stop - 1``."""
        own = tuple(x.detach().requires_grad_() for x in carry)
        outputs: list[Tensor] = []
        weights: list[Tensor] = []
        now: Carry = own
        with torch.enable_grad():
            for k in range(start, stop):
                if k == len(self.tape.grid) - 1:
                    self._compare(now[0])
                now, again = self.tape.advance(self.terms, k, now)
                if not self.checked:
                    self.checked = True
                    refuse_hidden(ends_of(now, [*own, *self.inputs]), self.mode)
                for kept, places, states in self.tape.seen(k, again):
                    self._weigh(states, self._of(kept, places), outputs, weights)
        for x, w in zip(now, cotangent, strict=False):
            self._weigh(x, w, outputs, weights)
        if not outputs:
            return [None] * len(own)
        found = torch.autograd.grad(outputs, (*own, *self.inputs), weights, allow_unused=True)
        for i, g in enumerate(found[len(own) :]):
            self.grads[i] = added(self.grads[i], g)
        return list(found[: len(own)])

    def _compare(self, y: Tensor) -> None:
        """Raise where the state before the last step is not what the forward pass had."""
        counts, then = self.tape.grid.counts, self.tape.last[0]
        if counts is not None:
            rows = torch.as_tensor(counts == len(self.tape.grid), device=y.device)
            y, then = y[rows], then[rows]
        check_repeats(y.detach(), then, self.mode, "the steps made again differ from those of the forward pass")

    def _of(self, kept: int, places: Any) -> Tensor | None:
        whole = self.kept[kept]
        return None if whole is None else whole[torch.as_tensor(places, device=whole.device)]

    def _weigh(self, x: Tensor, w: Tensor | None, outputs: list[Tensor], weights: list[Tensor]) -> None:
        if w is not None and x.requires_grad:
            outputs.append(x)
            weights.append(w)

    def first(self, y0: Tensor, cotangent: Tensor | None) -> Tensor:
        """Return the gradient of the first state, what was kept of it included."""
        total = torch.zeros_like(y0) if cotangent is None else cotangent
        for visit in self.tape.visits.get(-1, ()):
            w = self._of(visit.kept, visit.places)
            if w is not None and visit.samples is None:
                total = total + w.sum(0)
            elif w is not None:
                total = total.index_add(0, torch.as_tensor(visit.samples, device=w.device), w)
        return total


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return the sum of gradients that may be missing."""
    return b if a is None else a if b is None else a + b


Backward = Callable[[Pullback, Tensor], Tensor | None]


@dataclass(frozen=True)
class Replayed:
    """How a solution is given gradients.

    Args:
        mode: the name that messages use.
        tape: what was recorded.
        backward: ``(pullback, y0) -> cotangent of y0``.
        given: number of tensors that come from the arguments; the others are seen by the functions.
        outputs: which collections have states.
        held: how many tensors each carry of the tape has, by number of its step; -1 for the last.
    """

    mode: str
    tape: Tape
    backward: Backward
    given: int
    outputs: tuple[int, ...]
    held: tuple[tuple[int, int], ...]


class _Attach(torch.autograd.Function):
    """Gives kept states their gradients."""

    @staticmethod
    def forward(
        ctx: Any, how: Replayed, states: tuple[Tensor, ...], carries: tuple[Tensor, ...], *tensors: Tensor
    ) -> Any:
        ctx.how = how
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *carries)
        return states

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        how: Replayed = ctx.how
        count = sum(width for _, width in how.held)
        saved = ctx.saved_tensors
        (y0, *tensors), carries = saved[: len(saved) - count], list(saved[len(saved) - count :])
        kept: Grads = [None] * (MOMENT + 1)
        for place, w in zip(how.outputs, cotangents, strict=True):
            kept[place] = w
        states = {k: tuple(carries.pop(0) for _ in range(width)) for k, width in how.held}
        tape = replace(how.tape, last=states.pop(-1, ()), states=states)
        fresh = [x.detach().requires_grad_() for x in tensors[: how.given]]
        args = with_tensors(tape.problem.args, fresh)
        with torch.no_grad():
            pullback = Pullback(tape, args, [*fresh, *tensors[how.given :]], kept, how.mode)
            first = pullback.first(y0, how.backward(pullback, y0.detach()))
        return (None, None, None, *once([first, *pullback.grads], [y0, *tensors, *cotangents], how.mode))


def solved(
    problem: Problem,
    cap: Cap | None,
    backward: Backward,
    parameters: Parameters,
    mode: str,
    check: Callable[[Tape], None] | None = None,
) -> Solution:
    """Return the solution of a problem with gradients from replayed steps.

    Args:
        problem: what is integrated.
        cap: how many states the tape may hold after n steps; None for the last only.
        backward: ``(pullback, y0) -> cotangent of y0``, which goes through all steps.
        parameters: what the functions depend on besides their arguments; searched for where None.
        mode: the name that messages use.
        check: looks at the tape before anything is returned.
    """
    if not torch.is_grad_enabled():
        return Loop(problem).run().solution()
    given, others = tensors_of(problem.args), seen_by(problem, parameters)
    if not (problem.y0.requires_grad or given or others):
        return watched(problem, mode)
    refuse_records(problem, mode)
    loop, recorder = recorded(problem, cap)
    tape = Tape.of(loop, recorder)
    if check is not None:
        check(tape)
    tape.problem = replace(tape.problem, y0=problem.y0.detach())
    held = {**recorder.states, -1: recorder.last}
    tape.states, tape.last = {}, ()
    how = Replayed(mode, tape, backward, len(given), merge(loop), tuple((k, len(c)) for k, c in held.items()))
    carries = tuple(x for carry in held.values() for x in carry)
    outputs = _Attach.apply(how, states_of(loop, how.outputs), carries, problem.y0, *given, *others)
    return handed_out(loop, problem, dict(zip(how.outputs, outputs, strict=True)))


def seen_by(problem: Problem, parameters: Parameters) -> list[Tensor]:
    """Return the tensors that the equation and its events see without being given them."""
    events = (event.condition for event in problem.events)
    return seen((*problem.terms.functions(), *events), problem.args, parameters)


def refuse_records(problem: Problem, mode: str) -> None:
    """Raise where what is asked for can only be had from the graph of the forward pass."""
    for asked, what in ((problem.record, 'record=("steps",)'), (problem.save.dense, "SaveAt(dense=True)")):
        if asked:
            raise InvalidInput(
                f"{mode} keeps no graph of the steps, which gradients of {what} need: pass gradient=Direct()"
            )


@torch.no_grad()
def recorded(problem: Problem, cap: Cap | None) -> tuple[Loop, Recorder]:
    """Return the loop after its run, and what was written down of it."""
    recorder = SeparateRecorder(cap, problem.shape[0]) if problem.shape else Recorder(cap)
    return Loop(replace(problem, on_step=recorder, sprint=None)).run(), recorder


def merge(loop: Loop) -> tuple[int, ...]:
    """Join the pieces of each collection to one; return which collections have any, and the time of an event where there is one."""
    for held in loop.kept:
        if held.pieces:
            held.pieces = [torch.cat(held.pieces)]
    moment = (MOMENT,) if loop.t_final is not None and not loop.batched else ()
    return (*(k for k in range(FIRST, MOMENT) if loop.kept[k].pieces), *moment)


def states_of(loop: Loop, outputs: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the joined states."""
    return tuple(loop.t_final.reshape(1) if k == MOMENT else loop.kept[k].pieces[0] for k in outputs)  # type: ignore[union-attr]


def handed_out(loop: Loop, problem: Problem, states: dict[int, Tensor]) -> Solution:
    """Return the solution with these states in place of those of the loop."""
    loop.problem = problem
    for k, held in enumerate(loop.kept):
        if k in states:
            held.pieces = [states[k]]
    if MOMENT in states:
        loop.t_final = states[MOMENT].reshape(())
    return loop.solution()


def watched(problem: Problem, mode: str) -> Solution:
    """Integrate what no gradient was found for; raise where the steps have one after all."""

    def watch(taken: StepTaken) -> None:
        _refuse(taken.y)

    def _refuse(y: Tensor) -> None:
        refuse_hidden(ends_of([y], []), mode)

    loop = Loop(replace(problem, on_step=watch, sprint=None)).run()
    _refuse(loop.y)
    return loop.solution()


def check_repeats(now: Tensor, then: Tensor, mode: str, what: str, scale: float = 0.0) -> None:
    """Raise where a state that was made again is not what it was, measured by its size or by `scale` where that is larger."""
    eps = torch.finfo(now.real.dtype if now.is_complex() else now.dtype).eps
    now, then = now.detach(), then.detach()
    size = max(float(then.abs().max()) if then.numel() else 0.0, scale)
    miss = float((now - then).abs().max()) if then.numel() else 0.0
    if not miss <= eps**0.5 * max(size, eps):
        raise Mismatch(f"{mode}: {what} (off by {miss:.1e} at size {size:.1e}); pass gradient=Direct()")
