r"""EDM's stochastic sampler: churn (Karras et al., arXiv 2206.00364, algorithm 2).

Before a step at level ``s`` fresh noise lifts the state to ``s^ = (1 + gamma) s``,

    y^ = y + sqrt(s^^2 - s^2) S_noise z ,     gamma = min(S_churn / n, sqrt(2) - 1) where S_min <= s <= S_max, else 0,

and a step of Heun or Euler goes from ``s^`` to the next level of the grid. The lift follows the forward process exactly, so for
``S_noise = 1`` only the step's own error is left in the law of the state. In the plan a lift is a row of its own without a call.

The highest lift ends above the first level by up to a factor ``sqrt(2)``; `S_max` below it keeps the network where it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level, noise_step
from isocline.plans.solvers.edm import heun_step
from isocline.plans.solvers.rows import Levels
from isocline.processes import GaussianProcess, Noise

EDM_CHURN = Method(
    "edm-churn",
    "EDM stochastic sampler (churn)",
    "Elucidating the Design Space of Diffusion-Based Generative Models",
    "Tero Karras, Miika Aittala, Timo Aila, Samuli Laine",
    2022,
    "2206.00364",
    room="plans.solvers",
    when="Many calls and a network with errors; its four settings must be tuned for each model.",
)

Step = Callable[[Draft, Tensor, Level, Level], Tensor]


@EDM_CHURN.variant(order=2)
def stochastic_heun(
    process: GaussianProcess,
    times: Tensor,
    *,
    s_churn: float,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Plan:
    """Return Heun's method with churn: weak order 2 at ``s_noise = 1``, two calls a step, one for a last step to time 0.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
        s_churn: total amount of fresh noise, spread over the steps; 0 gives `heun`.
        s_min: smallest noise level ``sigma / alpha`` at which noise is added.
        s_max: largest such level.
        s_noise: size of the fresh noise; the paper uses up to 1.007 against the detail that a network loses.
    """
    return _churned("stochastic_heun", heun_step, 2, process, times, s_churn, s_min, s_max, s_noise)


@EDM_CHURN.variant(order=1)
def stochastic_euler(
    process: GaussianProcess,
    times: Tensor,
    *,
    s_churn: float,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Plan:
    """Return Euler's method with churn: weak order 1, one call a step; arguments as in `stochastic_heun`."""
    return _churned("stochastic_euler", euler_step, 1, process, times, s_churn, s_min, s_max, s_noise)


def euler_step(draft: Draft, x: Tensor, here: Level, there: Level) -> Tensor:
    """Return the state after a step of Euler."""
    return noise_step(x, here, there, draft.call(x, here))


def jump(draft: Draft, x: Tensor, here: Level, there: Level, size: float) -> Tensor:
    """Return the state lifted to the noisier level `there` by fresh noise, multiplied by `size`; adds a row without a call."""
    draft.stay(x, here)
    return there.alpha * (x / here.alpha + size * torch.sqrt(there.s**2 - here.s**2) * draft.noise())


def _churned(
    name: str,
    step: Step,
    calls: int,
    process: GaussianProcess,
    times: Tensor,
    s_churn: float,
    s_min: float,
    s_max: float,
    s_noise: float,
) -> Plan:
    require(0 <= s_churn < math.inf, f"s_churn must be finite and not negative, got {s_churn}")
    require(0 <= s_min <= s_max, f"churn needs 0 <= s_min <= s_max, got {s_min} and {s_max}")
    require(0 < s_noise < math.inf, f"s_noise must be finite and positive, got {s_noise}")
    levels = Levels(process, times)
    levels.require_finite(name)
    gamma = min(s_churn / levels.n, math.sqrt(2) - 1)
    lifted = [gamma > 0 and s_min <= s <= s_max for s in levels.s[:-1].tolist()]
    draft = Draft(process, Noise(), sum(lifted) + calls * levels.n - (calls - 1) * levels.ends_clean)
    x = draft.start
    for i, lift in enumerate(lifted):
        here, there = levels.at(i), levels.at(i + 1)
        if lift:
            higher = Level.at(process, process.time_of_noise_level((1 + gamma) * here.s))
            x, here = jump(draft, x, here, higher, s_noise), higher
        x = step(draft, x, here, there)
    window = {"s_min": s_min} if s_max == math.inf else {"s_min": s_min, "s_max": s_max}
    settings = {"s_churn": s_churn, **window, "s_noise": s_noise}
    return draft.finish(x, levels.at(levels.n), levels.times, Provenance(name, EDM_CHURN.arxiv, settings))
