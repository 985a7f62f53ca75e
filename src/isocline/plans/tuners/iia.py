r"""IIA, improved integration approximation: one step as good as many small ones (Zhang, Niwa and Kleijn, arXiv 2304.11328).

For each step ``M`` steps of the same solver lead from the student's *current* states, over the same interval, to targets. The step
keeps its base row and adds

    sum_{k=0}^{r-1} c_k (D_{i-k} - D_{i-k-1})  +  c (x_i - alpha_i D_i)

with the coefficients that come nearest to the targets in the mean square over the training noises. The ``r`` differences of data
predictions keep a step exact where the data prediction is constant; ``c`` frees the factor on the state as well, and gives that up.
The targets are local: a step shall solve the equation from where the student is, whatever errors brought it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.tuners.least_squares import Feature, LeastSquares, Student, differences
from isocline.plans.tuners.paths import refined
from isocline.plans.tuners.recompile import compiler_of

INTEGRATION_APPROXIMATION = Method(
    "iia",
    "IIA (improved integration approximation)",
    "On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation",
    "Guoqiang Zhang, Kenta Niwa, W. Bastiaan Kleijn",
    2023,
    "2304.11328",
    room="plans.tuners",
    when="New coefficients in closed form on times that stay, without gradients and without a teacher's paths.",
)


@INTEGRATION_APPROXIMATION.variant()
@dataclass(frozen=True, kw_only=True)
class IIA(LeastSquares):
    """Fit each step to small steps of the same solver from the student's own states.

    The base must be a solver's plan, on times of any tuner. A row of a corrector (`unipc`) starts from the state it read, so the
    fit replaces the correction.

    Args:
        past: number ``r`` of differences of data predictions; the paper mostly takes 1.
        substeps: small steps ``M`` to each target, equal in log noise level.
        free_carry: whether the factor on the state may change too.
        ridge: relative penalty on the coefficients.
        batch: noises in each network call.
    """

    past: int = 2
    substeps: int = 10
    free_carry: bool = True
    arxiv: ClassVar[str] = INTEGRATION_APPROXIMATION.arxiv

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.past >= 0 and self.substeps >= 2, f"IIA needs past >= 0 and substeps >= 2, got {self}")
        require(self.past > 0 or self.free_carry, "IIA needs something to fit: past >= 1 or free_carry")

    def features(self, plan: Plan, first: int, row: int) -> list[Feature]:
        """Return the differences of the last predictions and, if the carry is free, ``x_i - alpha_i D_i``."""
        found = differences(plan, row)[: self.past]
        if self.free_carry and bool(plan.evaluate[row]):
            unit = torch.eye(len(plan.carry), dtype=torch.float64)[row]
            found.append(Feature(1.0, -plan.process.alpha(plan.times[row]) * unit))
        return found

    def targets(self, base: Plan, student: Student) -> Callable[[int], Tensor]:
        """Return what small steps from the states at the step's start lead to."""
        compile_on = compiler_of(base)

        def target(first: int) -> Tensor:
            start, end = student.plan.times[[first, student.row + 1]].tolist()
            fine = compile_on(refined(base.process, start, end, self.substeps))
            return student.batched(lambda x, cond: fine.run(student.denoiser, x, cond=cond).x, student.states[first])

        return target
