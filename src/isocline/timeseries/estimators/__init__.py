"""Estimators with fit and predict for irregular series with gaps; they need the extra ``timeseries`` (scikit-learn)."""

from isocline.timeseries.estimators.gru import GRUClassifier, GRURegressor
from isocline.timeseries.estimators.neural_cde import NeuralCDEClassifier, NeuralCDERegressor
from isocline.timeseries.estimators.neural_sde import NeuralSDEClassifier, NeuralSDERegressor
from isocline.timeseries.estimators.signature_kernel import SignatureKernelClassifier

__all__ = [
    "GRUClassifier",
    "GRURegressor",
    "NeuralCDEClassifier",
    "NeuralCDERegressor",
    "NeuralSDEClassifier",
    "NeuralSDERegressor",
    "SignatureKernelClassifier",
]
