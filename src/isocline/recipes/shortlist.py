"""The classical plans that `tune` starts from: the best of the full searches at each budget, and the usual defaults.

`every_classical` is the longer list that `tune_portfolio` goes through: solvers and orders on all grids.

Two searches over solvers, orders, grids and places of the last node on the bundled image model stand behind it:
``benchmarks/classical_search.py`` and, with more solvers, ``benchmarks/which_sampler.py``; their pages are in ``docs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.grids.span import End
from isocline.plans.plan import Plan
from isocline.processes import GaussianProcess

SHORTLIST: tuple[Candidate, ...] = (
    Candidate(solvers.exponential_adams, grids.log_snr, {"order": 2}, last=0.12),
    Candidate(solvers.lam_adams, grids.log_snr, {"order": 3}, last=0.12),
    Candidate(solvers.lam_adams, grids.log_snr, {"order": 4}, last=0.12),
    Candidate(solvers.ipndm, grids.log_snr, last=0.12),
    Candidate(solvers.ipndm, grids.log_snr, last=0.03),
    Candidate(solvers.unipc, grids.log_snr, {"order": 2}, last=0.12),
    Candidate(solvers.dpm_solver_pp_2m, grids.log_snr, last=0.12),
    Candidate(solvers.dpm_solver_pp_2m, grids.log_snr, last=0.03),
    Candidate(solvers.lam_adams, grids.log_snr, {"order": 4}, last=0.03),
    Candidate(solvers.lam_adams, grids.karras, {"order": 4}, {"rho": 9.0}, last=0.002),
    Candidate(solvers.dpm_solver_pp_2m, grids.karras),
    Candidate(solvers.ddim, grids.karras),
)
FLOW_SHORTLIST: tuple[Candidate, ...] = (
    Candidate(solvers.flow_euler, grids.uniform),
    Candidate(solvers.flow_adams, grids.uniform, {"order": 2}),
    Candidate(solvers.dpm_solver_pp_2m, grids.uniform),
    Candidate(solvers.dpm_solver_pp_2m, grids.uniform, last=0.12),
    Candidate(solvers.exponential_adams, grids.uniform, {"order": 2}, last=0.12),
    Candidate(solvers.ddim, grids.uniform),
)


def shortlist_of(process: GaussianProcess) -> tuple[Candidate, ...]:
    """Return the plans to start from for `process`: for a start without signal those on grids in time, else `SHORTLIST`."""
    return FLOW_SHORTLIST if float(process.alpha(process.t_max)) == 0 else SHORTLIST


def every_classical(process: GaussianProcess, end: End) -> tuple[Candidate, ...]:
    """Return one-call-a-step solvers and orders on all grids, with two places of the last node where runs end without noise.

    For a start without signal only those on grids in time.
    """
    if float(process.alpha(process.t_max)) == 0:
        return FLOW_SHORTLIST
    adams: list[tuple[Callable[..., Plan], tuple[int, ...]]]
    adams = [(solvers.lam_adams, (2, 3, 4)), (solvers.exponential_adams, (2, 3)), (solvers.rho_adams, (3, 4))]
    adams.append((solvers.unipc, (2, 3)))
    kinds = [(solver, {"order": k}) for solver, orders in adams for k in orders]
    plain = (solvers.ddim, solvers.dpm_solver_pp_2m, solvers.dpm_solver_pp_3m, solvers.ipndm)
    kinds += [(solver, {}) for solver in plain]
    places: list[tuple[Callable[..., Tensor], dict[str, float]]]
    places = [(grids.log_snr, {}), (grids.uniform, {}), (grids.quadratic, {})]
    places += [(grids.karras, {"rho": rho}) for rho in (3.0, 5.0, 7.0, 9.0)]
    lasts = (0.12, 0.03) if end == "zero" else (None,)
    first = SHORTLIST if end == "zero" else tuple(replace(candidate, last=None) for candidate in SHORTLIST)
    others = (Candidate(solver, grid, s, g, last) for solver, s in kinds for grid, g in places for last in lasts)
    return tuple({candidate.name: candidate for candidate in (*first, *others)}.values())
