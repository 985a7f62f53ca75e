"""How data become noise: processes, parameterisations, denoisers."""

from isocline.processes.denoiser import Denoiser, Prediction, wrap
from isocline.processes.edm import EDM
from isocline.processes.gaussian import GaussianProcess
from isocline.processes.model_time import Continuous, DiscreteIndex, LogSNR, NoiseLevel
from isocline.processes.parameterisation import Data, FlowVelocity, Noise, Parameterisation, Score, VPrediction
from isocline.processes.precondition import Preconditioned

__all__ = [
    "EDM",
    "Continuous",
    "Data",
    "Denoiser",
    "DiscreteIndex",
    "FlowVelocity",
    "GaussianProcess",
    "LogSNR",
    "Noise",
    "NoiseLevel",
    "Parameterisation",
    "Preconditioned",
    "Prediction",
    "Score",
    "VPrediction",
    "wrap",
]
