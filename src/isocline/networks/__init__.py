"""Function approximators."""

from isocline.networks.classifier import Classifier
from isocline.networks.unet import UNet, UNetShape

__all__ = ["Classifier", "UNet", "UNetShape"]
