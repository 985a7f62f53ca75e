r"""Euler and Heun in the noise level (Karras et al., arXiv 2206.00364).

Both integrate ``dy/ds = e(y, s) = (y - D) / s``. Heun's second stage averages the slopes at both ends,

    y~ = y + (t - s) e(y, s),      y' = y + (t - s) / 2 (e(y, s) + e(y~, t)) ,

so it costs two calls a step; a step that ends without noise is an Euler step. Euler in ``s`` is DDIM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.plans.canonical import Canonical
from isocline.plans.plan import Plan, plan_of_rows
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.rows import Levels, noise_plan
from isocline.processes import GaussianProcess, Noise

EDM_SAMPLER = Method(
    "edm",
    "EDM Euler and Heun",
    "Elucidating the Design Space of Diffusion-Based Generative Models",
    "Tero Karras, Miika Aittala, Timo Aila, Samuli Laine",
    2022,
    "2206.00364",
    room="plans.solvers",
    when="Heun from about 30 calls on, and as a teacher; below that a multistep solver gives more for each call.",
)


@EDM_SAMPLER.variant(order=1)
def euler(process: GaussianProcess, times: Tensor) -> Plan:
    """Return Euler's method in ``s``: order 1, one call a step; needs a finite first noise level."""
    levels = Levels(process, times)
    levels.require_finite("euler")
    return noise_plan(levels, torch.diag(levels.s.diff()), Provenance("euler", EDM_SAMPLER.arxiv))


@EDM_SAMPLER.variant(order=2)
def heun(process: GaussianProcess, times: Tensor) -> Plan:
    """Return Heun's method in ``s``: order 2, two calls a step, one for a last step to time 0.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
    """
    levels = Levels(process, times)
    levels.require_finite("heun")
    last = levels.n - 1 if levels.ends_clean else levels.n
    reads = [i + stage for i in range(last) for stage in (0, 1)] + ([last] if levels.ends_clean else [])
    at = [*reads, levels.n]
    states = _states(levels, last)
    alpha = levels.alpha[at]
    canonical = Canonical(alpha / alpha[0], alpha[:, None] * states, torch.zeros_like(states))
    carry, weights, noise = canonical.rows()
    return plan_of_rows(
        process,
        Noise(),
        Provenance("heun", EDM_SAMPLER.arxiv),
        times=levels.times[at],
        nodes=levels.times,
        carry=carry,
        weights=weights,
        noise=noise,
    )


def _states(levels: Levels, last: int) -> Tensor:
    """Return the unscaled states as sums over slopes: row ``k`` holds the weights of ``e`` in the k-th state read."""
    calls = 2 * last + (1 if levels.ends_clean else 0)
    unit = torch.eye(calls, dtype=torch.float64)
    steps = levels.s.diff()
    state = torch.zeros(calls, dtype=torch.float64)
    states = [state]
    for i in range(last):
        first, second = unit[2 * i], unit[2 * i + 1]
        states.append(state + steps[i] * first)
        state = state + steps[i] / 2 * (first + second)
        states.append(state)
    if levels.ends_clean:
        states.append(state + steps[-1] * unit[-1])
    return torch.stack(states)
