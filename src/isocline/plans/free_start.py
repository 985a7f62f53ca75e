r"""A first step without a network call, on which the start noise stays what it is.

In flow form, ``x / (alpha + sigma) = (1 - u) x_0 + u eps``, a state near the start is nearly noise alone, so for a while

    x_1 = (alpha_1 + sigma_1) / (alpha_0 + sigma_0) x_0

is nearly right, and costs nothing. It is Euler's step with the data prediction ``x_0 / (alpha_0 + sigma_0)``, whose spread is that
of unit noise; `analytic_first_step` asks for the data's spread instead. The code of OptimalSteps (arXiv 2503.21774) starts its
schedules like this, at a node that the search chooses.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.plan import Plan
from isocline.processes import GaussianProcess


def free_start(plan: Plan, start: float | Tensor) -> Plan:
    """Return the plan that starts at the earlier time `start` and goes to the plan's first time without a call.

    Args:
        plan: any plan with one coefficient for all coordinates.
        start: time of the start, before the plan's own.

    Raises:
        InvalidInput: the start is not before the plan's, or the plan has coefficients for each coordinate.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM
        >>> plan = free_start(solvers.ddim(EDM(), grids.karras(EDM(t_max=10.0), 5)), 80.0)
        >>> plan.calls, len(plan.nodes)
        (5, 7)
    """
    first = plan.times[:1]
    start = torch.as_tensor(start, dtype=torch.float64).reshape(1)
    require(bool(start > first), f"a free start lies before t = {float(first):g}, got {float(start):g}")
    require(not plan.event, "a plan with coefficients for each coordinate cannot get a free start")
    carry, silent = kept_noise(plan.process, start, first), torch.zeros(1, dtype=torch.float64)
    return replace(
        plan,
        times=torch.cat([start, plan.times]),
        nodes=torch.cat([start, plan.nodes]),
        model_times=torch.cat([start, plan.model_times]),
        carry=torch.cat([carry, plan.carry]),
        weights=torch.block_diag(silent, plan.weights),
        noise=torch.cat([silent, plan.noise]),
        evaluate=torch.cat([torch.zeros(1, dtype=torch.bool), plan.evaluate]),
        constant=None if plan.constant is None else torch.cat([silent, plan.constant]),
        provenance=plan.provenance.changed("free_start", float(start)),
    )


def kept_noise(process: GaussianProcess, start: Tensor, times: Tensor) -> Tensor:
    """Return what a state at time `start` (1,) is multiplied by to stand for one at each of `times` (m,)."""
    return (process.alpha(times) + process.sigma(times)) / (process.alpha(start) + process.sigma(start))
