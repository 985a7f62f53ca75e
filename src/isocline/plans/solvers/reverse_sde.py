r"""The reverse SDE, discretised in two ways (Song et al., arXiv 2011.13456).

Data become noise by ``dx = f x dt + g dW``; backwards in time

    dx = (f x - g^2 score) dt + g dW ,     score = (alpha D - x) / sigma^2 .

Euler-Maruyama takes ``f`` and ``g^2`` of the process at the start of a step of length ``k``:

    x' = x - k f x + k g^2 score + sqrt(k) g z .

Reverse diffusion turns the exact forward step round instead, ``x = (alpha / alpha') x' + sqrt(V) z`` with
``V = sigma^2 (1 - r^2)``:

    x' = (2 - alpha / alpha') x + V score + sqrt(V) z ,

which for ``alpha = 1`` reads ``y' = r^2 y + (1 - r^2) D + sqrt(s^2 - t^2) z``: the mean of `ancestral`, with more noise.

The paper ends with one more step that removes the noise, ``x_0 = D`` (Tweedie's formula). Here this is the step to time 0: pass
times that end there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from isocline._core.registry import Method
from isocline.plans.plan import Plan, plan_of_rows
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.rows import Levels
from isocline.processes import Data, GaussianProcess

SCORE_SDE = Method(
    "score-sde",
    "Reverse SDE",
    "Score-Based Generative Modeling through Stochastic Differential Equations",
    "Yang Song, Jascha Sohl-Dickstein, Diederik P. Kingma, Abhishek Kumar, Stefano Ermon, Ben Poole",
    2020,
    "2011.13456",
    room="plans.solvers",
    when="Hundreds of calls; the reference for other discretisations of the reverse SDE.",
)


@SCORE_SDE.variant(order=1)
def euler_maruyama(process: GaussianProcess, times: Tensor) -> Plan:
    """Return Euler-Maruyama in process time: weak order 1, one call a step; stable while a step is short beside its time.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; a step to 0 returns the data prediction.
    """
    levels = Levels(process, times)
    levels.require_finite("euler_maruyama")
    start, length = levels.times[:-1], -levels.times.diff()
    variance = process.diffusion2(start) * length
    return _reversed("euler_maruyama", levels, 1 - process.drift(start) * length, variance)


@SCORE_SDE.variant(order=1)
def reverse_diffusion(process: GaussianProcess, times: Tensor) -> Plan:
    """Return the forward steps reversed: weak order 1, one call a step.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; a step to 0 returns the data prediction.
    """
    levels = Levels(process, times)
    levels.require_finite("reverse_diffusion")
    variance = levels.sigma[:-1] ** 2 * (1 - levels.r**2)
    return _reversed("reverse_diffusion", levels, 2 - levels.alpha[:-1] / levels.alpha[1:], variance)


def _reversed(name: str, levels: Levels, keep: Tensor, variance: Tensor) -> Plan:
    """Return the plan of rows ``x' = keep x + variance score + sqrt(variance) z``, the last one a Tweedie step where it can be."""
    gain = variance / levels.sigma[:-1] ** 2
    noisy = levels.n - levels.ends_clean

    def column(values: Tensor, last: float) -> Tensor:
        return pad(values[:noisy], (0, levels.n - noisy), value=last)

    return plan_of_rows(
        levels.process,
        Data(),
        Provenance(name, SCORE_SDE.arxiv),
        times=levels.times,
        carry=column(keep - gain, 0.0),
        weights=torch.diag(column(gain * levels.alpha[:-1], 1.0)),
        noise=column(torch.sqrt(variance), 0.0),
    )
