"""Compiled steps: one graph for a step, its error and its norm, made by `torch.compile`.

The loop stays in Python; what it calls once a step is one compiled function without graph breaks. Compilation happens at the
first step of each new field, shape and dtype, takes seconds, and pays off where fields are small and steps are many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array, Controller
from isocline.integrators.controllers.pid import PID
from isocline.integrators.gradients.direct import Direct, Gradient
from isocline.integrators.loop import Loop
from isocline.integrators.march import STRETCH
from isocline.integrators.methods.base import Carry, Method
from isocline.integrators.problem import Attempt, Problem, attempt
from isocline.integrators.solution import Solution

LIMIT = 256  # fields, shapes and methods that stay compiled side by side


def _lean(
    method: Method,
    controller: Controller,
    terms: Any,
    t: Tensor,
    h: Tensor,
    y: Tensor,
    state: Carry,
    event_dims: int,
    inside: bool,
) -> Attempt:
    """Make an attempt, and give out its interpolant only where it is needed: the stages then never leave the graph."""
    step, ratio, error = attempt(method, controller, terms, t, h, y, state, event_dims, inside)
    return (step if inside else step._replace(dense=None)), ratio, error  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Attempt]:
    return torch.compile(_lean, fullgraph=True, dynamic=False)


def _race(
    method: Method,
    controller: PID,
    terms: Any,
    event_dims: int,
    times: tuple[Tensor, ...],
    y: Tensor,
    state: Carry,
    memory: tuple[Tensor, ...],
) -> tuple[Any, ...]:
    """Attempt steps while they fit: the loop of `isocline.integrators.loop`, with the decisions of `PID`, as one graph."""
    s, h, start, sign, limit, smallest, left = times

    def going(s: Tensor, h: Tensor, tried: Tensor, *_: Any) -> Tensor:
        return (s + h * STRETCH < limit) & (h >= smallest) & (tried < left)

    def body(s: Tensor, h: Tensor, tried: Tensor, taken: Tensor, size: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        last, before, y, *state = rest
        real = y.real.dtype if y.is_complex() else y.dtype
        t, step = (start + sign * s).to(real), (sign * h).to(real)
        made, ratio, error = attempt(method, controller, terms, t, step, y, tuple(state), event_dims, False)
        accept, factor, kept = controller.filtered(ratio.double(), (last, before), method.error_order)
        assert error is not None
        carried = [torch.where(accept, a, b) for a, b in zip(made.state, made.again, strict=True)]
        size = size + torch.where(accept, error.to(size.dtype), 0.0)
        s1, y1 = torch.where(accept, s + h, s), torch.where(accept, made.y, y)
        return s1, h * factor, tried + 1, taken + accept.long(), size, *kept, y1, *carried

    zero = torch.zeros((), dtype=torch.int64, device=s.device)
    return while_loop(going, body, (s, h, zero, zero.clone(), torch.zeros_like(s), *memory, y, *state))


@lru_cache(maxsize=1)
def _compiled_race() -> Callable[..., tuple[Any, ...]]:
    return torch.compile(_race, fullgraph=True, dynamic=False)


def sprint(loop: Loop, limit: Array) -> None:
    """Make all attempts before the elapsed time `limit` in one call of a compiled graph; the loop goes on from there."""
    p, at = loop.problem, partial(torch.tensor, dtype=torch.float64, device=loop.y.device)
    if not loop.state or loop.s + loop.h * STRETCH >= limit:
        return  # the first attempt starts the method; the last one before a limit is cut by the loop
    left = p.max_steps - loop.tried - 1
    times = tuple(map(at, (loop.s, loop.h, loop.t0, loop.sign, limit, loop.smallest, left)))
    memory = tuple(map(at, loop.memory))
    found = _compiled_race()(p.method, p.controller, loop.terms, loop.dims, times, loop.y, loop.state, memory)
    s, h, tried, taken, error, last, before, loop.y, *state = found
    loop.s, loop.h = (np.float64(x.item()) for x in (s, h))
    loop.state = tuple(state)
    loop.memory = tuple(np.float64(x.item()) for x in (last, before))
    table = p.method.tableau  # type: ignore[attr-defined]
    loop.book(int(tried), int(taken), int(tried) * (table.stages - table.late - 1), error)


@dataclass(frozen=True)
class Compiled:
    """Steps compiled by `torch.compile`, around any gradient mode.

    Without gradients, and as far as nothing but steps is asked for, whole runs of attempts become one graph with the controller
    inside (methods whose last stage starts the next step, such as `Dopri5`, under `PID`). Otherwise each attempt is one graph.
    Evaluations are counted as the method declares them, since a graph cannot count. The field must be free of graph breaks: no
    ``.item()``, no printing, no branches on values. Made for, and tested with, explicit Runge-Kutta methods. The first call with
    a new field, shape or dtype takes many seconds.

    Args:
        gradient: how gradients are had.
    """

    gradient: Gradient = field(default_factory=Direct)

    @property
    def exact(self) -> bool:
        """Whether the gradient is that of the discrete solution."""
        return self.gradient.exact

    def solve(self, problem: Problem) -> Solution:
        """Return the solution, made by compiled steps."""
        require(not hasattr(problem.terms, "over"), "steps of an SDE are not compiled: leave out Compiled(...)")
        with torch._dynamo.config.patch(recompile_limit=LIMIT, accumulated_recompile_limit=4 * LIMIT):
            plan = replace(problem, attempt=_compiled(), counted=False)
            return self.gradient.solve(replace(plan, sprint=sprint) if _plain(problem) else plan)


def _plain(p: Problem) -> bool:
    """Return whether attempts may run without the loop: nothing is recorded and no gradient is wanted."""
    alone = not (p.shape or p.record or p.events or p.save.steps or p.save.dense or p.controller.stops)
    first_is_last = getattr(getattr(p.method, "tableau", None), "last_is_solution", False)
    return alone and first_is_last and type(p.controller) is PID and not torch.is_grad_enabled() and p.on_step is None
