r"""End-to-end tuning: times, model times and coefficients by gradient descent through the whole run.

For start noises ``x_T`` and a teacher's results ``x*`` it minimises the mean over samples of ``RMS(plan(x_T)_b - x*_b)`` over
the free entries of the plan with Adam. Every entry starts at the base plan; the plan that is best on validation noises is kept.
Training the coefficients of a non-stationary solver end to end is the method of Shaul et al. (arXiv 2403.01329); training times
and model times through the unrolled solver is LD3's idea (Tong et al., arXiv 2405.15506, here without its soft teacher).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.metrics.distances import rms
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.runner import unroll
from isocline.plans.tuners.best import power_mean
from isocline.plans.tuners.calibration import Calibration
from isocline.plans.tuners.descent import Batches, Descent
from isocline.plans.tuners.free import Free, FreePlan
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

END_TO_END = Method(
    "end-to-end",
    "End-to-end plan tuning",
    "Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models",
    "Neta Shaul, Uriel Singer, Ricky T. Q. Chen, Matthew Le, Ali Thabet, Albert Pumarola, Yaron Lipman",
    2024,
    "2403.01329",
    room="plans.tuners",
    when="Four to ten calls, a differentiable model, and a minute to spend: the largest gain for each call.",
)


@END_TO_END.variant()
@dataclass(frozen=True)
class EndToEnd:
    """Tune by gradients through the run. Needs a differentiable model; memory grows with calls times batch unless `Checkpointed`.

    Args:
        steps: gradient steps.
        batch: noises in each step.
        rate: peak learning rate, lowered to zero along a cosine.
        free: which entries may change.
        power: what is averaged over samples, ``(mean_b RMS_b^p)^(1/p)``: 1 treats samples alike, 2 is the root mean square, which
            fights the few large errors of sharp problems.
        check_every: steps between validations.
    """

    steps: int = 200
    batch: int = 16
    rate: float = 0.02
    free: Free = field(default_factory=Free)
    power: float = 1.0
    check_every: int = 25

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.batch >= 1, f"tuning needs steps >= 1 and batch >= 1, got {self}")
        require(self.power >= 1, f"the power must be at least 1, got {self.power}")
        require(self.rate > 0, f"the learning rate must be positive, got {self.rate}")

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
        """Return the best plan found.

        Args:
            base: the plan to start from; same ends as the teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: order of the training noises.
            seconds: stop after so much wall time, keeping the best plan.
            bar: progress to advance by one for each step.

        Raises:
            InvalidInput: the base cannot be tuned, or the model's output has no gradients.
            NotFinite: the loss became NaN or infinite.
        """
        descent = Descent("EndToEnd", base, denoiser, calibration, seconds, bar, self.power)
        student, train = FreePlan(base, self.free), calibration.train
        optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=self.rate)

        def loss(plan: Plan, index: Tensor) -> Tensor:
            noises = train.take(index)
            result = unroll(plan, descent.model, noises.x, cond=noises.cond)[-1]
            return power_mean(rms(result, noises.target), self.power)

        batches = Batches("EndToEnd", len(train), self.batch, as_stream(rng, "end to end"))
        descent.descend(student, optimizer, loss, batches, self.steps, self.check_every)
        settings = {"base": base.provenance.method, **asdict(self)}
        tuned = descent.tuned()
        origin = Provenance("EndToEnd", END_TO_END.arxiv, settings)
        return replace(tuned, plan=replace(tuned.plan, provenance=origin))
