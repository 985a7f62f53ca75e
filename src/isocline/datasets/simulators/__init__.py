"""Simulators: cases drawn from a prior, and the frames of their solutions."""

from isocline.datasets.simulators.base import Cases, Simulator
from isocline.datasets.simulators.burgers1d import Burgers1D
from isocline.datasets.simulators.ks1d import KS1D
from isocline.datasets.simulators.ns2d import Kolmogorov2D, NS2DForced

__all__ = [
    "KS1D",
    "Burgers1D",
    "Cases",
    "Kolmogorov2D",
    "NS2DForced",
    "Simulator",
]
