"""Distances and shares, with their uncertainty."""

from isocline.metrics.distances import energy_distance, rms, sliced_wasserstein, two_sample_floor
from isocline.metrics.frechet import frechet_distance, frechet_estimate
from isocline.metrics.proportion import proportion

__all__ = [
    "energy_distance",
    "frechet_distance",
    "frechet_estimate",
    "proportion",
    "rms",
    "sliced_wasserstein",
    "two_sample_floor",
]
