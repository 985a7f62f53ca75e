r"""SDE-DPM-Solver++ multistep: the exponential integrators of DPM-Solver++ with fresh noise (Lu et al., arXiv 2211.01095).

The reverse SDE and the probability-flow ODE are two of a family with equal laws at every level. In ``lam``, with a share ``eta``,

    dy = (1 + eta) (D - y) dlam + sqrt(2 eta) s dW .

Its solution over a step of ``h``, exact but for ``D``, is

    y' = r^(1 + eta) y + int_0^h (1 + eta) exp((1 + eta) (u - h)) D du + t sqrt(1 - r^(2 eta)) z ,

so the weights on data predictions are those of DPM-Solver++ with ``h`` stretched by ``1 + eta``. The paper has ``eta = 1``, the
reverse SDE; ``eta = 0`` gives the ODE solvers. At order 1 ``eta = 1`` is `ddim` with its ``eta = 1``; in between the two differ,
``eta`` here being the square of DDIM's where steps are short.

The paper states no weak order. Observed, on Gaussian data, is 1, 2 and 2; for 2M also on a mixture of two. In 3M the second
difference has the weight ``1/2 + (1 - e^-H - H) / H^2`` with ``H = (1 + eta) h``; diffusers 0.42 has ``-1/2`` there, which makes it
first order.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.dpm_solver_pp import DPM_SOLVER_PP, RULES
from isocline.plans.solvers.rows import Levels, data_plan, lower, ramp
from isocline.processes import GaussianProcess


@DPM_SOLVER_PP.variant(order=1)
def sde_dpm_solver_pp_1(process: GaussianProcess, times: Tensor, *, eta: float = 1.0) -> Plan:
    """Return SDE-DPM-Solver++ of order 1, one call a step; `ancestral` at ``eta = 1``. Arguments as in the second order."""
    return _multistep("sde_dpm_solver_pp_1", process, times, 1, eta, None)


@DPM_SOLVER_PP.variant(order=2)
def sde_dpm_solver_pp_2m(
    process: GaussianProcess, times: Tensor, *, eta: float = 1.0, final_order: int | None = None
) -> Plan:
    """Return SDE-DPM-Solver++ 2M, one call a step.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        eta: share of fresh noise; 0 is the ODE, 1 the reverse SDE.
        final_order: order of the last step; 1 is what diffusers calls ``lower_order_final``.
    """
    return _multistep("sde_dpm_solver_pp_2m", process, times, 2, eta, final_order)


@DPM_SOLVER_PP.variant(order=2)
def sde_dpm_solver_pp_3m(
    process: GaussianProcess, times: Tensor, *, eta: float = 1.0, final_order: int | None = None
) -> Plan:
    """Return SDE-DPM-Solver++ 3M, three past outputs, one call a step; arguments as in `sde_dpm_solver_pp_2m`."""
    return _multistep("sde_dpm_solver_pp_3m", process, times, 3, eta, final_order)


def _multistep(
    name: str, process: GaussianProcess, times: Tensor, order: int, eta: float, final_order: int | None
) -> Plan:
    require(0.0 <= eta < math.inf, f"eta must be finite and not negative, got {eta}")
    levels = Levels(process, times)
    orders = ramp(levels.n, order, final_order)
    if levels.ends_clean:
        orders[-1] = 1
    stretched = _stretched(levels, 1 + eta)
    weights = lower([RULES[k](stretched, i) for i, k in enumerate(orders)])
    provenance = Provenance(name, DPM_SOLVER_PP.arxiv, {"eta": eta, "final_order": final_order})
    if eta == 0.0:
        return data_plan(levels, weights, provenance)
    kept = levels.r**eta
    return data_plan(levels, weights, provenance, shrink=kept, noise=torch.sqrt(1 - kept**2))


def _stretched(levels: Levels, factor: float) -> Levels:
    """Return the levels as the weights on data predictions see them: steps in ``lam`` longer by `factor`."""
    seen = copy.copy(levels)
    seen.h, seen.r = factor * levels.h, levels.r**factor
    return seen
