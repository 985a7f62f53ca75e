r"""Ancestral sampling, the sampler of DDPM (Ho, Jain and Abbeel, arXiv 2006.11239).

Given the datum, the law of ``x'`` between two levels is Gaussian. With the data prediction in the datum's place,

    y' = r^2 y + (1 - r^2) D + noise ,     r = t / s .

The mean is settled, the variance is not. In ``x`` it is, with ``v`` from 0 to 1,

    sigma'^2 (1 - r^2)                      v = 0, the posterior's ("beta tilde"), exact for data that are one point,
    sigma^2  (1 - r^2)                      v = 1, the forward step's ("beta"), exact for N(0, I) data under a VP process,
    sigma^(2 v) sigma'^(2 - 2 v) (1 - r^2)  in between (Nichol and Dhariwal, arXiv 2102.09672, where a network learns ``v``).

``v = 0`` is DDIM with ``eta = 1``. A step that ends without noise adds none, as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan, plan_of_rows
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.rows import Levels
from isocline.processes import Data, GaussianProcess

DDPM = Method(
    "ddpm",
    "DDPM ancestral sampling",
    "Denoising Diffusion Probabilistic Models",
    "Jonathan Ho, Ajay Jain, Pieter Abbeel",
    2020,
    "2006.11239",
    room="plans.solvers",
    when="Hundreds of calls, or as the plain stochastic baseline.",
)


@DDPM.variant(order=1)
def ancestral(process: GaussianProcess, times: Tensor, *, v: float = 0.0) -> Plan:
    """Return the DDPM plan: weak order 1, one call a step.

    With ``v > 0`` the noise depends on how the process scales ``x``, not on the noise levels alone.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        v: exponent of the variance, from 0 (posterior, ``fixed_small``) to 1 (forward, ``fixed_large``).
    """
    require(0.0 <= v <= 1.0, f"the exponent v must lie in [0, 1], got {v}")
    levels = Levels(process, times)
    noisy = levels.n - levels.ends_clean
    before, after, r = levels.sigma[:noisy], levels.sigma[1 : noisy + 1], levels.r[:noisy]
    noise = before**v * after ** (1 - v) * torch.sqrt(1 - r**2)
    return plan_of_rows(
        process,
        Data(),
        Provenance("ancestral", DDPM.arxiv, {"v": v}),
        times=levels.times,
        carry=levels.sigma[1:] / levels.sigma[:-1] * levels.r,
        weights=torch.diag(levels.alpha[1:] * (1 - levels.r**2)),
        noise=pad(noise, (0, levels.n - noisy)),
    )
