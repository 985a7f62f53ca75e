r"""DPM-Solver++ multistep: exponential integrators for data predictions (Lu et al., arXiv 2211.01095).

With ``h = lam' - lam``, ``r = exp(-h)`` and ``q = h / h_previous`` the second-order step is

    y' = r y + (1 - r) ((1 + q / 2) D_i - q / 2 D_{i-1}) .

The third-order step adds the second divided difference: with ``d0 = q0 (D_i - D_{i-1})``, ``d1 = q1 (D_{i-1} - D_{i-2})``,
``q0 = h / h_{i-1}``, ``q1 = h / h_{i-2}``, ``g = q1 / (q0 + q1)``,

    d = d0 + g (d0 - d1),   dd = q0 g (d0 - d1),
    y' = r y + (1 - r) D_i + ((r - 1) / h + 1) d - ((r - 1 + h) / h^2 - 1/2) dd .

These are the coefficients of the authors' code, which all peers share. The weight on ``dd`` is half of what Taylor expansion asks
for, so the observed order of 3M is 2; `exponential_adams` with order 3 is the same scheme with exact weights and order 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.rows import Levels, data_plan, lower, ramp
from isocline.processes import GaussianProcess

DPM_SOLVER_PP = Method(
    "dpm-solver-pp",
    "DPM-Solver++",
    "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    "Cheng Lu, Yuhao Zhou, Fan Bao, Jianfei Chen, Chongxuan Li, Jun Zhu",
    2022,
    "2211.01095",
    room="plans.solvers",
    when="2M where diffusers and k-diffusion shall agree; exponential_adams has exact weights, and the order that 3M claims.",
)


@DPM_SOLVER_PP.variant(order=1)
def dpm_solver_pp_1(process: GaussianProcess, times: Tensor) -> Plan:
    """Return DPM-Solver++ of order 1, one call a step; the same plan as DDIM."""
    return _multistep("dpm_solver_pp_1", process, times, 1, None)


@DPM_SOLVER_PP.variant(order=2)
def dpm_solver_pp_2m(process: GaussianProcess, times: Tensor, *, final_order: int | None = None) -> Plan:
    """Return DPM-Solver++ 2M: order 2, one call a step.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        final_order: order of the last step; 1 is what diffusers calls ``lower_order_final``.
    """
    return _multistep("dpm_solver_pp_2m", process, times, 2, final_order)


@DPM_SOLVER_PP.variant(order=2)
def dpm_solver_pp_3m(process: GaussianProcess, times: Tensor, *, final_order: int | None = None) -> Plan:
    """Return DPM-Solver++ 3M: three past outputs, observed order 2, one call a step; arguments as in `dpm_solver_pp_2m`."""
    return _multistep("dpm_solver_pp_3m", process, times, 3, final_order)


def _multistep(name: str, process: GaussianProcess, times: Tensor, order: int, final_order: int | None) -> Plan:
    levels = Levels(process, times)
    orders = ramp(levels.n, order, final_order)
    if levels.ends_clean:
        orders[-1] = 1
    rows = [RULES[k](levels, i) for i, k in enumerate(orders)]
    return data_plan(levels, lower(rows), Provenance(name, DPM_SOLVER_PP.arxiv, {"final_order": final_order}))


def _first(levels: Levels, i: int) -> list[Tensor]:
    return [1 - levels.r[i]]


def _second(levels: Levels, i: int) -> list[Tensor]:
    gain, q = 1 - levels.r[i], levels.h[i] / levels.h[i - 1]
    return [-gain * q / 2, gain * (1 + q / 2)]


def _third(levels: Levels, i: int) -> list[Tensor]:
    h, q0, q1 = levels.h[i], levels.h[i] / levels.h[i - 1], levels.h[i] / levels.h[i - 2]
    g = q1 / (q0 + q1)
    gain = -torch.expm1(-h)
    slope = 1 - gain / h
    bend = (h - gain) / h**2 - 0.5
    on_d0, on_d1 = slope * (1 + g) - bend * q0 * g, -slope * g + bend * q0 * g
    return [-q1 * on_d1, q1 * on_d1 - q0 * on_d0, gain + q0 * on_d0]


RULES: dict[int, Callable[[Levels, int], list[Tensor]]] = {
    1: _first,
    2: _second,
    3: _third,
}  # weights of step i, by order
