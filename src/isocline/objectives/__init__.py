"""What is minimised: formulations, weights, time laws."""

from isocline.objectives.denoising import DenoisingObjective
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
from isocline.objectives.learned_coupling import GaussianEncoder, LearnedCoupling
from isocline.objectives.penalties import PseudoHuber, squared
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
    "DenoisingObjective",
    "EDMWeight",
    "Formulation",
    "GaussianEncoder",
    "HierarchicalFlow",
    "LearnedCoupling",
    "LogNormal",
    "LogUniformTime",
    "LogitNormal",
    "PseudoHuber",
    "TimeLaw",
    "UShaped",
    "UniformLogSNR",
    "UniformTime",
    "UnitOn",
    "cem",
    "ddpm",
    "edm",
    "rectified_diffusion",
    "rectified_flow",
    "rf_plus_plus",
    "score",
    "squared",
    "v_prediction",
]
