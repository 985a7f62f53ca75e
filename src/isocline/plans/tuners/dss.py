r"""Differentiable solver search: times and multistep weights that sum to one (Wang et al., arXiv 2505.21114).

Each row of the student combines all predictions so far with free weights that sum to one, see `sum_to_one`; times are a softmax
of free numbers. Both start at the base plan, which with `flow_euler` on equal times is the authors' start. With
``u = x / (alpha + sigma)`` and the teacher's path ``u*`` of the same noise the loss is

    sum_i mean (u_i - u*(t_i))^2  +  1000 H_0.001(x_n - x*_n) ,

``H`` Huber's function, here in effect the mean absolute error of the end point. The authors compare with the nearest of 100
Euler states; here the path, by Heun's method, is linear in ``tau = sigma / (alpha + sigma)`` between its nodes, so the comparison
is at the student's own time and gradients know that the path moves with it. The optimiser is theirs, Lion, with a rate that falls.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.runner import unroll
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.descent import Batches, Descent
from isocline.plans.tuners.lion import Lion
from isocline.plans.tuners.paths import TeacherPaths, refined
from isocline.plans.tuners.sum_to_one import SumToOne
from isocline.plans.tuners.teacher_grid import OutOfTime, Timed
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser, FlowVelocity, GaussianProcess, Parameterisation

SOLVER_SEARCH = Method(
    "dss",
    "Differentiable solver search",
    "Differentiable Solver Search for Fast Diffusion Sampling",
    "Shuai Wang, Zexian Li, Tianhui Song, Xubin Li, Tiezheng Ge, Bo Zheng, Limin Wang",
    2025,
    "2505.21114",
    room="plans.tuners",
    when="Times and weights for a differentiable model whose states on the way shall follow the teacher's too.",
)


@SOLVER_SEARCH.variant()
@dataclass(frozen=True)
class DSS:
    """Search times and weights of a multistep solver by gradients through the run.

    Needs a differentiable model; memory grows with calls times batch unless it is `Checkpointed`. The teacher's path of all
    training noises is kept, ``path_steps + 1`` states each.

    Args:
        steps: gradient steps.
        batch: noises in each step.
        rate: how far Lion moves each number in the first step; lowered to zero along a cosine.
        form: predictions that the rows combine.
        path_steps: steps of the teacher's path, equal in log noise level.
        check_every: steps between validations.
    """

    steps: int = 400
    batch: int = 4
    rate: float = 1e-2
    form: Parameterisation = field(default_factory=FlowVelocity)
    path_steps: int = 50
    check_every: int = 20

    def __post_init__(self) -> None:
        require(
            self.steps >= 1 and self.check_every >= 1, f"a search needs steps >= 1 and check_every >= 1, got {self}"
        )
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
            base: the plan to start from: deterministic, one row a step, exact where predictions do not change; same ends as the
                teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: order of the training noises.
            seconds: stop after so much wall time, keeping the best plan.
            bar: progress to advance by one for each step.

        Raises:
            InvalidInput: the base is another kind of plan, or the model's output has no gradients.
            NotFinite: the loss became NaN or infinite.
        """
        student, train = SumToOne(base, self.form), calibration.train
        descent = Descent("DSS", base, denoiser, calibration, seconds, bar)
        with suppress(OutOfTime):
            path = FlowPath.of_teacher(Timed(denoiser, descent.end), base, train, self.path_steps)
            batches = Batches("DSS", len(train), self.batch, as_stream(rng, "DSS"))
            optimizer = Lion([student.gap, student.weights], lr=self.rate)

            def loss(plan: Plan, index: Tensor) -> Tensor:
                part = train.take(index)
                states = unroll(plan, descent.model, part.x, cond=part.cond)
                return path.mismatch(plan.times, states, index) + 1000 * huber_loss(states[-1], part.target, delta=1e-3)

            descent.descend(student, optimizer, loss, batches, self.steps, self.check_every)
        settings = {"base": base.provenance.method, **asdict(self), "form": self.form.name}
        return descent.tuned(lambda plan: replace(plan, provenance=Provenance("DSS", SOLVER_SEARCH.arxiv, settings)))


class FlowPath:
    """The teacher's states in ``u = x / (alpha + sigma)``, linear in ``tau = sigma / (alpha + sigma)`` between nodes.

    Args:
        process: the process.
        times: (T+1,) decreasing times.
        states: (T+1, N, *) the teacher's states there.
    """

    def __init__(self, process: GaussianProcess, times: Tensor, states: Tensor) -> None:
        self.process = process
        self.tau, scale = self.flow(times)
        self.u = states / scale.to(states).reshape(-1, *([1] * (states.ndim - 1)))

    @staticmethod
    def of_teacher(denoiser: Denoiser, base: Plan, noises: NoiseSet, steps: int) -> FlowPath:
        """Return the path of `noises` between the ends of `base`, by Heun's method."""
        first, last = base.nodes[[0, -1]].tolist()
        times = refined(base.process, first, last, steps)
        return FlowPath(base.process, times, TeacherPaths(denoiser, noises, substeps=1).at(times))

    def flow(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``tau`` and ``alpha + sigma``."""
        alpha, sigma = self.process.alpha(times), self.process.sigma(times)
        return sigma / (alpha + sigma), alpha + sigma

    def at(self, tau: Tensor, index: Tensor) -> Tensor:
        """Return ``u`` (B, *) of the noises at `index` (B,) at `tau`, differentiable in `tau`."""
        k = int((self.tau > tau.detach()).sum().clamp(1, len(self.tau) - 1))
        share = ((tau - self.tau[k - 1]) / (self.tau[k] - self.tau[k - 1])).to(self.u)
        return self.u[k - 1, index] + share * (self.u[k, index] - self.u[k - 1, index])

    def mismatch(self, times: Tensor, states: list[Tensor], index: Tensor) -> Tensor:
        """Return the sum over nodes of the mean square distance in ``u`` of `states` (n+1 of (B, *)) at `times` (n+1,)."""
        tau, scale = self.flow(times)
        pairs = [(x / scale[i].to(x), self.at(tau[i], index)) for i, x in enumerate(states) if i > 0]
        return torch.stack([mse_loss(found, wanted) for found, wanted in pairs]).sum()
