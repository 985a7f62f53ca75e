"""Simulators: cases drawn from a prior, and the frames of their solutions."""

from isocline.datasets.simulators.base import Cases, Simulator
from isocline.datasets.simulators.burgers1d import Burgers1D
from isocline.datasets.simulators.ce1d import CombinedEquation1D
from isocline.datasets.simulators.darcy2d import Darcy2D, DarcyTensor2D
from isocline.datasets.simulators.euler2d import Euler2D
from isocline.datasets.simulators.heat2d import Heat2D
from isocline.datasets.simulators.ks1d import KS1D
from isocline.datasets.simulators.ns2d import Kolmogorov2D, NS2DForced
from isocline.datasets.simulators.obstacle2d import Obstacle2D
from isocline.datasets.simulators.swe2d import ShallowWater2D
from isocline.datasets.simulators.wave1d import Wave1D

__all__ = [
    "KS1D",
    "Burgers1D",
    "Cases",
    "CombinedEquation1D",
    "Darcy2D",
    "DarcyTensor2D",
    "Euler2D",
    "Heat2D",
    "Kolmogorov2D",
    "NS2DForced",
    "Obstacle2D",
    "ShallowWater2D",
    "Simulator",
    "Wave1D",
]
