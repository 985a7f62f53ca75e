r"""End-to-end tuning: times, model times and coefficients by gradient descent through the whole run.

For start noises ``x_T`` and a teacher's results ``x*`` it minimises the mean over samples of ``RMS(plan(x_T)_b - x*_b)`` over
the free entries of the plan with Adam. Every entry starts at the base plan; the plan that is best on validation noises is kept.
Training the coefficients of a non-stationary solver end to end is the method of Shaul et al. (arXiv 2403.01329); training times
and model times through the unrolled solver is LD3's idea (Tong et al., arXiv 2405.15506, here without its soft teacher).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.metrics.distances import rms
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.runner import unroll
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.free import Free, FreePlan
from isocline.plans.tuners.report import measure
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
    """Tune by gradients through the run. Needs a differentiable model; memory grows with calls times batch.

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
        """
        calibration.check_comparable(base)
        start, calls = time.monotonic(), denoiser.calls
        student = FreePlan(base, self.free)
        optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=self.rate)
        best = _Best(base, denoiser, calibration.validation, self.power)
        for step, noises in enumerate(self._batches(calibration.train, as_stream(rng, "end to end"))):
            for group in optimizer.param_groups:
                group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            self._update(student, optimizer, denoiser, noises, step)
            late = seconds is not None and time.monotonic() - start > seconds
            if (step + 1) % self.check_every == 0 or step + 1 == self.steps or late:
                best.offer(step + 1, student)
            if bar is not None:
                bar.advance(1, f"validation error {best.error:.4f}")
            if late:
                break
        settings = {"base": base.provenance.method, **asdict(self)}
        plan = replace(best.plan, provenance=Provenance("EndToEnd", END_TO_END.arxiv, settings), guidance=base.guidance)
        return Tuned(plan, best.history, Cost(denoiser.calls - calls, 0, time.monotonic() - start))

    def _batches(self, noises: NoiseSet, rng: Stream) -> Iterator[NoiseSet]:
        size = min(self.batch, len(noises))
        each = len(noises) // size
        for step in range(self.steps):
            epoch, place = divmod(step, each)
            order = rng.permutation(len(noises), step=epoch)
            yield noises.take(order[place * size : (place + 1) * size])

    def _update(
        self, student: FreePlan, optimizer: torch.optim.Optimizer, denoiser: Denoiser, noises: NoiseSet, step: int
    ) -> None:
        optimizer.zero_grad()
        with torch.enable_grad():
            result = unroll(student(), denoiser, noises.x, cond=noises.cond)[-1]
            loss = power_mean(rms(result, noises.target), self.power)
            loss.backward()
        if not math.isfinite(loss.item()):
            raise NotFinite(f"the tuning loss became {loss.item()} at step {step}; lower the learning rate")
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()


class _Best:
    """The plan with the smallest validation error so far."""

    def __init__(self, plan: Plan, denoiser: Denoiser, validation: NoiseSet, power: float) -> None:
        self.denoiser, self.validation, self.power = denoiser, validation, power
        self.plan, self.error = plan, self._error(plan)
        self.history = [(0, self.error)]

    def offer(self, step: int, student: FreePlan) -> None:
        with torch.no_grad():
            plan = _detached(student())
        error = self._error(plan)
        self.history.append((step, error))
        if error < self.error:
            self.plan, self.error = plan, error

    def _error(self, plan: Plan) -> float:
        return float(power_mean(measure(plan, self.denoiser, self.validation).errors, self.power))


def power_mean(errors: Tensor, power: float) -> Tensor:
    """Return ``(mean_b e_b^p)^(1/p)`` of the errors (B,) of a batch."""
    return errors.mean() if power == 1 else errors.pow(power).mean().pow(1 / power)


def _detached(plan: Plan) -> Plan:
    return replace(
        plan,
        times=plan.times.detach().clone(),
        nodes=plan.nodes.detach().clone(),
        model_times=plan.model_times.detach().clone(),
        carry=plan.carry.detach().clone(),
        weights=plan.weights.detach().clone(),
    )
