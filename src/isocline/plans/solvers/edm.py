r"""Euler and Heun in the noise level (Karras et al., arXiv 2206.00364).

Both integrate ``dy/ds = e(y, s) = (y - D) / s``. Heun's second stage averages the slopes at both ends,

    y~ = y + (t - s) e(y, s),      y' = y + (t - s) / 2 (e(y, s) + e(y~, t)) ,

so it costs two calls a step; a step that ends without noise is an Euler step. Euler in ``s`` is DDIM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level, noise_step
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
    when="Heun as a teacher, or where a method without a past is needed; a multistep solver gives more for each call.",
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
    calls = 2 * levels.n - (1 if levels.ends_clean else 0)
    draft = Draft(process, Noise(), calls)
    x = draft.start
    for i in range(levels.n):
        x = heun_step(draft, x, levels.at(i), levels.at(i + 1))
    return draft.finish(x, levels.at(levels.n), levels.times, Provenance("heun", EDM_SAMPLER.arxiv))


def heun_step(draft: Draft, x: Tensor, here: Level, there: Level) -> Tensor:
    """Return the state after a step of Heun, or of Euler where no noise is left."""
    first = draft.call(x, here)
    guess = noise_step(x, here, there, first)
    if float(there.sigma.detach()) == 0.0:
        return guess
    return noise_step(x, here, there, (first + draft.call(guess, there)) / 2)
