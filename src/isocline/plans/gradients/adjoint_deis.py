r"""AdjointDEIS: exponential integrators for the adjoint equation, for ODE and SDE samplers (Blasingame and Liu, arXiv 2405.15020).

Stepping toward noise from ``t`` to ``s``, with ``h = lam_s - lam_t < 0``, ``V_t = alpha_t^2 a_t^T d eps/dx`` and ``a = dL/dx``,

    a_s = (alpha_t / alpha_s) a_t + sigma_s (e^h - 1) / alpha_s^2 (V_t + (V_t - V_r) / (2 q)) ,      q = (lam_t - lam_r) / h ,
    g_s = g_t + sigma_s (e^h - 1) (alpha_t / alpha_s) a_t^T d eps/d(z, theta)   with the same correction,

``r`` being the node before ``t``; without the correction the order is 1. In ``y = x / alpha`` and ``rho = sigma / alpha`` these
are

    a_s = a_t - (rho_s - rho_t) (V_t + (V_t - V_r) / (2 q)) ,     a = dL/dy ,  V = a^T d eps/dy ,

which is how they are computed here: the first order is Euler's method in ``rho``. For an SDE sampler the nonlinear term is
multiplied by ``1 + eta`` (the paper's factor 2 at ``eta = 1``) and the states must be those of the noise that was drawn, so
they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.gradients.adjoint import Kept, Pulls, Report, check_continuous, kept_ends, kept_nodes, through
from isocline.plans.gradients.run import Run

METHOD = Method(
    "adjoint-deis",
    "AdjointDEIS",
    "AdjointDEIS: Efficient Gradients for Diffusion Models",
    "Zander W. Blasingame, Chen Liu",
    2024,
    "2405.15020",
    room="plans.gradients",
    when="Gradients of the equation, ODE or SDE, at the plan's nodes; at few steps Checkpointed() is nearer to the truth.",
)


@METHOD.variant()
@dataclass(frozen=True)
class AdjointDEIS:
    """One call and one product a step of the plan; memory of the states, or of both ends where they are re-solved.

    The order of the gradient is the smaller one of this and of the states': order 2 on the states of a first-order sampler
    stalls.

    Args:
        order: 1 or 2 (two-step).
        eta: share of fresh noise of the sampler: 0 for an ODE, 1 for the reverse SDE (ancestral sampling).
        stored: whether the states of the forward pass are kept; otherwise they are solved for again, toward noise, by the same
            rule.
    """

    order: int = 2
    eta: float = 0.0
    stored: bool = True
    exact = False

    def __post_init__(self) -> None:
        require(self.order in (1, 2), f"AdjointDEIS has orders 1 and 2, got {self.order}")
        require(self.eta >= 0, f"eta must not be negative, got {self.eta}")
        require(self.stored or self.eta == 0, "the path of an SDE sampler must be stored: pass stored=True")

    def sample(self, run: Run, report: Report) -> Tensor:
        """Return the samples (B, *), with gradients by the adjoint equation."""
        check_continuous(run.plan, "AdjointDEIS")
        noisy = run.plan.stochastic
        require(not noisy or self.eta > 0, "this plan draws noise: pass AdjointDEIS(eta=1) for ancestral sampling")
        require(noisy or self.eta == 0, f"this plan draws no noise, but AdjointDEIS was given eta={self.eta:g}")
        return through(self, run, report)

    def keep(self, run: Run) -> Kept:
        """Sample and keep the nodes, or both ends."""
        return kept_nodes(run) if self.stored else kept_ends(run)

    def climb(self, pulls: Pulls, kept: Kept, a: Tensor, report: Report) -> tuple[Tensor, list[Tensor]]:
        """Return ``a`` and ``g`` at the noisy end."""
        process, nodes = pulls.run.plan.process, pulls.run.plan.nodes
        lam, rho = process.half_log_snr(nodes).tolist(), process.noise_level(nodes).tolist()
        state, past = [kept.unscaled(-1, process), a, *pulls.zeros(a)], None
        for i in range(len(nodes) - 1, 0, -1):
            y = kept.unscaled(i, process) if self.stored else state[0]
            eps, pull, others = pulls(y, nodes[i], state[1])
            slope = [eps, *(-(1 + self.eta) * x for x in (pull, *others))]
            q = (lam[i] - lam[i + 1]) / (lam[i - 1] - lam[i]) if past is not None else 1.0
            rate = slope if past is None else [v + (v - r) / (2 * q) for v, r in zip(slope, past, strict=True)]
            state = [x + (rho[i - 1] - rho[i]) * v for x, v in zip(state, rate, strict=True)]
            past = slope if self.order == 2 else None
        if not self.stored:
            report.drift = relative(state[0], kept.unscaled(0, process))
        return state[1], state[2:]


def relative(found: Tensor, true: Tensor) -> float:
    """Return ``|found - true| / |true|``."""
    return float(torch.linalg.vector_norm(found - true) / torch.linalg.vector_norm(true))
