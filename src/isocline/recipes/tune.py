"""`tune`: budget in, plan out.

A teacher (a long Heun plan) fixes what "right" means. The best classical plan is chosen on validation noises, a tuner starts from
it, and both are measured on held-out noises that nothing was tuned or chosen on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from isocline._core.errors import IsoclineError, require
from isocline._core.estimate import Budget, Estimate
from isocline._core.progress import progress
from isocline._core.stream import Stream, as_stream
from isocline.plans.candidate import Candidate
from isocline.plans.grids import karras, uniform
from isocline.plans.grids.span import End
from isocline.plans.plan import Plan
from isocline.plans.solvers import flow_heun, heun
from isocline.plans.tuners import Calibration, EndToEnd, Measured, Tuned, draw_noises, measure, ratio
from isocline.processes import Denoiser
from isocline.recipes.shortlist import SHORTLIST, shortlist_of


@dataclass(frozen=True)
class Outcome:
    """What `tune` found.

    Args:
        plan: the plan to use: the tuned one, or the classical one where tuning did not help on validation noises.
        tuned: the tuner's own result.
        held_out: the tuned plan on held-out noises.
        classical: the best classical plan on the same noises.
        ratio: tuned median error over classical median error, with its interval.
        calibration: the noises and the teacher.
        baseline: which classical candidate was chosen.
    """

    plan: Plan
    tuned: Tuned
    held_out: Measured
    classical: Measured
    ratio: Estimate
    calibration: Calibration
    baseline: Candidate


def tune(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    budget: Budget | int,
    *,
    rng: Stream | int,
    cond: Callable[[int], Any] | None = None,
    end: End = "zero",
    sizes: tuple[int, int, int] = (64, 64, 256),
    teacher: Plan | None = None,
    tuner: EndToEnd | None = None,
    shortlist: Sequence[Candidate] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Outcome:
    """Find a plan for `denoiser` within `budget`.

    Args:
        denoiser: a differentiable model; guidance wrappers are welcome.
        shape: shape of one datum, for example (1, 28, 28).
        budget: ``Budget(calls=6)`` or just 6; with ``seconds`` the tuner stops in time.
        rng: stream or seed of all noises.
        cond: ``n -> conditions`` of n samples, a tensor (n, ...) or `Conditions`, for conditional models.
        end: where sampling ends, ``"zero"`` noise or the process's ``"t_min"``.
        sizes: numbers of training, validation and held-out noises.
        teacher: the plan that defines the target; 100 Heun steps by default.
        tuner: settings of the tuner.
        shortlist: classical plans to choose the start from; those of `shortlist_of` by default.
        dtype: precision of the states.
    """
    budget = Budget(calls=budget) if isinstance(budget, int) else budget
    require(budget.calls is not None, "tuning a sampler needs a budget of calls, for example Budget(calls=6)")
    rng, tuner = as_stream(rng), tuner or EndToEnd()
    teacher = teacher or heun_teacher(denoiser, end=end)
    with progress("teacher", sum(sizes)) as bar:
        calibration = draw_noises(teacher, denoiser, shape, sizes, rng, cond=cond, dtype=dtype, bar=bar)
    plans = shortlist_of(denoiser.process) if shortlist is None else shortlist
    chosen = best_classical(denoiser, calibration, budget.calls, end, plans)  # type: ignore[arg-type]
    base = replace(chosen.compile(denoiser.process, budget.calls, end), guidance=denoiser.guidance)  # type: ignore[arg-type]
    with progress(f"tuning {budget.calls} calls", tuner.steps) as bar:
        tuned = tuner.fit(base, denoiser, calibration, rng, seconds=budget.seconds, bar=bar)
    return _outcome(denoiser, calibration, chosen, base, tuned)


def heun_teacher(denoiser: Denoiser, steps: int = 100, end: End = "zero") -> Plan:
    """Return the default teacher: Heun on a Karras grid; from a start without signal Heun for the velocity, equal steps."""
    process = denoiser.process
    method, grid = (flow_heun, uniform) if float(process.alpha(process.t_max)) == 0 else (heun, karras)
    return method(process, grid(process, steps, end=end)).for_guidance(denoiser.guidance)


def best_classical(
    denoiser: Denoiser, calibration: Calibration, calls: int, end: End, shortlist: Sequence[Candidate] = SHORTLIST
) -> Candidate:
    """Return the candidate with the smallest median error on the validation noises; each must fit the budget."""
    errors: dict[float, Candidate] = {}
    for candidate in shortlist:
        try:
            plan = replace(candidate.compile(denoiser.process, calls, end), guidance=denoiser.guidance)
            errors[measure(plan, denoiser, calibration.validation).median().value] = candidate
        except IsoclineError as error:
            last = error
    require(bool(errors), f"no classical plan fits: {last}" if not errors else "")
    return errors[min(errors)]


def _outcome(denoiser: Denoiser, calibration: Calibration, chosen: Candidate, base: Plan, tuned: Tuned) -> Outcome:
    classical = measure(base, denoiser, calibration.held_out)
    held_out = measure(tuned.plan, denoiser, calibration.held_out)
    origin = replace(tuned.plan.provenance, error=held_out.median(), cost=tuned.cost.as_dict())
    plan = replace(tuned.plan, provenance=origin)
    return Outcome(
        plan,
        replace(tuned, plan=plan),
        replace(held_out, plan=plan),
        classical,
        ratio(held_out, classical),
        calibration,
        chosen,
    )
