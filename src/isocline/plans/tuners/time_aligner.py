r"""The timestep aligner: the solver stays, the network is told better times (Xia et al., arXiv 2310.09469).

A state that a coarse solver reaches at time ``t_i`` is not distributed as the network expects there, and the step from it needs the
prediction of some time between ``t_i`` and ``t_{i+1}``. Row by row one number ``tau_i`` is found, everything else as it is,

    x_{i+1}(tau_i) = a_i x_i + sum_{j<i} b_ij m_j + b_ii m(x_i, tau_i) ,

by Adam on a bounded shift of its half log-SNR, at most half the nearest gap of the grid. What is lowered is the mean of

    `ConstantNoise`    |e(x_i, t_i) - e(x_{i+1}, t_{i+1})|^2     the paper's: predicted noise shall not change along a path
    `TeacherState`     |x_{i+1} - x*_{i+1}|^2                    the teacher's state of the same noise

over ``tau_i``, with ``x_i`` from the rows tuned before it, or, for `ConstantNoise` in parallel, from data noised to ``t_i``.
Constant noise along a path makes it a straight line in ``(y, s)``. Flows of exact predictions bend, so the paper's objective can do
harm. After each row the plan so far is measured, and the one that is best on validation noises is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.descent import Batches, Descent
from isocline.plans.tuners.free import require_one_row_a_step, told_times
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.teacher_grid import OutOfTime, Timed
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

TIMESTEP_ALIGNER = Method(
    "time-aligner",
    "Timestep aligner",
    "Towards More Accurate Diffusion Model Acceleration with A Timestep Aligner",
    "Mengfei Xia, Yujun Shen, Changsong Lei, Yu Zhou, Ran Yi, Deli Zhao, Wenping Wang, Yong-jin Liu",
    2023,
    "2310.09469",
    room="plans.tuners",
    when="Model times only, one row at a time, in the memory of one call; the sampler's other numbers shall stay.",
)


class Rows:
    """The states and outputs of all training noises, row by row.

    Args:
        plan: the base.
        model: the denoiser.
        noises: training noises.
        given: states (N, *) to start each row from, in place of where the row before leads.
    """

    def __init__(self, plan: Plan, model: Denoiser, noises: NoiseSet, given: Sequence[Tensor] | None = None) -> None:
        self.model, self.noises, self.given = model, noises, given
        self.x, self.outputs = noises.x if given is None else given[0], list[Tensor]()
        self.conversion = plan.conversion(model.parameterisation)

    def step(self, plan: Plan, i: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output ``m_i`` and the next state, (B, *) each, of the noises at `index` (B,)."""
        x, cond = self.x[index], self.noises.take(index).cond
        cx, cm = (c[i].to(x) for c in self.conversion)
        output = cx * x + cm * self.model(x, plan.model_times[i], cond)
        past = [plan.weights[i, j].to(x) * m[index] for j, m in enumerate(self.outputs) if plan.weights[i, j] != 0]
        return output, plan.carry[i].to(x) * x + sum(past) + plan.weights[i, i].to(x) * output

    @torch.no_grad()
    def advance(self, plan: Plan, i: int, batch: int) -> None:
        """Take row `i` of `plan` for all noises."""
        parts = [self.step(plan, i, index) for index in torch.arange(len(self.x)).split(batch)]
        outputs, states = (torch.cat(column) for column in zip(*parts, strict=True))
        self.outputs.append(outputs)
        self.x = states if self.given is None else self.given[i + 1]


Loss = Callable[[int, Plan, Tensor], Tensor]


class Objective(Protocol):
    """What a row's model time is chosen for."""

    def prepare(self, base: Plan, denoiser: Denoiser, noises: NoiseSet, rng: Stream) -> tuple[Rows, Loss]:
        """Return the rows before the first, and the loss of a row of a plan on the noises at some indices."""

    def judged(self, n: int) -> int:
        """Return how many of the `n` rows have a loss."""


@dataclass(frozen=True)
class TeacherState:
    """Match the teacher's next state, in mean square.

    Args:
        substeps: steps of the teacher between neighbouring nodes.
    """

    substeps: int = 10

    def prepare(self, base: Plan, denoiser: Denoiser, noises: NoiseSet, rng: Stream) -> tuple[Rows, Loss]:
        """Run the teacher; see `Objective`."""
        inner = TeacherPaths(denoiser, noises, self.substeps).at(base.nodes)[1:-1]
        wanted, rows = [*inner, noises.target], Rows(base, denoiser, noises)
        return rows, lambda i, plan, index: mse_loss(rows.step(plan, i, index)[1], wanted[i][index])

    def judged(self, n: int) -> int:
        """Return all `n`."""
        return n


@dataclass(frozen=True)
class ConstantNoise:
    """Keep the predicted noise as it was before the step; the last row, which no prediction follows, is left alone.

    Args:
        parallel: start each row from the teacher's results with noise of its level, in place of where the rows before it lead.
    """

    parallel: bool = False

    def prepare(self, base: Plan, denoiser: Denoiser, noises: NoiseSet, rng: Stream) -> tuple[Rows, Loss]:
        """Noise the teacher's results if rows shall not wait for each other; see `Objective`."""
        noised = [base.process.perturb(noises.target, t, rng)[0] for t in base.nodes] if self.parallel else None
        rows = Rows(base, denoiser, noises, noised)

        def loss(i: int, plan: Plan, index: Tensor) -> Tensor:
            cond = noises.take(index).cond
            with torch.no_grad():
                before = denoiser.predict(rows.x[index], plan.times[i], cond).eps
            return mse_loss(denoiser.predict(rows.step(plan, i, index)[1], plan.times[i + 1], cond).eps, before)

        return rows, loss

    def judged(self, n: int) -> int:
        """Return ``n - 1``."""
        return n - 1


@TIMESTEP_ALIGNER.variant()
@dataclass(frozen=True)
class TimeAligner:
    """Find what to tell the network, one row after another. Needs a model that is differentiable in its time.

    Memory is that of one or two calls. States and outputs of all training noises are kept.

    Args:
        objective: what a row is judged by.
        steps: gradient steps for each row.
        batch: noises in each step.
        rate: Adam's learning rate for the shift, lowered to zero along a cosine.
    """

    objective: Objective = field(default_factory=TeacherState)
    steps: int = 60
    batch: int = 32
    rate: float = 0.1

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.rate > 0, f"the aligner needs steps >= 1 and a positive rate, got {self}")

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
        """Return the base with the best model times found.

        Args:
            base: a deterministic plan with one row a step and no threshold; same ends as the teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: order of the training noises, and fresh noise where rows are tuned in parallel.
            seconds: stop after so much wall time, keeping the best plan.
            bar: progress to advance by one for each step.

        Raises:
            InvalidInput: the base is another kind of plan, or the model's output has no gradient in its time.
            NotFinite: the loss became NaN or infinite.
        """
        require(not base.stochastic, "only deterministic plans can be tuned against a teacher's end point")
        require_one_row_a_step(base)
        require(
            base.threshold is None,
            "the time aligner tunes plans without a threshold; tune first, then plan.with_threshold(...)",
        )
        rng, train = as_stream(rng, "time aligner"), calibration.train
        descent = Descent("TimeAligner", base, denoiser, calibration, seconds, bar)
        shift = torch.zeros(len(base.carry), dtype=torch.float64, requires_grad=True)

        def student() -> Plan:
            return replace(base, model_times=told_times(base.process, base.times, shift))

        with suppress(OutOfTime):
            rows, loss = self.objective.prepare(base, Timed(descent.model, descent.end), train, rng)
            batches = Batches("TimeAligner", len(train), self.batch, rng)
            for i in range(self.objective.judged(len(base.carry))):
                if bool(torch.isfinite(base.process.half_log_snr(base.times[i]))):
                    optimizer, row = torch.optim.Adam([shift], lr=self.rate), partial(loss, i)
                    descent.descend(student, optimizer, row, batches, self.steps, check_every=self.steps)
                rows.advance(student(), i, batches.size)
        return descent.tuned(self._labelled)

    def _labelled(self, plan: Plan) -> Plan:
        objective = {"objective": type(self.objective).__name__, **asdict(self.objective)}  # type: ignore[call-overload]
        settings = {"base": plan.provenance.method, **asdict(self), **objective}
        return replace(plan, provenance=Provenance("TimeAligner", TIMESTEP_ALIGNER.arxiv, settings))
