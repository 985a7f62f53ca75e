"""Function approximators."""

from isocline.networks.classifier import Classifier
from isocline.networks.equilibrium import DeepEquilibrium
from isocline.networks.mlp import MLP, DenoisingMLP
from isocline.networks.unet import UNet, UNetShape

__all__ = ["MLP", "Classifier", "DeepEquilibrium", "DenoisingMLP", "UNet", "UNetShape"]
