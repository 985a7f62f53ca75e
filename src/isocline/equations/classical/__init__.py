"""Classical solvers: references for learned fields, and methods in their own right."""

from isocline.equations.classical.cole_hopf import ColeHopf
from isocline.equations.classical.collocation import Collocation, collocate
from isocline.equations.classical.darcy import solve_darcy
from isocline.equations.classical.euler import Euler
from isocline.equations.classical.finite_difference import Elliptic, Grid, Richardson
from isocline.equations.classical.finite_volume import FiniteVolume, Law
from isocline.equations.classical.fourier import Evolution, PeriodicEvolution
from isocline.equations.classical.obstacle import channel_flow
from isocline.equations.classical.riemann import Riemann
from isocline.equations.classical.shallow_water import ShallowWater
from isocline.equations.classical.spectral_march import SpectralMarch, Torus, random_waves
from isocline.equations.classical.taylor_hood import Flow, steady_flow
from isocline.equations.classical.vorticity import velocity, vorticity_march
from isocline.equations.classical.wave_1d import Wave
from isocline.equations.classical.weno import CombinedEquation
from isocline.equations.classical.wkb import Waves, wkb, wkb_march

__all__ = [
    "ColeHopf",
    "Collocation",
    "CombinedEquation",
    "Elliptic",
    "Euler",
    "Evolution",
    "FiniteVolume",
    "Flow",
    "Grid",
    "Law",
    "PeriodicEvolution",
    "Richardson",
    "Riemann",
    "ShallowWater",
    "SpectralMarch",
    "Torus",
    "Wave",
    "Waves",
    "channel_flow",
    "collocate",
    "random_waves",
    "solve_darcy",
    "steady_flow",
    "velocity",
    "vorticity_march",
    "wkb",
    "wkb_march",
]
