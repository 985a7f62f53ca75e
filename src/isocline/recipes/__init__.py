"""The verbs: sample, tune, train."""

from isocline.recipes.sample import sample
from isocline.recipes.tune import Outcome, tune

__all__ = ["Outcome", "sample", "tune"]
