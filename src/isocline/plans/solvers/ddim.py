r"""DDIM and its stochastic siblings (Song, Meng and Ermon, arXiv 2010.02502).

With ``c = eta t sqrt(1 - r^2)`` of fresh noise at the next level ``t = r s``,

    y' = r sqrt(1 - eta^2 (1 - r^2)) (y - D) + D + c z .

``eta = 0`` is the Euler step of the probability-flow ODE in ``s``, also DPM-Solver-1; ``eta = 1`` is ancestral sampling (DDPM).
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.rows import Levels, data_plan
from isocline.processes import GaussianProcess

DDIM = Method(
    "ddim",
    "DDIM",
    "Denoising Diffusion Implicit Models",
    "Jiaming Song, Chenlin Meng, Stefano Ermon",
    2020,
    "2010.02502",
    room="plans.solvers",
    when="The plain baseline; eta > 0 where fresh noise should wash out model error and calls are many.",
)


@DDIM.variant(order=1)
def ddim(process: GaussianProcess, times: Tensor, *, eta: float = 0.0) -> Plan:
    """Return the DDIM plan: order 1, one call a step.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        eta: share of fresh noise, from 0 (ODE) to 1 (ancestral).
    """
    require(0.0 <= eta <= 1.0, f"eta must lie in [0, 1], got {eta}")
    levels = Levels(process, times)
    provenance = Provenance("ddim", DDIM.arxiv, {"eta": eta})
    if eta == 0.0:
        return data_plan(levels, torch.diag(1 - levels.r), provenance)
    fresh = 1 - levels.r**2
    shrink = torch.sqrt(1 - eta**2 * fresh)
    return data_plan(
        levels,
        torch.diag(1 - levels.r * shrink),
        provenance,
        shrink=shrink,
        noise=eta * torch.sqrt(fresh),
    )
