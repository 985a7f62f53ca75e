r"""Gradients from the continuous adjoint equation, integrated backwards.

With ``a = dL/dy`` and ``g = dL/d theta``, from the end to the start,

    dy/dt = f(t, y, theta) ,    da/dt = -(df/dy)^T a ,    dg/dt = -(df/d theta)^T a

and a jumps by the cotangent of every state that was kept, where y is set to that state again. This is the gradient of
the exact solution, solved for to a tolerance: not the gradient of the discrete solution. ``g`` appears on no
right-hand side, so its error need not steer the steps: the *seminorm* leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.registry import Method
from isocline.integrators.controllers.base import Array, Controller
from isocline.integrators.controllers.clip import Clip
from isocline.integrators.controllers.pid import PID
from isocline.integrators.gradients.once import once
from isocline.integrators.gradients.parameters import Parameters, ends_of, refuse_hidden, tensors_of, with_tensors
from isocline.integrators.gradients.pullback import (
    handed_out,
    merge,
    refuse_records,
    seen_by,
    states_of,
    watched,
)
from isocline.integrators.loop import Loop
from isocline.integrators.packing import Packing
from isocline.integrators.problem import Problem
from isocline.integrators.save import SaveAt
from isocline.integrators.solution import Solution
from isocline.integrators.terms import ODE, bound

METHOD = Method(
    "backsolve",
    "Backsolve adjoint",
    "Neural Ordinary Differential Equations",
    "Chen, Rubanova, Bettencourt, Duvenaud",
    2018,
    "1806.07366",
    room="integrators.gradients",
    when="To compare with published results; Checkpointed and ReversibleAdjoint give exact gradients for as little memory.",
)


@METHOD.variant()
@dataclass(frozen=True)
class Backsolve:
    """The continuous adjoint: memory that does not grow with the steps, a gradient that is wrong by the errors of the way back.

    Not for damped equations, which are unstable backwards; not with ``batching="per-sample"``, events, or terms other
    than `ODE` and `Semilinear`. Source: Chen, Rubanova, Bettencourt and Duvenaud, arXiv 1806.07366; seminorm of
    Kidger, Chen and Lyons, arXiv 2009.09457.

    Args:
        controller: chooses the steps backwards; that of the solution by default.
        seminorm: leave the gradients of arguments and parameters out of the error that steers the steps; for a `PID`
            controller.
        parameters: what the equation depends on besides its arguments, tensors or a module; by default they are
            searched for in it.

    Examples:
        >>> import torch
        >>> from isocline.integrators import PID, integrate
        >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
        >>> tight = PID(1e-8, 1e-8)
        >>> integrate(lambda t, y: -y, y0, 0.0, 1.0, controller=tight, gradient=Backsolve()).y1.sum().backward()
        >>> round(float(y0.grad), 6)  # exp(-1)
        0.367879
    """

    controller: Controller | None = None
    seminorm: bool = True
    parameters: Parameters = None

    exact = False

    def solve(self, problem: Problem) -> Solution:
        """Return the solution with gradients."""
        if not torch.is_grad_enabled():
            return Loop(problem).run().solution()
        given, seen = tensors_of(problem.args), seen_by(problem, self.parameters)
        if not (problem.y0.requires_grad or given or seen):
            return watched(problem, "Backsolve")
        _refuse(problem)
        with torch.no_grad():
            loop = Loop(problem).run()
        outputs = merge(loop)
        how = _How(self, replace(problem, y0=problem.y0.detach()), len(given), _elapsed(loop, outputs), loop.sign)
        states = _Attach.apply(how, states_of(loop, outputs), problem.y0, *given, *seen)
        return handed_out(loop, problem, dict(zip(outputs, states, strict=True)))

    def _steering(self, problem: Problem, count: int) -> Controller:
        """Return what chooses the steps backwards; `count` entries of the state are watched by the seminorm."""
        chosen = self.controller or problem.controller
        return _watching(chosen, count) if self.seminorm else chosen


def _refuse(problem: Problem) -> None:
    refuse_records(problem, "Backsolve")
    way_out = "pass gradient=Checkpointed()"
    require(not problem.shape, f'Backsolve needs batching="joint": {way_out}')
    require(not problem.events, f"Backsolve has no gradient of events: {way_out}")
    name = type(problem.terms).__name__
    require(hasattr(problem.terms, "vf"), f"Backsolve needs one vector field, which {name} has not: {way_out}")
    accepts = getattr(problem.method, "accepts", None)
    require(accepts in (None, ODE), f"{type(problem.method).__name__} cannot integrate the adjoint equation: {way_out}")


def _elapsed(loop: Loop, outputs: Sequence[int]) -> tuple[Array, ...]:
    return tuple(np.concatenate([np.atleast_1d(t) for t in loop.kept[k].times]) for k in outputs)


def _watching(controller: Controller, count: int) -> Controller:
    """Return a controller that watches the first entries of the state only."""
    if isinstance(controller, Clip):
        return replace(controller, inner=_watching(controller.inner, count))
    if not isinstance(controller, PID):
        return controller
    plain = torch.as_tensor(controller.atol).ndim == 0
    require(plain, "Backsolve cannot spread a tensor atol over the adjoint state: pass Backsolve(controller=PID(...))")
    norm = controller.norm
    return replace(controller, norm=lambda x, dims: norm(x[..., :count], dims))


@dataclass(frozen=True)
class _How:
    mode: Backsolve
    problem: Problem
    given: int
    elapsed: tuple[Array, ...]
    sign: float


class _Attach(torch.autograd.Function):
    """Gives kept states the gradients of the adjoint equation."""

    @staticmethod
    def forward(ctx: Any, how: _How, states: tuple[Tensor, ...], y0: Tensor, *tensors: Tensor) -> Any:
        ctx.how = how
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y0, *tensors, *(s.detach() for s in states))
        return states

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        how: _How = ctx.how
        saved = ctx.saved_tensors
        count = len(saved) - len(cotangents)
        y0, *tensors = saved[:count]
        fresh = [x.detach().requires_grad_() for x in tensors[: how.given]]
        inputs = [*fresh, *tensors[how.given :]]
        adjoint = _Adjoint(how, with_tensors(how.problem.args, fresh), inputs)
        with torch.no_grad():
            a, grads = adjoint.run(y0.detach(), saved[count:], cotangents)
        return (None, None, *once([a, *grads], [y0, *tensors, *cotangents], "Backsolve"))


class _Adjoint:
    """The adjoint equation of a problem."""

    def __init__(self, how: _How, args: Any, inputs: Sequence[Tensor]) -> None:
        self.how, self.inputs = how, tuple(inputs)
        self.terms: Any = bound(how.problem.terms, args, how.problem.packing)
        self.checked = False

    def field(self, t: Tensor, state: Any) -> Any:
        """Return the right-hand sides for ``(y, a, g)``."""
        y, a, g = state
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            f = self.terms.vf(t, y)
        if not self.checked:
            self.checked = True
            refuse_hidden(ends_of([f], [y, *self.inputs]), "Backsolve")
        if not f.requires_grad:
            return f, torch.zeros_like(a), tuple(map(torch.zeros_like, g))
        found = torch.autograd.grad(f, (y, *self.inputs), -a, allow_unused=True)
        da, *dg = (torch.zeros_like(x) if v is None else v for v, x in zip(found, (y, *self.inputs), strict=True))
        return f.detach(), da, tuple(dg)

    def run(
        self, y0: Tensor, kept: Sequence[Tensor], cotangents: Sequence[Tensor | None]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of the first state and of the inputs, from those of what was kept."""
        times = np.concatenate(self.how.elapsed)
        states = torch.cat(list(kept))
        pairs = zip(kept, cotangents, strict=True)
        jumps = torch.cat([torch.zeros_like(x) if w is None else w for x, w in pairs])
        order = np.argsort(-times, kind="stable")
        a, grads = torch.zeros_like(y0), tuple(map(torch.zeros_like, self.inputs))
        for here, following in zip(order, [*order[1:], None], strict=True):
            a = a + jumps[here]
            end = 0.0 if following is None else float(times[following])
            if times[here] > end:
                a, grads = self._leg(states[here], a, grads, float(times[here]), end)
        return a, list(grads)

    def _leg(self, y: Tensor, a: Tensor, grads: Any, start: float, end: float) -> tuple[Tensor, Any]:
        """Go back from one kept state to the time of the one before."""
        p, sign = self.how.problem, self.how.sign
        packing = Packing.of((y, a, grads))
        leg = replace(
            p,
            terms=ODE(self.field),
            controller=self.how.mode._steering(p, 2 * y.numel()),
            y0=packing.pack((y, a, grads)),
            packing=packing,
            args=None,
            t0=p.t0 + sign * start,
            t1=p.t0 + sign * end,
            save=SaveAt(t1=True),
            record=False,
        )
        solution = Loop(leg).run().solution()
        if not solution.status.ok:
            raise NotFinite(f"the adjoint equation {solution.status}")
        _, a, grads = solution.y1
        return a, grads
