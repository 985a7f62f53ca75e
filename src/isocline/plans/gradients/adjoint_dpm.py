r"""AdjointDPM: the adjoint equation of the probability-flow ODE in ``(y, rho)``, by any ODE method (Pan et al., arXiv 2307.10711).

The augmented system of `isocline.plans.gradients.adjoint` is integrated from the samples back to the noise. ``rho = sigma / alpha``
spans orders of magnitude (0.01 to 150 for the linear VP process), so steps are spread evenly in ``rho^(1/7)`` or in ``log rho``.
The state is solved for again alongside and nothing of the run is kept; it then drifts from the path that was sampled, which is
reported, or the nodes of the run are stored and the state set back to them at each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method as Registered
from isocline.integrators.controllers.base import Controller
from isocline.integrators.controllers.constant import Steps
from isocline.integrators.integrate import integrate
from isocline.integrators.methods.base import Method
from isocline.integrators.methods.rk4 import RK4
from isocline.plans.gradients.adjoint import Kept, Pulls, Report, check_continuous, kept_ends, kept_nodes, through
from isocline.plans.gradients.adjoint_deis import relative
from isocline.plans.gradients.run import Run
from isocline.plans.grids.karras import karras
from isocline.plans.grids.span import Grid
from isocline.plans.plan import Plan

METHOD = Registered(
    "adjoint-dpm",
    "AdjointDPM",
    "AdjointDPM: Adjoint Sensitivity Method for Gradient Backpropagation of Diffusion Probabilistic Models",
    "Jiachun Pan, Jun Hao Liew, Vincent Y. F. Tan, Jiashi Feng, Hanshu Yan",
    2023,
    "2307.10711",
    room="plans.gradients",
    when="Gradients in memory that does not grow with the steps, by a method of high order or with a tolerance.",
)

Joint = tuple[Tensor, ...]


@METHOD.variant()
@dataclass(frozen=True)
class AdjointDPM:
    """The adjoint equation by a one-step method; each of its evaluations is a call and a product. For plans without noise.

    The order of the gradient is the smaller one of the method's and of the samples'.

    Args:
        method: any method of `isocline.integrators` for `ODE` terms.
        steps: number of steps on `grid`; None for the nodes of the plan.
        grid: where they lie, a function of `isocline.plans.grids`; `karras` spreads them evenly in ``rho^(1/7)``.
        controller: chooses the steps by error instead, for example ``PID(1e-4, 1e-6)``; the method then needs an estimate.
        stored: whether the nodes of the run are kept, and the state set back to them; the nodes are then the steps.
    """

    method: Method = field(default_factory=RK4)
    steps: int | None = None
    grid: Grid = karras
    controller: Controller | None = None
    stored: bool = False
    exact = False

    def __post_init__(self) -> None:
        require(
            self.steps is None or self.controller is None, "give AdjointDPM a number of steps or a controller, not both"
        )
        require(
            self.steps is None or not self.stored, "stored nodes are the steps: leave steps out, or pass stored=False"
        )

    def sample(self, run: Run, report: Report) -> Tensor:
        """Return the samples (B, *), with gradients by the adjoint equation."""
        check_continuous(run.plan, "AdjointDPM")
        require(
            not run.plan.stochastic, "AdjointDPM is for plans without noise; use AdjointDEIS(eta=1) or Checkpointed()"
        )
        return through(self, run, report)

    def keep(self, run: Run) -> Kept:
        """Sample and keep both ends, or the nodes."""
        return kept_nodes(run) if self.stored else kept_ends(run)

    @torch.no_grad()
    def climb(self, pulls: Pulls, kept: Kept, a: Tensor, report: Report) -> tuple[Tensor, list[Tensor]]:
        """Return ``a`` and ``g`` at the noisy end."""
        process = pulls.run.plan.process
        grid = self._times(pulls.run.plan)
        state: Joint = (kept.unscaled(-1, process), a, *pulls.zeros(a))
        for i in range(len(kept.states) - 1, 0, -1):
            times = kept.times[i - 1 : i + 1] if self.stored else grid
            y = kept.unscaled(i, process) if self.stored else state[0]
            state = self._stretch(pulls, (y, *state[1:]), times.flip(0))
        if not self.stored:
            report.drift = relative(state[0], kept.unscaled(0, process))
        return state[1], list(state[2:])

    def _times(self, plan: Plan) -> Tensor:
        if self.steps is None:
            return plan.nodes.detach()
        return self.grid(plan.process, self.steps, t_max=float(plan.times[0]), t_min=float(plan.times[-1]))

    def _stretch(self, pulls: Pulls, state: Joint, times: Tensor) -> Joint:
        """Return ``(y, a, g...)`` at the last of rising `times`, from those at the first."""
        process, ends = pulls.run.plan.process, times[[0, -1]].tolist()

        def slopes(rho: Tensor, state: Joint) -> Joint:
            eps, pull, others = pulls(state[0], process.time_of_noise_level(rho).clamp(*ends), state[1])
            return (eps, *(-x for x in (pull, *others)))

        return self._integrated(slopes, state, process.noise_level(times))

    def _integrated(self, slopes: Callable[[Tensor, Joint], Joint], state: Joint, grid: Tensor) -> Joint:
        steering = self.controller or Steps(grid)
        solution = integrate(
            slopes, state, grid[0], grid[-1], method=self.method, controller=steering, max_steps=max(4096, len(grid))
        )
        return tuple(solution.check().y1)
