"""One plan that a search tried, and the figure that plans are ranked by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from isocline._core.estimate import Cost, Estimate, bootstrap
from isocline.plans.plan import Plan

Statistic = Literal["median", "rms"]  # of the distances to the teacher: the usual sample, or the few large errors


def summary(errors: Tensor, statistic: Statistic) -> Tensor:
    """Return the median or the root mean square (...) of errors (..., N)."""
    return errors.median(-1).values if statistic == "median" else errors.square().mean(-1).sqrt()


def estimated(errors: Tensor, statistic: Statistic) -> Estimate:
    """Return the statistic of errors (N,) with its bootstrap interval."""
    return bootstrap(lambda x: summary(x, statistic), errors.double(), rng=0)


def paired_ratio(errors: Tensor, others: Tensor, statistic: Statistic) -> Estimate:
    """Return the ratio of the statistics of two sets of errors (N,), paired by noise, with its bootstrap interval."""
    return bootstrap(
        lambda x, y: summary(x, statistic) / summary(y, statistic), errors.double(), others.double(), rng=0
    )


@dataclass(frozen=True)
class Tried:
    """One plan that was tried.

    Attributes:
        name: of the entry, or of the classical candidate.
        round: 0 for classical plans, 1 without gradients, 2 with gradients.
        plan: the plan; None where the entry does not fit.
        errors: (N,) distances to the teacher on the validation noises.
        cost: what finding it cost; calls for each noise of a batch.
        reason: why there is no plan.
    """

    name: str
    round: int
    plan: Plan | None
    errors: Tensor | None = None
    cost: Cost = field(default_factory=Cost)
    reason: str = ""

    def score(self, statistic: Statistic = "median") -> float:
        """Return the median or root mean square of the errors; infinite where there is no plan."""
        return float("inf") if self.errors is None else float(summary(self.errors, statistic))
