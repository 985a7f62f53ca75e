r"""Predictor-corrector sampling (Song et al., arXiv 2011.13456, algorithms 4 and 5).

After each predictor step, ``M`` steps of Langevin dynamics at the new level correct the law of the state:

    y' = y + d score + sqrt(2 d) z ,     d = 2 (rho |z| / |score|)^2 ,

``rho`` being the signal-to-noise ratio of a step. With measured norms a step depends on the states and no table can hold it. But
``|z|`` is close to ``sqrt(n)`` in ``n`` dimensions, and ``|score| = |e| / s`` to ``sqrt(n) / s`` while the noise prediction has
the size of noise; below the width of data that fill the space it is smaller, and the paper's step longer. The expectations give
``d = 2 rho^2 s^2`` and a row of a plan, the same for every process,

    y' = (1 - 2 rho^2) y + 2 rho^2 D + 2 rho s z .

The correction does not shrink with the grid: at a fixed level it settles not at the variance ``s^2`` of the noise but at
``s^2 / (1 - rho^2)``, 2.6 % more at ``rho = 0.16``. So the law keeps an error of that size, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.plan import Plan, plan_of_rows
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.reverse_sde import SCORE_SDE, reverse_diffusion
from isocline.plans.solvers.rows import Levels
from isocline.processes import Data, GaussianProcess


@SCORE_SDE.variant()
def predictor_corrector(
    process: GaussianProcess,
    times: Tensor,
    *,
    snr: float = 0.16,
    corrections: int = 1,
    predictor: Callable[[GaussianProcess, Tensor], Plan] = reverse_diffusion,
) -> Plan:
    """Return predictor steps, each followed by Langevin corrections: ``1 + corrections`` calls a step, only 1 for a step to 0.

    The norms of the paper's step size are replaced by their expectations; its factor ``alpha_i``, close to 1, is left out.

    Args:
        process: any Gaussian process the predictor can start from.
        times: (n+1,) decreasing times; a step to 0 returns the data prediction and is not corrected.
        snr: signal-to-noise ratio ``rho`` of a correction, in (0, 1).
        corrections: number ``M`` of corrections after each step.
        predictor: a solver on data predictions with one call a step.
    """
    require(0.0 < snr < 1.0, f"the snr of a correction must lie in (0, 1), got {snr}")
    require(
        corrections >= 1, f"a corrector needs at least one correction, got {corrections}; or use the predictor alone"
    )
    levels, plan = Levels(process, times), predictor(process, times)
    single = plan.parameterisation == Data() and torch.equal(plan.times, levels.times)
    require(single, f"a predictor needs data predictions and one row a step; {plan.provenance.method} has not both")
    rows = levels.n * (1 + corrections) - corrections * levels.ends_clean
    node = torch.arange(rows) // (1 + corrections) + (torch.arange(rows) % (1 + corrections) > 0)
    step = torch.arange(levels.n) * (1 + corrections)
    among = torch.zeros(levels.n, rows, dtype=torch.float64).index_copy(1, step, plan.weights)
    settings = {"snr": snr, "corrections": corrections, "predictor": plan.provenance.method}
    return plan_of_rows(
        process,
        Data(),
        Provenance("predictor_corrector", SCORE_SDE.arxiv, settings),
        times=torch.cat([levels.times[node], levels.times[-1:]]),
        nodes=levels.times,
        carry=torch.full((rows,), 1 - 2 * snr**2, dtype=torch.float64).index_copy(0, step, plan.carry),
        weights=torch.diag(2 * snr**2 * levels.alpha[node]).index_copy(0, step, among),
        noise=(2 * snr * levels.sigma[node]).index_copy(0, step, plan.noise),
    )
