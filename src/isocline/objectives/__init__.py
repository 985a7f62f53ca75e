"""What is minimised."""

from isocline.objectives.denoising import DenoisingObjective, EDMWeight, LogNormal

__all__ = ["DenoisingObjective", "EDMWeight", "LogNormal"]
