"""What is minimised: formulations, weights, time laws."""

from isocline.objectives.conditioning import (
    Conditioning,
    FourierSeries,
    LinearModel,
    conditioning_report,
    loss_conditioning,
    loss_tangent,
)
from isocline.objectives.deepcfd import FlowLoss
from isocline.objectives.denoising import DenoisingObjective
from isocline.objectives.estimated import EstimatedLaplacian, EstimatedLoss
from isocline.objectives.formulation import (
    Formulation,
    cem,
    ddpm,
    edm,
    rectified_diffusion,
    rectified_flow,
    rf_plus_plus,
    score,
    v_prediction,
)
from isocline.objectives.hierarchical_flow import HierarchicalFlow
from isocline.objectives.jacobian import jacobian_penalty
from isocline.objectives.learned_coupling import GaussianEncoder, LearnedCoupling
from isocline.objectives.local_step import Visited, local_step, uniform_time, visited_step, with_time
from isocline.objectives.path_norm import path_norm
from isocline.objectives.penalties import PseudoHuber, squared
from isocline.objectives.residuals import ResidualLoss
from isocline.objectives.solver_cost import (
    ExponentialDecay,
    error_cost,
    squared_error_cost,
    stability_size,
    stiffness_cost,
)
from isocline.objectives.time_laws import (
    LogitNormal,
    LogNormal,
    LogUniformTime,
    TimeLaw,
    UniformLogSNR,
    UniformTime,
    UShaped,
)
from isocline.objectives.weights import EDMWeight, UnitOn

__all__ = [
    "Conditioning",
    "DenoisingObjective",
    "EDMWeight",
    "EstimatedLaplacian",
    "EstimatedLoss",
    "ExponentialDecay",
    "FlowLoss",
    "Formulation",
    "FourierSeries",
    "GaussianEncoder",
    "HierarchicalFlow",
    "LearnedCoupling",
    "LinearModel",
    "LogNormal",
    "LogUniformTime",
    "LogitNormal",
    "PseudoHuber",
    "ResidualLoss",
    "TimeLaw",
    "UShaped",
    "UniformLogSNR",
    "UniformTime",
    "UnitOn",
    "Visited",
    "cem",
    "conditioning_report",
    "ddpm",
    "edm",
    "error_cost",
    "jacobian_penalty",
    "local_step",
    "loss_conditioning",
    "loss_tangent",
    "path_norm",
    "rectified_diffusion",
    "rectified_flow",
    "rf_plus_plus",
    "score",
    "squared",
    "squared_error_cost",
    "stability_size",
    "stiffness_cost",
    "uniform_time",
    "v_prediction",
    "visited_step",
    "with_time",
]
