r"""One solver step as a penalty, at a random time of the solution (Pal, Edelman and Rackauckas, arXiv 2303.02262).

The sum over steps of `isocline.objectives.solver_cost` needs the graph of every step. Here one time t* is drawn, the state y(t*) is
one more saved output of the solve, and a fresh integrator makes one step from there,

    R = E(t*, y(t*)) h ,        h the automatic first step at (t*, y(t*)), a constant.

A saved state has gradients in every mode, so this works with `Checkpointed`, `ReversibleAdjoint` and `Backsolve` too. The fresh
step costs one evaluation for its first slope, one without gradient for the rule that finds h, and those of its other stages: with
`Tsit5` or `Dopri5` eight in all.

    unbiased    t* uniform in [t0, t1)
    biased      t* one of the times at which the solver made a step, so more often where steps are small

The first step is cautious: its E is far below one, so lambda is large, and in float32 E may be nothing but rounding. Use float64,
or make the fresh step of the size of the solver's own step there (``dt0=visited.h``). In the authors' code the state, the first
slope and the step size are all constants, and the fresh integrator starts at t0 whatever t* is; here only step size and tolerance
are constants, and the time is t*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, require
from isocline._core.registry import Method as Paper
from isocline._core.stream import Stream, as_stream
from isocline.integrators import Solution, StepRecord, integrate
from isocline.integrators.controllers.base import Controller
from isocline.integrators.methods.base import Method
from isocline.integrators.terms import Terms

METHOD = Paper(
    "local-solver-reg",
    "Locally regularised neural differential equations",
    "Locally Regularized Neural Differential Equations: Some Black Boxes Were Meant to Remain Closed!",
    "Pal, Edelman, Rackauckas",
    2023,
    "2303.02262",
    room="objectives",
    when="As solver-heuristic-reg, but with any gradient mode and at the cost of one solver step for each update.",
)


@METHOD.variant()
def local_step(
    terms: Terms | Callable[..., Any],
    y: Any,
    t: float | Tensor,
    t1: float | Tensor,
    *,
    controller: Controller,
    method: Method | None = None,
    dt0: float | None = None,
    args: Any = None,
    batching: Literal["joint", "per-sample"] = "joint",
) -> StepRecord:
    """Return the record of one step from a state of a solution; give it to `error_cost` or `stiffness_cost`.

    Args:
        terms: the equation, as for `integrate`.
        y: state at `t`, a saved state of the solution; gradients go on through it.
        t: where the step starts.
        t1: end of the integration, which the step does not cross.
        controller: says what is tolerated, such as ``PID(rtol, atol)``; that of the solution.
        method: makes the step; `Dopri5` by default, `Tsit5` in the paper.
        dt0: size of the step in place of the automatic first one.
        args: given to the field, as for `integrate`.
        batching: ``"per-sample"`` for a step of its own for each sample.

    Returns:
        A record of one step, which counts as accepted: shapes (1,) or (1, B).

    Examples:
        >>> import torch
        >>> from isocline.integrators import PID, Checkpointed, SaveAt, integrate
        >>> from isocline.objectives import error_cost
        >>> rate, steering = torch.tensor(3.0, dtype=torch.float64, requires_grad=True), PID(1e-4, 1e-4)
        >>> field, y0 = lambda t, y: -rate * y, torch.ones(1, dtype=torch.float64)
        >>> t = uniform_time(0.0, 1.0, rng=0, step=7)
        >>> solution = integrate(
        ...     field, y0, 0.0, 1.0, controller=steering, gradient=Checkpointed(), saveat=SaveAt(ts=[t, 1.0])
        ... )
        >>> penalty = error_cost(local_step(field, solution.ys[0], t, 1.0, controller=steering))
        >>> torch.autograd.grad(penalty, rate)[0].shape
        torch.Size([])
    """
    require(
        controller.adaptive, "a step's error is measured in units of what is tolerated: pass controller=PID(rtol, atol)"
    )
    solution = integrate(
        terms,
        y,
        t,
        t1,
        method=method,
        args=args,
        controller=controller,
        dt0=dt0,
        batching=batching,
        max_steps=1,
        record=("steps",),
    )
    assert solution.record is not None
    if not len(solution.record.h):
        raise InvalidInput(f"no step can be made from t = {t} to t1 = {t1}: draw t before the end")
    return replace(solution.record, accepted=torch.ones_like(solution.record.accepted, dtype=torch.bool))


def uniform_time(t0: float, t1: float, *, rng: Stream | int, step: int) -> float:
    """Return a time uniform between `t0` and `t1`, the draw of update `step` (unbiased).

    Examples:
        >>> 2.0 <= uniform_time(2.0, 3.0, rng=0, step=5) < 3.0
        True
    """
    share = float(as_stream(rng, "local step").uniform((1,), step=step, dtype=torch.float64))
    return t0 + (t1 - t0) * share


class Visited(NamedTuple):
    """A step that the solver made.

    Args:
        t: where it started.
        h: its size, positive.
        y: the state there.
    """

    t: float
    h: float
    y: Any


def visited_step(solution: Solution, *, rng: Stream | int, step: int, asked: int = 0) -> Visited:
    """Return one of the steps that the solver made, each as likely: the draw of update `step` (biased).

    Args:
        solution: made with ``SaveAt(t0=True, steps=True)``, or ``SaveAt(ts=times, t0=True, steps=True)``, and
            ``batching="joint"``.
        rng: source of the draw.
        step: number of the update.
        asked: how many times were asked for besides: the length of `times`.
    """
    known = solution.ts.ndim == 1 and len(solution.ts) > 1 + asked
    require(known, 'the steps were not kept: integrate with saveat=SaveAt(t0=True, steps=True) and batching="joint"')
    edges = [0, *range(1 + asked, len(solution.ts))]
    drawn = int(as_stream(rng, "local step").integers(len(edges) - 1, (1,), step=step))
    start, stop = (float(solution.ts[edge]) for edge in edges[drawn : drawn + 2])
    return Visited(start, abs(stop - start), pytree.tree_map(lambda y: y[edges[drawn]], solution.ys))


def with_time(times: Tensor, t: float) -> tuple[Tensor, int]:
    """Return sorted times (T,) with one more among them, float64 (T + 1,), and its place there.

    Examples:
        >>> times, place = with_time(torch.tensor([0.0, 0.5, 1.0]), 0.25)
        >>> times.tolist(), place
        ([0.0, 0.25, 0.5, 1.0], 1)
    """
    known = times.double()
    sign = -1.0 if len(known) > 1 and float(known[-1]) < float(known[0]) else 1.0
    place = int((sign * known < sign * t).sum())
    return torch.cat([known[:place], known.new_tensor([t]), known[place:]]), place
