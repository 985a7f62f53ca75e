"""Distances, shares, the shape of paths, errors of fields, with their uncertainty."""

from isocline.metrics.autocorrelation import autocorrelation_time, effective_samples
from isocline.metrics.dimension import thickness, two_nn
from isocline.metrics.distances import energy_distance, rms, sliced_wasserstein, two_sample_floor
from isocline.metrics.fields import correlation, high_correlation_time, nmse, relative_error, vrmse
from isocline.metrics.frechet import frechet_distance, frechet_estimate, frechet_infinite
from isocline.metrics.manifold import OffManifold, nearest_distance, off_manifold
from isocline.metrics.mean import mean_estimate
from isocline.metrics.mmd import (
    gaussian_kernel,
    median_distance,
    polynomial_kernel,
    squared_mmd,
    squared_mmd_estimate,
)
from isocline.metrics.paths import curvature, first_order_defect, straightness
from isocline.metrics.proportion import proportion
from isocline.metrics.spectrum import band_errors, power_spectrum

__all__ = [
    "OffManifold",
    "autocorrelation_time",
    "band_errors",
    "correlation",
    "curvature",
    "effective_samples",
    "energy_distance",
    "first_order_defect",
    "frechet_distance",
    "frechet_estimate",
    "frechet_infinite",
    "gaussian_kernel",
    "high_correlation_time",
    "mean_estimate",
    "median_distance",
    "nearest_distance",
    "nmse",
    "off_manifold",
    "polynomial_kernel",
    "power_spectrum",
    "proportion",
    "relative_error",
    "rms",
    "sliced_wasserstein",
    "squared_mmd",
    "squared_mmd_estimate",
    "straightness",
    "thickness",
    "two_nn",
    "two_sample_floor",
    "vrmse",
]
