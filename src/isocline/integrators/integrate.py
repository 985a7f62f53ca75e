"""`integrate`: one call for every equation, method, controller and gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.integrators.controllers.base import Array, Controller
from isocline.integrators.controllers.constant import Constant
from isocline.integrators.controllers.pid import PID
from isocline.integrators.events import Event
from isocline.integrators.gradients.direct import Direct, Gradient
from isocline.integrators.methods.base import Method
from isocline.integrators.methods.dopri5 import Dopri5
from isocline.integrators.packing import Packing
from isocline.integrators.problem import Problem
from isocline.integrators.save import SaveAt
from isocline.integrators.sde import SDE, check_pairing
from isocline.integrators.solution import Solution
from isocline.integrators.terms import ODE, Terms

Time = float | Tensor


def integrate(
    terms: Terms | Callable[..., Any],
    y0: Any,
    t0: Time,
    t1: Time,
    *,
    method: Method | None = None,
    args: Any = None,
    controller: Controller | None = None,
    gradient: Gradient | None = None,
    saveat: SaveAt | None = None,
    events: Sequence[Event] | Event = (),
    dt0: float | None = None,
    max_steps: int = 4096,
    batching: Literal["joint", "per-sample"] = "joint",
    record: Sequence[Literal["steps"]] = (),
) -> Solution:
    """Integrate an equation from `t0` to `t1`, forward or backward.

    Args:
        terms: the equation: a vector field ``f(t, y)`` (``f(t, y, args)`` with `args`), or an object such as `ODE`,
            `Semilinear`, `SDE` or `CDE`.
        y0: the first state: a tensor or any nested structure of tensors of one dtype.
        t0: start; with ``batching="per-sample"`` also (B,).
        t1: end; with ``batching="per-sample"`` also (B,).
        method: makes the steps; `Dopri5` by default.
        args: given to the field as third argument; tensors in it may need gradients, and `Each` marks rows that belong to samples.
        controller: chooses the steps: ``PID(rtol, atol)``, `Constant`, `Steps`, `Clip`. By default steps of size `dt0` where it
            is given and ``PID(1e-5, 1e-7)`` otherwise.
        gradient: how gradients are had; `Direct` by default.
        saveat: which states are kept; the last one by default.
        events: conditions that end the integration.
        dt0: size of the first step, positive; found from two slopes where it is not given.
        max_steps: cap on attempted steps.
        batching: ``"joint"``: the whole state shares its steps. ``"per-sample"``: the first axis of every tensor of the state
            counts samples, each of which has steps of its own; the field is given ``t`` of shape (B, 1, ..., 1).
        record: ``("steps",)`` keeps what every attempt did.

    Returns:
        The solution. A failure is a value in it: see ``solution.status`` and ``solution.check()``.

    Raises:
        InvalidInput: where the arguments do not fit together.

    Examples:
        >>> import torch
        >>> circle = lambda t, y: torch.stack([-y[1], y[0]])
        >>> solution = integrate(circle, torch.tensor([1.0, 0.0], dtype=torch.float64), 0.0, torch.pi, controller=PID(1e-9, 1e-9))
        >>> [round(v, 6) + 0.0 for v in solution.y1.tolist()], solution.status.ok
        ([-1.0, 0.0], True)
    """
    equation = terms if hasattr(terms, "functions") else ODE(_callable(terms))
    batched = batching == "per-sample"
    require(batching in ("joint", "per-sample"), f'batching is "joint" or "per-sample", got {batching!r}')
    require(max_steps >= 1, f"max_steps must be at least 1, got {max_steps}")
    require(dt0 is None or dt0 > 0, f"dt0 must be positive, whatever the direction of time, got {dt0}")
    packing = Packing.of(y0, batched=batched)
    packed = packing.pack(y0)
    start, end = _times(t0, t1, packed, batched)
    chosen = method or Dopri5()
    steering = controller or (PID(1e-5, 1e-7) if dt0 is None else Constant())
    chosen = chosen.measured(steering) if hasattr(chosen, "measured") else chosen
    _check(chosen, steering, equation, saveat, batched)
    if isinstance(equation, SDE):
        check_pairing(chosen, equation)
        equation = equation.driven(packed, start, end, steering, dt0, getattr(chosen, "area", False))
    problem = Problem(
        terms=equation,  # type: ignore[arg-type]
        method=chosen,
        controller=steering,
        y0=packed,
        packing=packing,
        args=args,
        t0=start,
        t1=end,
        dt0=dt0,
        save=saveat or SaveAt(),
        events=(events,) if isinstance(events, Event) else tuple(events),
        max_steps=max_steps,
        record="steps" in record,
    )
    return (gradient or Direct()).solve(problem)


def _callable(terms: Any) -> Callable[..., Any]:
    if not callable(terms):
        raise InvalidInput(
            f"the equation must be a function f(t, y) or terms such as ODE(f), got {type(terms).__name__}"
        )
    return terms


def _times(t0: Time, t1: Time, y: Tensor, batched: bool) -> tuple[Array, Array]:
    shape = (y.shape[0],) if batched else ()
    found = []
    for name, t in (("t0", t0), ("t1", t1)):
        array = np.asarray(torch.as_tensor(t, dtype=torch.float64).detach().cpu().numpy())
        require(array.shape in ((), shape), f"{name} has shape {array.shape}; expected a number{' or (B,)' * batched}")
        require(bool(np.isfinite(array).all()), f"{name} is not finite: {t}")
        found.append(np.broadcast_to(array, shape).copy() if batched else np.float64(array))
    signs = np.sign(found[1] - found[0])
    require(bool((signs >= 0).all() or (signs <= 0).all()), "all samples must be integrated in the same direction")
    return found[0], found[1]


def _check(method: Method, controller: Controller, terms: Any, saveat: SaveAt | None, batched: bool) -> None:
    accepts = getattr(method, "accepts", None)
    kinds = f"{type(method).__name__} integrates {accepts.__name__} terms" if accepts else ""
    require(accepts is None or isinstance(terms, accepts), f"{kinds}, got {type(terms).__name__}")
    if controller.adaptive and not method.error_order:
        raise InvalidInput(
            f"{type(method).__name__} has no error estimate: pass dt0 and no controller, or a method with one such as Dopri5"
        )
    if batched and saveat is not None:
        require(not saveat.dense, 'dense output needs batching="joint"; ask for times with SaveAt(ts=...)')
        require(saveat.fn is None, 'SaveAt(fn=...) needs batching="joint"')
