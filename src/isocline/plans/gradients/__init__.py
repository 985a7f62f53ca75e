"""Gradients through a sampling run: with respect to its start, its condition and the network's parameters."""

from isocline.plans.gradients.adjoint import Report
from isocline.plans.gradients.adjoint_deis import AdjointDEIS
from isocline.plans.gradients.adjoint_dpm import AdjointDPM
from isocline.plans.gradients.adjoint_ode import AdjointODE
from isocline.plans.gradients.differentiable import Gradients, differentiable, plan_gradient
from isocline.plans.gradients.exact import Checkpointed, Direct
from isocline.plans.gradients.memory import PeakBytes
from isocline.plans.gradients.rho_runge_kutta import rho_runge_kutta
from isocline.plans.gradients.run import PlanGradient, Run, parameters_of

__all__ = [
    "AdjointDEIS",
    "AdjointDPM",
    "AdjointODE",
    "Checkpointed",
    "Direct",
    "Gradients",
    "PeakBytes",
    "PlanGradient",
    "Report",
    "Run",
    "differentiable",
    "parameters_of",
    "plan_gradient",
    "rho_runge_kutta",
]
