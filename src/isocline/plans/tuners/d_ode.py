r"""D-ODE solvers: one scalar for each output, from the teacher's states (Kim, Tang and Yu, arXiv 2309.16421).

A step replaces its newest prediction by ``D_i + lam_i (D_i - D_{i-1})``, which adds a multiple of the difference to the base row,

    x_{i+1} = base step + c_i (D_i - D_{i-1}) ,      c_i = <D_i - D_{i-1}, x*_{i+1} - base step> / |D_i - D_{i-1}|^2 ,

with the teacher's state ``x*_{i+1}`` at the step's end, on the path from the same start noise. The targets are global: unlike those
of IIA they ask a step to make good what earlier ones did wrong. The first step has no difference and stays. A step of Heun has two
outputs and so two scalars, both on its end (D-EDM); the authors' code puts one of them on the guess at the end of the step. Steps
stay exact where the data prediction is constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.tuners.least_squares import Feature, LeastSquares, Student, differences
from isocline.plans.tuners.paths import TeacherPaths

DISTILLED_SOLVERS = Method(
    "d-ode",
    "D-ODE solvers",
    "Distilling ODE Solvers of Diffusion Models into Smaller Steps",
    "Sanghwan Kim, Hao Tang, Fisher Yu",
    2023,
    "2309.16421",
    room="plans.tuners",
    when="New coefficients in closed form from a few noises: one number a step leaves little to overfit.",
)


@DISTILLED_SOLVERS.variant()
@dataclass(frozen=True, kw_only=True)
class DODE(LeastSquares):
    """Fit one scalar for each output of a step to the teacher's state at its end.

    Args:
        substeps: steps of the teacher between neighbouring nodes.
        ridge: relative penalty on the coefficients.
        batch: noises in each network call.
    """

    substeps: int = 10
    arxiv: ClassVar[str] = DISTILLED_SOLVERS.arxiv

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.substeps >= 1, f"a teacher needs at least 1 step between nodes, got {self.substeps}")

    def features(self, plan: Plan, first: int, row: int) -> list[Feature]:
        """Return the difference of each output of the step to the one before it."""
        return differences(plan, row)[: int(plan.evaluate[first : row + 1].sum())]

    def targets(self, base: Plan, student: Student) -> Callable[[int], Tensor]:
        """Return the teacher's states at the end of the step."""
        paths = TeacherPaths(student.denoiser, student.noises, self.substeps, self.batch)
        nodes = student.plan.nodes
        return lambda first: paths.at(nodes)[int((nodes == student.plan.times[student.row + 1]).nonzero()[0])]
