"""The one held-out report all tuners share: error with its interval, calls and seconds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.estimate import Estimate, bootstrap_median, bootstrap_median_ratio
from isocline.metrics.distances import rms
from isocline.plans.plan import Plan
from isocline.plans.tuners.calibration import NoiseSet
from isocline.processes import Denoiser


@dataclass(frozen=True)
class Measured:
    """How a plan did on a set of noises.

    Args:
        plan: the plan.
        errors: (N,) RMS distance of each sample to the teacher's.
        calls: network calls of one run.
        seconds: wall time of all runs.
    """

    plan: Plan
    errors: Tensor
    calls: int
    seconds: float

    def median(self, rng: int = 0) -> Estimate:
        """Return the median error with its bootstrap interval."""
        return bootstrap_median(self.errors, rng)

    def rms(self) -> float:
        """Return the root mean square over samples, which large errors dominate."""
        return self.errors.square().mean().sqrt().item()


def measure(plan: Plan, denoiser: Denoiser, noises: NoiseSet, *, batch: int = 64) -> Measured:
    """Run `plan` on `noises` and return the distances to the teacher's results."""
    errors, calls, seconds = [], 0.0, 0.0
    for first in range(0, len(noises), batch):
        part = noises.take(slice(first, first + batch))
        sampled = plan.run(denoiser, part.x, cond=part.cond)
        errors.append(rms(sampled.x, part.target))
        calls, seconds = sampled.cost.calls, seconds + sampled.cost.seconds
    return Measured(plan, torch.cat(errors).double(), int(calls), seconds)


def ratio(tuned: Measured, baseline: Measured, rng: int = 0) -> Estimate:
    """Return the ratio of the median errors, paired by noise, with its bootstrap interval."""
    return bootstrap_median_ratio(tuned.errors, baseline.errors, rng)
