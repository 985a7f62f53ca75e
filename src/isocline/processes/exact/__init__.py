"""Data laws whose denoiser is known exactly: the test beds of everything that samples."""

from isocline.processes.exact.base import ExactDenoiser
from isocline.processes.exact.mixture import GaussianMixture
from isocline.processes.exact.points import Empirical, FinitePoints
from isocline.processes.exact.poisson_points import PoissonPoints
from isocline.processes.exact.sphere import Circle, Sphere
from isocline.processes.exact.subspace import AffineSubspace

__all__ = [
    "AffineSubspace",
    "Circle",
    "Empirical",
    "ExactDenoiser",
    "FinitePoints",
    "GaussianMixture",
    "PoissonPoints",
    "Sphere",
]
