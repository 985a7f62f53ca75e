r"""Adams methods for the probability-flow ODE, with exact weights for any grid: DEIS and its relatives.

Past predictions are interpolated by the polynomial ``sum_j L_j(q) p_j`` through the last ``k`` nodes, in a variable ``q`` of
choice, and integrated exactly over the step from ``s`` to ``t``:

    noise predictions   y' = y + sum_j e_j  int_s^t L_j(q(u)) du
    data predictions    y' = r y + t sum_j D_j  int_{lam_s}^{lam_t} exp(lam) L_j(q(lam)) dlam

``q`` is the noise level (rho), process time (t) or the half log-SNR (lam). The first steps use fewer nodes. Where they lie far
above the data's spread, where the data prediction is constant, that costs next to nothing; elsewhere it caps the limiting order
at 2 (Zhang and Chen, DEIS, arXiv 2204.13902, with Riemann sums for the integrals; here Gauss-Legendre with 20 points).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.lagrange import POINTS, SHARES, exponential_weights, lagrange
from isocline.plans.solvers.rows import Levels, data_plan, lower, noise_plan, ramp
from isocline.processes import GaussianProcess

DEIS = Method(
    "deis",
    "DEIS (Adams)",
    "Fast Sampling of Diffusion Models with Exponential Integrator",
    "Qinsheng Zhang, Yongxin Chen",
    2022,
    "2204.13902",
    room="plans.solvers",
    when="First to try without guidance: lam_adams(4) led on images from 8 calls on, exponential_adams(2) at 4; see the tables.",
)

Variable = Callable[[GaussianProcess, Tensor], Tensor]


def _rho(process: GaussianProcess, lam: Tensor) -> Tensor:
    return torch.exp(-lam)


def _time(process: GaussianProcess, lam: Tensor) -> Tensor:
    return process.time_of(lam)


def _lam(process: GaussianProcess, lam: Tensor) -> Tensor:
    return lam


@DEIS.variant(order=3)
def rho_adams(
    process: GaussianProcess, times: Tensor, *, order: int = 3, final_order: int | None = None, clean_order: int = 1
) -> Plan:
    """Return Adams on noise predictions with polynomials in the noise level: order `order`, one call a step.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
        order: number of past outputs; the first steps have fewer.
        final_order: order of the last step.
        clean_order: order of a last step to time 0. With `order` there too it is the LMS sampler of k-diffusion and diffusers:
            closer to the limit of the ODE where the data are smooth at the last noise level, worse where they are not.
    """
    return _noise_adams("rho_adams", _rho, process, times, order, final_order, clean_order)


@DEIS.variant(order=3)
def t_adams(
    process: GaussianProcess, times: Tensor, *, order: int = 3, final_order: int | None = None, clean_order: int = 1
) -> Plan:
    """Return Adams on noise predictions with polynomials in process time (tAB-DEIS): order `order`, one call a step.

    Arguments as in `rho_adams`.
    """
    return _noise_adams("t_adams", _time, process, times, order, final_order, clean_order)


@DEIS.variant(order=3)
def lam_adams(process: GaussianProcess, times: Tensor, *, order: int = 3, final_order: int | None = None) -> Plan:
    """Return Adams on noise predictions with polynomials in the half log-SNR: order `order`, one call a step.

    Its variable is infinite at time 0, so a last step there is of order 1.
    """
    return _noise_adams("lam_adams", _lam, process, times, order, final_order, clean_order=1)


@DEIS.variant(order=3)
def exponential_adams(
    process: GaussianProcess, times: Tensor, *, order: int = 3, final_order: int | None = None
) -> Plan:
    """Return exponential Adams on data predictions with polynomials in the half log-SNR: order `order`, one call a step.

    DPM-Solver++ multistep with exact weights; may start without signal.
    """
    levels = Levels(process, times)
    rows = []
    for i, k in enumerate(_orders(levels, order, final_order)):
        k = min(k, i + 1 if bool(torch.isfinite(levels.lam[0])) else max(i, 1))
        nodes = levels.lam[i - k + 1 : i + 1]
        rows.append([1 - levels.r[i]] if k == 1 else exponential_weights(nodes, levels.lam[i], levels.lam[i + 1]))
    settings = {"order": order, "final_order": final_order}
    return data_plan(levels, lower(rows), Provenance("exponential_adams", DEIS.arxiv, settings))


def _noise_adams(
    name: str,
    variable: Variable,
    process: GaussianProcess,
    times: Tensor,
    order: int,
    final_order: int | None,
    clean_order: int,
) -> Plan:
    require(clean_order >= 1, f"clean_order must be at least 1, got {clean_order}")
    levels = Levels(process, times)
    levels.require_finite(name)
    rows = []
    for i, k in enumerate(_orders(levels, order, final_order, clean_order)):
        nodes = variable(process, levels.lam[i - k + 1 : i + 1])
        whole = levels.s[i + 1] - levels.s[i]
        rows.append([whole] if k == 1 else _noise_weights(process, variable, nodes, levels.lam[i], levels.lam[i + 1]))
    settings = {"order": order, "final_order": final_order} | ({} if clean_order == 1 else {"clean_order": clean_order})
    return noise_plan(levels, lower(rows), Provenance(name, DEIS.arxiv, settings))


def _orders(levels: Levels, order: int, final_order: int | None, clean_order: int = 1) -> list[int]:
    orders = ramp(levels.n, order, final_order)
    if levels.ends_clean:
        orders[-1] = min(orders[-1], clean_order)
    return orders


def _noise_weights(
    process: GaussianProcess, variable: Variable, nodes: Tensor, start: Tensor, end: Tensor
) -> list[Tensor]:
    if bool(torch.isinf(end.detach())):  # a step to time 0: the noise level is regular there, lam is not
        s = torch.exp(-start) * (0.5 - POINTS)
        lam, measure = -torch.log(s), -torch.exp(-start) * SHARES
    else:
        lam = start + (end - start) * (POINTS + 0.5)
        measure = -torch.exp(-lam) * (end - start) * SHARES  # ds = -exp(-lam) dlam
    return [(basis * measure).sum() for basis in lagrange(nodes, variable(process, lam))]
