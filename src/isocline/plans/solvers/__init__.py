"""Published samplers, each a function ``(process, times, ...) -> Plan``, differentiable in `times`.

Plans come in the parameterisation the sampler was derived in; `Plan.run` converts them to whatever the network outputs. A
step that ends without noise (time 0) is a DDIM step, so that the data prediction itself is the result; flow_adams and flow_midpoint
keep their order there, rho_adams and t_adams on request.
"""

from isocline.plans.solvers.adams import exponential_adams, lam_adams, rho_adams, t_adams
from isocline.plans.solvers.ancestral import ancestral
from isocline.plans.solvers.churn import stochastic_euler, stochastic_heun
from isocline.plans.solvers.ddim import ddim
from isocline.plans.solvers.dpm_solver import dpm_solver_1, dpm_solver_2, dpm_solver_3, dpm_solver_fast
from isocline.plans.solvers.dpm_solver_pp import dpm_solver_pp_1, dpm_solver_pp_2m, dpm_solver_pp_3m
from isocline.plans.solvers.dpm_solver_pp_single import dpm_solver_pp_2s, dpm_solver_pp_3s
from isocline.plans.solvers.edm import euler, heun
from isocline.plans.solvers.flow import flow_adams, flow_euler, flow_heun, flow_midpoint
from isocline.plans.solvers.pndm import f_pndm, ipndm, plms, s_pndm
from isocline.plans.solvers.predictor_corrector import predictor_corrector
from isocline.plans.solvers.restart import Restart, restart
from isocline.plans.solvers.reverse_sde import euler_maruyama, reverse_diffusion
from isocline.plans.solvers.sa_solver import sa_solver
from isocline.plans.solvers.sde_dpm_solver_pp import sde_dpm_solver_pp_1, sde_dpm_solver_pp_2m, sde_dpm_solver_pp_3m
from isocline.plans.solvers.unipc import unipc, unipc_noise

__all__ = [
    "Restart",
    "ancestral",
    "ddim",
    "dpm_solver_1",
    "dpm_solver_2",
    "dpm_solver_3",
    "dpm_solver_fast",
    "dpm_solver_pp_1",
    "dpm_solver_pp_2m",
    "dpm_solver_pp_2s",
    "dpm_solver_pp_3m",
    "dpm_solver_pp_3s",
    "euler",
    "euler_maruyama",
    "exponential_adams",
    "f_pndm",
    "flow_adams",
    "flow_euler",
    "flow_heun",
    "flow_midpoint",
    "heun",
    "ipndm",
    "lam_adams",
    "plms",
    "predictor_corrector",
    "restart",
    "reverse_diffusion",
    "rho_adams",
    "s_pndm",
    "sa_solver",
    "sde_dpm_solver_pp_1",
    "sde_dpm_solver_pp_2m",
    "sde_dpm_solver_pp_3m",
    "stochastic_euler",
    "stochastic_heun",
    "t_adams",
    "unipc",
    "unipc_noise",
]
