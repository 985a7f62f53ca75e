r"""LD3: times, then times and model times, by gradient descent against a soft teacher (Tong et al., arXiv 2405.15506).

The student is the base's own solver on times ``t(theta_1)``, which tells the network the times ``tau(theta_1, theta_2)``. Gaps
of the half log-SNR are a softmax of ``theta_1``, which starts at the base's grid; ``tau`` is shifted by ``theta_2``, at most by
half the nearest gap. With ``Psi`` the student's run and ``Psi*`` the teacher's, training noises ``x`` and their soft copies ``x'``,

    min over theta, x'   mean RMS( Psi_theta(x') - Psi*(x) )      subject to   |x' - x| <= r ,

``theta`` by small batches, each of which then moves its own ``x'`` one step; see `soft_noises`. The solver is compiled anew for
each batch, so gradients reach times through its coefficients.

RMSprop moves ``theta_1``, plain gradient descent ``theta_2``, both with gradients of norm 1 at most; after some checks without gain
the best parameters come back and both rates fall. That is the authors' optimiser. Here the loss is the RMS in place of a perceptual
distance, plans are judged on validation noises that do not move, and ``theta_2``, in units of half a gap, has a higher rate.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.metrics.distances import rms
from isocline.plans.plan import Plan
from isocline.plans.runner import unroll
from isocline.plans.tuners.calibration import Calibration
from isocline.plans.tuners.descent import Batches, Descent, hand
from isocline.plans.tuners.free import Free, FreePlan
from isocline.plans.tuners.recompile import on_times
from isocline.plans.tuners.soft_noises import SoftNoises
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

LEARNED_TIMES = Method(
    "ld3",
    "LD3 (learning to discretise denoising diffusion ODEs)",
    "Learning to Discretize Denoising Diffusion ODEs",
    "Vinh Tong, Hoang Trung-Dung, Anji Liu, Guy Van den Broeck, Mathias Niepert",
    2024,
    "2405.15506",
    room="plans.tuners",
    when="Times and model times for a differentiable model, where the solver's own coefficients shall stay.",
)


@LEARNED_TIMES.variant()
@dataclass(frozen=True)
class LD3:
    """Learn times, then times and model times.

    Needs a differentiable model; memory grows with calls times batch unless it is `Checkpointed`.

    Args:
        times_rounds: passes over the training noises that move times only.
        both_rounds: passes after them that move model times too; 0 for plans that tell the network its true times.
        batch: noises in each step.
        rate: learning rate of the times.
        told_rate: learning rate of the model times, in units of half the nearest gap, times the number of steps of the base.
        radius: how far a noise may move, in standard deviations of the start noise; ``0.001 d / n^2`` by default for `n` steps and
            data of `d` numbers; 0 is the hard teacher.
        noise_rate: step length of the noises for a gradient of norm 1, in the same unit, times the number of steps of the base.
        check_every: steps between validations.
        patience: validations without gain before rates fall.
        decay: factor by which they fall.
    """

    times_rounds: int = 4
    both_rounds: int = 40
    batch: int = 8
    rate: float = 5e-3
    told_rate: float = 5.0
    radius: float | None = None
    noise_rate: float = 6.0
    check_every: int = 4
    patience: int = 5
    decay: float = 0.8

    def __post_init__(self) -> None:
        require(
            self.times_rounds >= 0 and self.both_rounds >= 0 and self.times_rounds + self.both_rounds >= 1,
            f"LD3 needs at least one round, got {self.times_rounds} and {self.both_rounds}",
        )
        require(self.rate > 0 and self.told_rate > 0, f"learning rates must be positive, got {self}")
        require(0 < self.decay <= 1, f"rates fall by a factor in (0, 1], got {self.decay}")
        require(self.check_every >= 1 and self.patience >= 1, f"LD3 checks at least every step, got {self}")

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
        """Return the base's solver on the best times found, or the base where that is better on validation noises.

        Args:
            base: a deterministic plan that a solver made; same ends as the teacher; one row a step if model times are free.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: order of the training noises.
            seconds: stop after so much wall time, keeping the best plan.
            bar: progress to advance by one for each step.

        Raises:
            InvalidInput: the base cannot be tuned, or the model's output has no gradients.
            NotFinite: the loss became NaN or infinite.
        """
        descent = Descent("LD3", base, denoiser, calibration, seconds, bar)
        batches = Batches("LD3", len(calibration.train), self.batch, as_stream(rng, "LD3"))
        search, each = _Search(self, base, descent, calibration), batches.count // batches.size
        for round_ in range(self.times_rounds + self.both_rounds):
            search.restore()
            for _ in range(each):
                batches.run(lambda index, told=round_ >= self.times_rounds: search.step(index, told))  # type: ignore[misc]
                descent.advance()
                late = descent.late
                if descent.step % self.check_every == 0 or late:
                    search.check()
                if late:
                    return descent.tuned(lambda plan: self._labelled(base, plan))
        if descent.step % self.check_every:
            search.check()
        return descent.tuned(lambda plan: self._labelled(base, plan))

    def _labelled(self, base: Plan, plan: Plan) -> Plan:
        labelled = on_times(base, plan.nodes, "LD3", LEARNED_TIMES.arxiv, asdict(self))
        return replace(labelled, model_times=plan.model_times) if self.both_rounds else labelled


class _Search:
    """The student, its optimisers and the soft noises of one fit."""

    def __init__(self, settings: LD3, base: Plan, descent: Descent, calibration: Calibration) -> None:
        n, train = len(base.nodes) - 1, calibration.train
        self.settings, self.descent, self.train = settings, descent, train
        self.student = FreePlan(base, Free(model_times=settings.both_rounds > 0, weights=False))
        self.times = torch.optim.RMSprop([self.student.gap], lr=settings.rate, momentum=0.9)
        self.told = torch.optim.SGD([self.student.shift], lr=settings.told_rate / n)
        radius = 0.001 * math.prod(train.x.shape[1:]) / n**2 if settings.radius is None else settings.radius
        scale = float(base.process.sigma(base.times[0]))
        self.noises = SoftNoises(train.x, radius * scale, settings.noise_rate / n * scale**2)
        self.kept, self.bad = self._state(), 0

    @torch.enable_grad()
    def step(self, index: Tensor, told: bool) -> None:
        """Move times, model times if `told`, and then the noises at `index`."""
        x = self.noises.x[index].requires_grad_()
        losses = self._losses(self.student(), x, index)
        moving = [(self.student.gap, self.times), (self.student.shift, self.told)][: 1 + told]
        *gradients, noise = self.descent.gradients(losses.mean(), [*(leaf for leaf, _ in moving), x])
        for (leaf, optimizer), gradient in zip(moving, gradients, strict=True):
            hand([leaf], [gradient])
            optimizer.step()
        each = len(index) * noise  # the gradient of each noise's own loss
        self.noises.move(index, each, losses.detach(), lambda there: self._losses(self.student(), there, index))

    def check(self) -> None:
        """Offer the plan; after `patience` checks without gain return to the best one and lower the rates."""
        if self.descent.best.offer(self.descent.step, self.student()):
            self.kept, self.bad = self._state(), 0
            return
        self.bad += 1
        if self.bad >= self.settings.patience:
            self.restore()
            self.noises.x, self.bad = self.kept[-1].clone(), 0
            for optimizer in (self.times, self.told):
                optimizer.param_groups[0]["lr"] *= self.settings.decay

    def restore(self) -> None:
        """Return to the times and model times of the best plan."""
        with torch.no_grad():
            for leaf, value in zip((self.student.gap, self.student.shift), self.kept, strict=False):
                leaf.copy_(value)

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        found = (self.student.gap, self.student.shift, self.noises.x)
        return tuple(x.detach().clone() for x in found)  # type: ignore[return-value]

    def _losses(self, plan: Plan, x: Tensor, index: Tensor) -> Tensor:
        part = self.train.take(index)
        return rms(unroll(plan, self.descent.model, x, cond=part.cond)[-1], part.target)
