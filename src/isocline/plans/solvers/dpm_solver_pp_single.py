r"""DPM-Solver++ single-step: the formulas of DPM-Solver for data predictions (Lu et al., arXiv 2211.01095).

With ``h = lam_t - lam_s`` and ``r = exp(-h)`` the step is ``y_t = r y_s + (1 - r) D~``, where ``D~`` is the mean of the data
prediction over the step under the weight ``exp(lam)``. With stages at the shares ``r1 < r2`` of the step in half log-SNR,

    2S:   D~ = D_s + (D_r1 - D_s) / (2 r1) ,
    3S:   D~ = D_s + c(h) / r2 (D_r2 - D_s) ,      c(h) = 1 / (1 - exp(-h)) - 1 / h = 1/2 + h/12 + ... ,

the second stage of 3S being reached by the same rule from ``D_s`` and ``D_r1``. The paper has 2S; 3S is in its authors' code.
"""

from __future__ import annotations

from torch import Tensor

from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.dpm_solver import Prediction, single_step, split
from isocline.plans.solvers.dpm_solver_pp import DPM_SOLVER_PP
from isocline.plans.solvers.draft import data_step
from isocline.plans.solvers.rows import Levels
from isocline.processes import Data, GaussianProcess

DATA = Prediction(Data(), data_step, 1.0)


@DPM_SOLVER_PP.variant(order=2)
def dpm_solver_pp_2s(process: GaussianProcess, times: Tensor, *, r1: float = 0.5) -> Plan:
    """Return DPM-Solver++ 2S: order 2, two calls a step, one for a step from pure noise or to time 0.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        r1: place of the stage as a share of the step in half log-SNR, in (0, 1].
    """
    return _dpm_solver_pp("dpm_solver_pp_2s", process, times, {"r1": r1})


@DPM_SOLVER_PP.variant(order=3)
def dpm_solver_pp_3s(process: GaussianProcess, times: Tensor, *, r1: float = 1 / 3, r2: float = 2 / 3) -> Plan:
    """Return DPM-Solver++ 3S: order 3, three calls a step, one for a step from pure noise or to time 0.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        r1: place of the first stage as a share of the step in half log-SNR, ``0 < r1 < r2``.
        r2: place of the second stage, at most 1; with another value than 2/3 the order is 2.
    """
    return _dpm_solver_pp("dpm_solver_pp_3s", process, times, {"r1": r1, "r2": r2})


def _dpm_solver_pp(name: str, process: GaussianProcess, times: Tensor, shares: dict[str, float]) -> Plan:
    levels = Levels(process, times)
    return single_step(DATA, levels, split(levels, shares), Provenance(name, DPM_SOLVER_PP.arxiv, {**shares}))
