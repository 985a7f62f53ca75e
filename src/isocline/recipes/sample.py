"""`sample`: the shortest way from a model to samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from isocline._core.errors import require
from isocline._core.estimate import Budget
from isocline._core.stream import Stream, as_stream
from isocline.plans import grids
from isocline.plans.candidate import Candidate
from isocline.plans.grids.span import End
from isocline.plans.plan import Plan
from isocline.plans.runner import Sampled
from isocline.plans.solvers import dpm_solver_pp_2m
from isocline.processes import Denoiser


def sample(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    budget: Budget | int | None = None,
    *,
    rng: Stream | int,
    plan: Plan | None = None,
    solver: Callable[..., Plan] = dpm_solver_pp_2m,
    grid: Callable[..., Any] = grids.karras,
    end: End = "zero",
    cond: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Sampled:
    """Draw samples of `shape` (B, *).

    Args:
        denoiser: the model.
        shape: batch and datum shape.
        budget: ``Budget(calls=8)`` or just 8; not needed with `plan`.
        rng: stream or seed.
        plan: a plan to use as it is, instead of `solver` on `grid`.
        solver: a function of `isocline.plans.solvers`.
        grid: a function of `isocline.plans.grids`.
        end: where sampling ends, ``"zero"`` noise or the process's ``"t_min"``.
        cond: conditions, passed to the denoiser.
        dtype: precision of the states.
    """
    require((plan is None) != (budget is None), "pass either a budget of network calls or a plan")
    if plan is None:
        calls = budget.calls if isinstance(budget, Budget) else budget
        require(calls is not None, "sampling needs a budget of calls, for example Budget(calls=8)")
        plan = Candidate(solver, grid).compile(denoiser.process, Budget(calls=calls).calls, end)  # type: ignore[arg-type]
        plan = plan.for_guidance(denoiser.guidance)
    stream = as_stream(rng)
    start = plan.start(shape, stream.child("start"), dtype=dtype)
    return plan.run(denoiser, start, cond=cond, rng=stream)
