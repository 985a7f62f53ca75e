"""Published samplers, each a function ``(process, times, ...) -> Plan``, differentiable in `times`.

Plans come in the parameterisation the sampler was derived in; `Plan.run` converts them to whatever the network outputs. A
step that ends without noise (time 0) is a DDIM step in every solver: there the data prediction itself is the result.
"""

from isocline.plans.solvers.adams import exponential_adams, lam_adams, rho_adams, t_adams
from isocline.plans.solvers.ddim import ddim
from isocline.plans.solvers.dpm_solver_pp import dpm_solver_pp_1, dpm_solver_pp_2m, dpm_solver_pp_3m
from isocline.plans.solvers.edm import euler, heun

__all__ = [
    "ddim",
    "dpm_solver_pp_1",
    "dpm_solver_pp_2m",
    "dpm_solver_pp_3m",
    "euler",
    "exponential_adams",
    "heun",
    "lam_adams",
    "rho_adams",
    "t_adams",
]
