"""Samplers of other programs, each with the function of ours that computes the same, and the search for one that fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import solvers
from isocline.plans.composite import Stretch, composite
from isocline.plans.export.seen import Seen
from isocline.plans.plan import Plan
from isocline.processes import EDM, GaussianProcess

Settings = dict[str, Any]


@dataclass(frozen=True)
class Sampler:
    """A sampler of another program, which takes a list of noise levels.

    Args:
        name: its name there.
        solver: ``(process, levels, **settings) -> Plan``, computing the same.
        settings: what it must be called with to fit what was seen; None where it cannot fit.
        clean: whether it may step to noise level 0.
        least: fewest steps for which the formulas agree.
    """

    name: str
    solver: Callable[..., Plan]
    settings: Callable[[Seen], Settings | None] = lambda seen: {}
    clean: bool = True
    least: int = 1

    @property
    def ours(self) -> str:
        """Name of the function here that computes the same."""
        solver = self.solver.func if isinstance(self.solver, partial) else self.solver
        return solver.__name__

    def fit(self, seen: Seen) -> Settings | None:
        """Return the settings with which the sampler does what was seen; None where there are none."""
        steps, ends_clean = len(seen.nodes) - 1, float(seen.nodes[-1]) == 0.0
        if not seen.finite or steps < self.least or (ends_clean and not self.clean):
            return None
        settings = self.settings(seen)
        return settings if settings is not None and self._same(seen, settings) else None

    def _same(self, seen: Seen, settings: Settings) -> bool:
        try:
            plan = self.solver(EDM(), seen.nodes, **settings)
        except InvalidInput:  # settings read off the noise of another sampler may be out of range
            return False
        return seen.same(Seen.unscaled(plan))


def check_exportable(plan: Plan, program: str) -> None:
    """Refuse a plan with a threshold, constants or coefficients for each coordinate, which no sampler knows."""
    if plan.event or plan.constant is not None:
        raise InvalidInput(
            f"{program} has no sampler for this plan: it adds constants, or has a coefficient for each coordinate, and none there "
            "does; run it with plan.run"
        )
    if plan.threshold is not None:
        raise InvalidInput(
            f"{program} has no sampler for this plan: it thresholds data predictions, and none there does. Put the threshold "
            "into the model and export plan.with_threshold(None)"
        )


def no_sampler(plan: Plan, program: str, samplers: Iterable[Sampler]) -> InvalidInput:
    """Return the error that says why no sampler of `program` fits `plan`, and what to do instead."""
    names = ", ".join(dict.fromkeys(sampler.ours for sampler in samplers if sampler.ours in solvers.__all__))
    return InvalidInput(
        f"{program} has no sampler for this plan: {_reason(plan)}. Compile one on plan.nodes that can be exported (some plans of "
        f"{names}; the page on exporting says which), or run this one with plan.run"
    )


def _reason(plan: Plan) -> str:
    method, called = plan.provenance.method, plan.evaluate
    if not torch.allclose(plan.model_times[called], plan.times[:-1][called], rtol=1e-9, atol=1e-9):
        return "it tells the network other times than those of the states (tuned model times)"
    if "stretches" in plan.provenance.settings:
        return "several solvers share the run, and a sampler there takes all steps alike"
    if method in solvers.__all__:
        return f"none there computes what {method} does on this grid"
    return f"its coefficients, made by {method}, are those of none there"


def at(**settings: Any) -> Callable[[Seen], Settings]:
    """Return fixed settings."""
    return lambda seen: dict(settings)


def ancestral_eta(seen: Seen) -> Settings | None:
    """Return the ``eta`` of DDIM's noise ``eta t sqrt(1 - r^2)``."""
    noise = seen.first_noise()
    if noise is None:
        return None
    before, after, size = noise
    return {"eta": round(size / (after * math.sqrt(1 - (after / before) ** 2)), 12)} if after < before else None


def sde_eta(seen: Seen) -> Settings | None:
    """Return the ``eta`` of SDE-DPM-Solver++'s noise ``t sqrt(1 - r^(2 eta))``."""
    noise = seen.first_noise()
    if noise is None:
        return None
    before, after, size = noise
    if not size < after < before:
        return None
    return {"eta": round(math.log1p(-((size / after) ** 2)) / (2 * math.log(after / before)), 12)}


def dpm_solver_pp_2s(process: GaussianProcess, levels: Tensor, eta: float) -> Plan:
    """Return DPM-Solver++ 2S: the ancestral sampler of that name at ``eta = 0``."""
    return solvers.dpm_solver_pp_2s(process, levels)


def third_order(process: GaussianProcess, levels: Tensor, eta: float) -> Plan:
    """Return DPM-Solver++ 3M with exact weights in its second step: the SDE sampler of that name at ``eta = 0``."""
    start = Stretch(solvers.exponential_adams, 2, {"order": 2})
    return composite(process, levels, [start, Stretch(solvers.dpm_solver_pp_3m)])
