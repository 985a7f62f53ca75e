r"""Analytic first step: the first output replaced by the one for Gaussian data (Dockhorn et al., GENIE, arXiv 2210.05475).

At the first time a state is nearly all noise, and a network can say little more about the datum than its mean and spread. For
data ``N(0, d^2)`` the prediction is known,

    D = g x_0 ,     g = alpha d^2 / (alpha^2 d^2 + sigma^2) ,

linear in the start. The first call then disappears into the coefficients: in the canonical form ``m_0 = k x_0`` adds ``k B_i0``
to ``A_i``. GENIE takes the score of ``N(0, I)`` at the end of a variance-preserving process, which is ``d = 1``.

The first output misses the mean of the data, as a mean would need a constant in each row. A solver whose later rows extrapolate
from the first output, above all `flow_adams`, then extrapolates the jump to the second.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.canonical import Canonical
from isocline.plans.plan import Plan

GENIE = Method(
    "analytic-first-step",
    "Analytic first step (GENIE)",
    "GENIE: Higher-Order Denoising Diffusion Solvers",
    "Tim Dockhorn, Arash Vahdat, Karsten Kreis",
    2022,
    "2210.05475",
    room="plans",
    when="Few calls, centred data, and a first noise level far above the data's spread.",
)


@GENIE.variant()
def analytic_first_step(plan: Plan, data_std: float = 1.0) -> Plan:
    """Return the plan without its first call: exact for data ``N(0, data_std^2)``, an approximation for others.

    The first row stays, silent. A network of noise predictions may then start without signal.

    Args:
        plan: any plan whose first row makes a call, of at least two calls.
        data_std: standard deviation of the data about 0, in the units the network was trained in.

    Raises:
        InvalidInput: the plan has too few calls, its first row makes none, or it is a stochastic multistep plan without row form.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM
        >>> analytic_first_step(solvers.ddim(EDM(), grids.karras(EDM(), 5)), data_std=0.5).calls
        4
    """
    require(data_std >= 0, f"data_std must not be negative, got {data_std}")
    require(bool(plan.evaluate[0]), "the first row of this plan makes no call; was its first step replaced already?")
    require(plan.calls >= 2, "this plan makes one call, and a plan without calls does not sample")
    canonical, k = plan.canonical(), _slope(plan, data_std)
    outputs = torch.cat([torch.zeros_like(canonical.outputs[:, :1]), canonical.outputs[:, 1:]], 1)
    start = canonical.start + k * canonical.outputs[:, 0]
    carry, weights, noise = Canonical(start, outputs, canonical.noises).rows()
    evaluate = plan.evaluate.clone()
    evaluate[0] = False
    provenance = plan.provenance.changed("analytic_first_step", data_std)
    return replace(plan, carry=carry, weights=weights, noise=noise, evaluate=evaluate, provenance=provenance)


def _slope(plan: Plan, data_std: float) -> Tensor:
    """Return ``k`` of the first output ``m_0 = k x_0``, in the plan's parameterisation."""
    t = plan.times[0]
    alpha, sigma = plan.process.alpha(t), plan.process.sigma(t)
    on_state, on_data = plan.parameterisation.from_data(plan.process, t)
    return on_state + on_data * alpha * data_std**2 / (alpha**2 * data_std**2 + sigma**2)
