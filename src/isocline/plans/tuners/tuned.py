"""The result of a tuner."""

from __future__ import annotations

from dataclasses import dataclass

from isocline._core.estimate import Cost
from isocline.plans.plan import Plan


@dataclass(frozen=True)
class Tuned:
    """A tuned plan.

    Args:
        plan: the plan that did best on the validation noises.
        history: (step, validation error) at each check; the first is the base plan.
        cost: network calls (forward and backward) for each training noise in a batch, and seconds.
    """

    plan: Plan
    history: list[tuple[int, float]]
    cost: Cost
