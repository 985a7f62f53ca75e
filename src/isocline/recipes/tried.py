"""One plan that a search tried."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from isocline._core.estimate import Cost
from isocline.plans.plan import Plan


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

    @property
    def score(self) -> float:
        """The median of the errors; infinite where there is no plan."""
        return float("inf") if self.errors is None else float(self.errors.median())
