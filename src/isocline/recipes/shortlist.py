"""The classical plans that `tune` starts from: the best of the full search at each budget, and the usual defaults.

The search over all solvers, orders, grids and places of the last node is stored in ``docs/benchmarks/classical_search.json`` and
written by ``benchmarks/classical_search.py``; its page says how near this list comes to the best of all.
"""

from __future__ import annotations

from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate

SHORTLIST: tuple[Candidate, ...] = (
    Candidate(solvers.exponential_adams, grids.log_snr, {"order": 2}, last=0.12),
    Candidate(solvers.lam_adams, grids.log_snr, {"order": 3}, last=0.12),
    Candidate(solvers.dpm_solver_pp_2m, grids.log_snr, last=0.12),
    Candidate(solvers.dpm_solver_pp_2m, grids.log_snr, last=0.03),
    Candidate(solvers.lam_adams, grids.log_snr, {"order": 4}, last=0.03),
    Candidate(solvers.lam_adams, grids.karras, {"order": 4}, {"rho": 9.0}, last=0.002),
    Candidate(solvers.dpm_solver_pp_2m, grids.karras),
    Candidate(solvers.ddim, grids.karras),
)
