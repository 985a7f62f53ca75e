"""How data become noise: processes, parameterisations, denoisers."""

from isocline.processes.cosine import CosineVariancePreserving
from isocline.processes.denoiser import Denoiser, Prediction, wrap
from isocline.processes.edm import EDM
from isocline.processes.exact import (
    AffineSubspace,
    Circle,
    Empirical,
    ExactDenoiser,
    FinitePoints,
    GaussianMixture,
    Sphere,
)
from isocline.processes.gaussian import GaussianProcess
from isocline.processes.guided import Guided
from isocline.processes.half_precision import HalfPrecision
from isocline.processes.model_time import Continuous, DiscreteIndex, LogSNR, NoiseLevel
from isocline.processes.naming import process_from_dict, process_to_dict, same_process
from isocline.processes.parameterisation import Data, FlowVelocity, Noise, Parameterisation, Score, VPrediction
from isocline.processes.perturbed import PerturbedDenoiser
from isocline.processes.precondition import Preconditioned
from isocline.processes.rectified_flow import RectifiedFlow
from isocline.processes.sub_variance_preserving import SubVariancePreserving
from isocline.processes.tabulated import Tabulated
from isocline.processes.variance_exploding import VarianceExploding
from isocline.processes.variance_preserving import VariancePreserving

__all__ = [
    "EDM",
    "AffineSubspace",
    "Circle",
    "Continuous",
    "CosineVariancePreserving",
    "Data",
    "Denoiser",
    "DiscreteIndex",
    "Empirical",
    "ExactDenoiser",
    "FinitePoints",
    "FlowVelocity",
    "GaussianMixture",
    "GaussianProcess",
    "Guided",
    "HalfPrecision",
    "LogSNR",
    "Noise",
    "NoiseLevel",
    "Parameterisation",
    "PerturbedDenoiser",
    "Preconditioned",
    "Prediction",
    "RectifiedFlow",
    "Score",
    "Sphere",
    "SubVariancePreserving",
    "Tabulated",
    "VPrediction",
    "VarianceExploding",
    "VariancePreserving",
    "process_from_dict",
    "process_to_dict",
    "same_process",
    "wrap",
]
