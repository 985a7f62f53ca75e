r"""SA-Solver, a stochastic Adams predictor-corrector (Xue et al., arXiv 2309.05019).

The reverse SDE whose noise is ``tau`` times that of the forward process, ``tau = 0`` the probability-flow ODE and ``tau = 1`` the
usual reverse SDE, is solved over a step from ``s`` to ``t = r s``, with ``c = 1 + tau^2`` and ``h = lam' - lam``, by

    y' = r^c y + sum_j D_j  int_{lam}^{lam'} c exp(c (u - lam')) L_j(u) du  +  t sqrt(1 - exp(-2 tau^2 h)) z ,

``L_j`` the Lagrange polynomials of the nodes used: the last ones for the predictor, the next one and the last ones for the
corrector. Drift and noise of a constant data prediction are exact, whatever ``tau``. As in `unipc`, the network reads the predicted
state, and its output corrects the step that led there, with the same noise, before the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.rows import Levels, data_plan, ramp
from isocline.plans.solvers.unipc import AdamsStep, Span, predict_and_correct
from isocline.processes import GaussianProcess

SA_SOLVER = Method(
    "sa-solver",
    "SA-Solver",
    "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models",
    "Shuchen Xue, Mingyang Yi, Weijian Luo, Shifeng Zhang, Jiacheng Sun, Zhenguo Li, Zhi-Ming Ma",
    2023,
    "2309.05019",
    room="plans.solvers",
    when="Fresh noise in a multistep solver, by steps: tau > 0 where it should wash out model error, 0 elsewhere.",
)


@SA_SOLVER.variant(order=2)
def sa_solver(
    process: GaussianProcess,
    times: Tensor,
    *,
    predictor_order: int = 2,
    corrector_order: int = 2,
    tau: float | Sequence[float] = 0.0,
    final_order: int | None = None,
    exact: bool = True,
) -> Plan:
    """Return SA-Solver on data predictions: order min(`predictor_order` + 1, `corrector_order`), one call a step.

    Without corrector the order is `predictor_order`. With noise the variance of samples of Gaussian data converges with order 2
    at most; their mean is exact.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        predictor_order: number of nodes of the predictor; fewer in the first steps.
        corrector_order: number of nodes of the corrector, the next one included; 0 leaves it out.
        tau: size of the noise, one number or one a step; 0 is the probability-flow ODE, 1 the reverse SDE.
        final_order: order of the last step of the predictor; 1 is what diffusers calls ``lower_order_final``.
        exact: False replaces the weight on the slope in rules of two nodes by ``c h / 2``, as the authors' code does.
    """
    levels = Levels(process, times)
    taus = [float(tau)] * levels.n if isinstance(tau, (int, float)) else [float(v) for v in tau]
    require(len(taus) == levels.n, f"tau must be one number or one for each of {levels.n} steps, got {len(taus)}")
    require(all(v >= 0 for v in taus), f"tau must not be negative, got {min(taus)}")
    require(corrector_order >= 0, f"corrector_order must not be negative, got {corrector_order}")
    steps = [_step(levels, i, 1 + v**2, exact) for i, v in enumerate(taus)]
    shrink, fresh = (torch.stack(part) for part in zip(*map(_noise, taus, levels.h), strict=True))
    predictors, correctors = _spans(levels, predictor_order, corrector_order, final_order)
    settings = {
        "predictor_order": predictor_order, "corrector_order": corrector_order, "tau": taus, "final_order": final_order,
        "exact": exact,
    }  # fmt: skip
    return data_plan(
        levels,
        predict_and_correct(steps, predictors, correctors, levels.r * shrink),
        Provenance("sa_solver", SA_SOLVER.arxiv, settings),
        shrink=shrink,
        noise=fresh,
    )


def _step(levels: Levels, i: int, c: float, exact: bool) -> AdamsStep:
    gain = 1 - levels.r[i] if c == 1 else -torch.expm1(-c * levels.h[i])
    return AdamsStep(c * levels.lam, i, gain, torch.ones_like(gain), None if exact else c * levels.h[i])


def _noise(tau: float, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a step leaves of the state, beside ``r``, and the noise it adds, in units of the next ``sigma``."""
    if tau == 0:  # apart, as the step may be infinitely long
        return torch.ones_like(h), torch.zeros_like(h)
    return torch.exp(-(tau**2) * h), torch.sqrt(-torch.expm1(-2 * tau**2 * h))


def _spans(
    levels: Levels, predictor_order: int, corrector_order: int, final_order: int | None
) -> tuple[list[Span], list[Span | None]]:
    """Return first and last node of each step's predictor and corrector."""
    past = ramp(levels.n, predictor_order, final_order)
    if levels.ends_clean:
        past[-1] = 1
    predictors = [(i - k + 1, i) for i, k in enumerate(past)]
    if corrector_order == 0:
        return predictors, [None] * levels.n
    beside = ramp(levels.n, corrector_order - 1, final_order) if corrector_order > 1 else [0] * levels.n
    return predictors, [*((i - k + 1, i + 1) for i, k in enumerate(beside[:-1])), None]
