"""How data become noise: processes, parameterisations, denoisers."""

from isocline.processes.checkpointed import Checkpointed
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
    PoissonPoints,
    Sphere,
)
from isocline.processes.gaussian import GaussianProcess
from isocline.processes.guided import Guided
from isocline.processes.half_precision import HalfPrecision
from isocline.processes.model_time import Continuous, DiscreteIndex, LogSNR, LogTime, NoiseLevel
from isocline.processes.naming import process_from_dict, process_to_dict, same_process
from isocline.processes.ornstein_uhlenbeck import ornstein_uhlenbeck
from isocline.processes.parameterisation import Data, FlowVelocity, Noise, Parameterisation, Score, VPrediction
from isocline.processes.perturbed import PerturbedDenoiser
from isocline.processes.poisson_flow import PoissonFlow
from isocline.processes.precondition import EDMPreconditioning, Plain, Preconditioned, Preconditioning, Scaled
from isocline.processes.rectified_flow import RectifiedFlow
from isocline.processes.sub_variance_preserving import SubVariancePreserving
from isocline.processes.tabulated import Tabulated
from isocline.processes.transported import Transported
from isocline.processes.variance_exploding import VarianceExploding
from isocline.processes.variance_preserving import VariancePreserving

__all__ = [
    "EDM",
    "AffineSubspace",
    "Checkpointed",
    "Circle",
    "Continuous",
    "CosineVariancePreserving",
    "Data",
    "Denoiser",
    "DiscreteIndex",
    "EDMPreconditioning",
    "Empirical",
    "ExactDenoiser",
    "FinitePoints",
    "FlowVelocity",
    "GaussianMixture",
    "GaussianProcess",
    "Guided",
    "HalfPrecision",
    "LogSNR",
    "LogTime",
    "Noise",
    "NoiseLevel",
    "Parameterisation",
    "PerturbedDenoiser",
    "Plain",
    "PoissonFlow",
    "PoissonPoints",
    "Preconditioned",
    "Preconditioning",
    "Prediction",
    "RectifiedFlow",
    "Scaled",
    "Score",
    "Sphere",
    "SubVariancePreserving",
    "Tabulated",
    "Transported",
    "VPrediction",
    "VarianceExploding",
    "VariancePreserving",
    "ornstein_uhlenbeck",
    "process_from_dict",
    "process_to_dict",
    "same_process",
    "wrap",
]
