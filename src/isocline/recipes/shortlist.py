"""The classical plans that `tune` starts from: the best of the full searches at each budget, and the usual defaults.

Two searches over solvers, orders, grids and places of the last node on the bundled image model stand behind it:
``benchmarks/classical_search.py`` and, with more solvers, ``benchmarks/which_sampler.py``; their pages are in ``docs``.
"""

from __future__ import annotations

from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate
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
