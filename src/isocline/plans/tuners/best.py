"""The best plan so far on validation noises, and when to stop."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from isocline.plans.plan import Plan
from isocline.plans.tuners.calibration import NoiseSet
from isocline.plans.tuners.report import measure
from isocline.processes import Denoiser


class Best:
    """The plan with the smallest validation error so far.

    Args:
        plan: where the search starts; kept if nothing is better.
        denoiser: the model.
        validation: noises that nothing is fitted on.
        power: of the mean over samples; see `power_mean`.

    Attributes:
        plan: the best plan.
        error: its error.
        history: (step, error) of each offer.
    """

    def __init__(self, plan: Plan, denoiser: Denoiser, validation: NoiseSet, power: float = 1.0) -> None:
        self.denoiser, self.validation, self.power = denoiser, validation, power
        self.plan, self.error = plan, self._measured(plan)
        self.history = [(0, self.error)]

    def offer(self, step: int, plan: Plan) -> bool:
        """Measure `plan`, keep it if it is better, and say whether it was; an infinite error is never better."""
        plan = detached(plan)
        error = self._measured(plan)
        self.history.append((step, error))
        better = error < self.error
        if better:
            self.plan, self.error = plan, error
        return better

    @property
    def since(self) -> int:
        """How many offers ago the best one was made."""
        errors = [error for _, error in self.history]
        return len(errors) - 1 - errors.index(min(errors))

    def _measured(self, plan: Plan) -> float:
        return float(power_mean(measure(plan, self.denoiser, self.validation).errors, self.power))


def power_mean(errors: Tensor, power: float) -> Tensor:
    """Return ``(mean_b e_b^p)^(1/p)`` of the errors (B,) of a batch."""
    return errors.mean() if power == 1 else errors.pow(power).mean().pow(1 / power)


def detached(plan: Plan) -> Plan:
    """Return the plan without the graph that made it."""
    names = ("times", "nodes", "model_times", "carry", "weights", "noise")
    constant = None if plan.constant is None else plan.constant.detach().clone()
    return replace(plan, constant=constant, **{name: getattr(plan, name).detach().clone() for name in names})
