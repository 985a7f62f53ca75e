"""The classical plans worth trying: every solver that came within 10 % of the best anywhere in the full search.

The full search over all solvers, orders and grids is stored in ``docs/benchmarks/classical_search.json`` and written by
``benchmarks/classical_search.py``; the list here is what its last section prints.
"""

from __future__ import annotations

from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate

SHORTLIST: tuple[Candidate, ...] = (
    Candidate(solvers.ddim, grids.karras),
    Candidate(solvers.dpm_solver_pp_2m, grids.log_snr),
    Candidate(solvers.dpm_solver_pp_2m, grids.karras),
    Candidate(solvers.rho_adams, grids.karras, {"order": 2}),
    Candidate(solvers.rho_adams, grids.karras, {"order": 3}),
    Candidate(solvers.lam_adams, grids.karras, {"order": 2}),
    Candidate(solvers.exponential_adams, grids.karras, {"order": 2}),
    Candidate(solvers.exponential_adams, grids.log_snr, {"order": 3}),
)
