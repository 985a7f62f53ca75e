"""What every tuner is: a few settings, and one method that makes a better plan of a plan."""

from __future__ import annotations

from typing import Protocol

from isocline._core.progress import Progress
from isocline._core.stream import Stream
from isocline.plans.plan import Plan
from isocline.plans.tuners.calibration import Calibration
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser


class Tuner(Protocol):
    """A method that fits a plan to a teacher. What differs between methods is data: free entries, what is matched, how."""

    def fit(
        self,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream | int,
        *,
        seconds: float | None = None,
        bar: Progress | None = None,
    ) -> Tuned:
        """Return a plan that is not worse than `base` on the validation noises, and what it cost.

        Args:
            base: the plan to start from; it fixes process, ends, number of calls and often the solver.
            denoiser: the model.
            calibration: fitted on its training noises, chosen on its validation noises; held-out noises are not looked at.
            rng: orders and random starts.
            seconds: stop after so much wall time with the best plan so far.
            bar: progress to advance.
        """
