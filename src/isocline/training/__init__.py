"""The one training loop: averaged weights, atomic checkpoints, resume to the same bits."""

from isocline.training.loop import Settings, Trained, train

__all__ = ["Settings", "Trained", "train"]
