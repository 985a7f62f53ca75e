"""Kernels on paths: neural signature kernels, homogeneous and inhomogeneous."""

from isocline.timeseries.kernels.activations import Activation, Erf, Identity, ReLU
from isocline.timeseries.kernels.controlled_resnet import ControlledResNet
from isocline.timeseries.kernels.inhomogeneous import InhomogeneousSignatureKernel
from isocline.timeseries.kernels.neural_signature import NeuralSignatureKernel

__all__ = [
    "Activation",
    "ControlledResNet",
    "Erf",
    "Identity",
    "InhomogeneousSignatureKernel",
    "NeuralSignatureKernel",
    "ReLU",
]
