"""Models for irregular time series: times (T,) or (B, T), values (B, T, C) with NaN for what is missing."""

from isocline.timeseries.models.gru import GRU
from isocline.timeseries.models.latent_ode import LatentODE, Posterior, kl_weight
from isocline.timeseries.models.latent_sde import LatentSDE
from isocline.timeseries.models.neural_cde import MatrixField, NeuralCDE
from isocline.timeseries.models.neural_ode import NeuralODE, Solving, VectorField
from isocline.timeseries.models.neural_sde import NeuralSDE
from isocline.timeseries.models.stable_sde import GeometricSDE, LangevinSDE, LinearNoiseSDE

__all__ = [
    "GRU",
    "GeometricSDE",
    "LangevinSDE",
    "LatentODE",
    "LatentSDE",
    "LinearNoiseSDE",
    "MatrixField",
    "NeuralCDE",
    "NeuralODE",
    "NeuralSDE",
    "Posterior",
    "Solving",
    "VectorField",
    "kl_weight",
]
