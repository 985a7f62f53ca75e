r"""Compressible flow of a perfect gas in the unit square.

    d_t rho + div (rho v) = 0 ,    d_t (rho v) + div (rho v v) + grad p = rho g ,    d_t E + div ((E + p) v) = rho v . g ,

E = p / (gamma - 1) + rho (v . v) / 2, by finite volumes (`FiniteVolume` with minmod slopes, HLLC flux and Heun steps). Initial
states are of one of six kinds:

    riemann             four quadrants of constant states, rho and p uniform in (0.1, 1), v_a in (-1, 1)
    curved-riemann      the same between wavy lines
    kelvin-helmholtz    a band of density 2 in gas of density 1 that flows against it, p = 2.5; its edges are waves
    gaussians           four Gaussian bumps of density and of pressure, and four Gaussian vortices, over gas at rest
    richtmyer-meshkov   density 2 within a wavy circle, 1 outside, struck by the pressure 20 within a small circle in its middle
    rayleigh-taylor     density 2 over density 1 in equilibrium with gravity, stirred by four waves

The edges of the band have the profile ``tanh(y / 0.05)``, as has the layer between heavy and light gas; lines and circles are
displaced by four waves of random amplitude and phase. Gravity points down the y axis, whose ends are walls then. Data are
cell averages of the density and, at those averages, velocity and pressure; the grid's points are centres of cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import Boundary, DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.classical.euler import Euler
from isocline.equations.classical.finite_volume import FiniteVolume, averaged, centres
from isocline.equations.spec import EquationSpec

FINER = 4  # points along each edge of a cell that an initial state is averaged over
MODES, BUMPS = 4, 4
EDGE = 0.05  # half of the width of a band's edge
EULER = EquationSpec(
    "euler",
    lambda w, q, p: (
        w[0].t + w[1] * w[0].x + w[2] * w[0].y + w[0] * (w[1].x + w[2].y),
        w[1].t + w[1] * w[1].x + w[2] * w[1].y + w[3].x / w[0],
        w[2].t + w[1] * w[2].x + w[2] * w[2].y + w[3].y / w[0] + p.gravity,
        w[3].t + w[1] * w[3].x + w[2] * w[3].y + p.gamma * w[3] * (w[1].x + w[2].y),
    ),
    ("density", "velocity_x", "velocity_y", "pressure"),
    ("x", "y"),
    {"gamma": "ratio of specific heats", "gravity": "acceleration down the y axis"},
)


@dataclass(frozen=True)
class Euler2D(Simulator):
    """Compressible flow.

    Args:
        initial: one of the kinds above.
        resolution: cells along each axis.
        frames: stored frames.
        stop: time of the last frame.
        boundary: of both axes; with gravity of the x axis.
        gamma: ratio of specific heats, the same for all cases.
        gravity: down the y axis, the same for all cases.
        cfl: of the steps.

    Raises:
        InvalidInput: an unknown kind of initial state, fewer than two frames, ``rayleigh-taylor`` without gravity.

    Examples:
        >>> Euler2D(resolution=32).spec.channels
        4
    """

    initial: Literal[
        "riemann", "curved-riemann", "kelvin-helmholtz", "gaussians", "richtmyer-meshkov", "rayleigh-taylor"
    ] = "riemann"
    resolution: int = 64
    frames: int = 21
    stop: float = 1.0
    boundary: Boundary = "periodic"
    gamma: float = 1.4
    gravity: float = 0.0
    cfl: float = 0.4

    equation: ClassVar[EquationSpec] = EULER

    def __post_init__(self) -> None:
        require(self.initial in _STATES, f"initial is one of {', '.join(_STATES)}, got {self.initial!r}")
        require(self.frames >= 2 and self.stop > 0, "a run has at least two frames and a positive duration")
        falls = self.initial != "rayleigh-taylor" or self.gravity > 0
        require(self.gravity >= 0 and falls, f"{self.initial} with gravity {self.gravity:g}; give gravity, such as 1")

    @property
    def spec(self) -> DataSpec:
        """Density, velocity and pressure."""
        fields = (FieldSpec("density"), FieldSpec("velocity", 1), FieldSpec("pressure"))
        told = tuple(ParameterSpec(k, v, v) for k, v in (("gamma", self.gamma), ("gravity", self.gravity)))
        size, dt = (self.resolution,) * 2, self.stop / (self.frames - 1)
        return DataSpec("euler2d", fields, ("x", "y"), (0.0, 0.0), (1.0, 1.0), size, self.ends, self.frames, dt, told)

    @property
    def ends(self) -> tuple[Boundary, Boundary]:
        """The boundary of each axis."""
        return self.boundary, "wall" if self.gravity else self.boundary

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield frames; every grid is solved on as it is.

        Raises:
            NotFinite: a density or pressure is not positive.
        """
        size = tuple(resolution or self.spec.resolution)
        require(len(size) == 2, f"two numbers of cells, got {size}")
        law = Euler(self.gamma, gravity=self.gravity)
        solver = FiniteVolume(law, (1 / size[0], 1 / size[1]), self.ends, self.cfl)
        x = centres((0.0, 0.0), (1.0, 1.0), [FINER * n for n in size])
        u = averaged(law.conserved(_STATES[self.initial](cases, x, self.gravity)), FINER, 2)
        times = [self.spec.dt * i for i in range(self.frames)]
        for t, state in zip(times, solver.march(u, times, cases.first), strict=True):
            w = law.primitive(state)
            fields = {"density": w[:, 0], "velocity": w[:, 1:3].movedim(1, -1), "pressure": w[:, 3]}
            yield Frame(torch.full((len(cases),), t, dtype=torch.float64), fields)

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the centres of cells, ``(*S, 2)``."""
        return centres(self.spec.low, self.spec.high, resolution)


def _riemann(cases: Cases, x: Tensor, gravity: float) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of four quadrants that meet in the middle."""
    middle = torch.zeros(len(cases), *x.shape[:-1], dtype=torch.float64)
    return _quadrants(cases, x, middle, middle)


def _curved_riemann(cases: Cases, x: Tensor, gravity: float) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of four regions between two wavy lines."""
    return _quadrants(cases, x, *_waves(cases, x.flip(-1), 0.1))


def _quadrants(cases: Cases, x: Tensor, right: Tensor, up: Tensor) -> Tensor:
    """Return constant states on the four sides of two lines, displaced from the middle."""
    low, high = torch.tensor([[0.1, -1.0, -1.0, 0.1], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    states = low + (high - low) * cases.uniform((2, 2, 4), "quadrants")
    sides = [(x[..., a] >= 0.5 + shift).long() for a, shift in ((0, right), (1, up))]
    case = torch.arange(len(cases)).reshape(-1, 1, 1)
    return states[case, sides[0], sides[1]].movedim(-1, 1)


def _waves(cases: Cases, x: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Return two random sums of four waves, at most so large: of the first coordinate and of the second, ``(n, *S)`` each."""
    size, phase = (cases.uniform((2, MODES), name) for name in ("sizes", "phases"))
    size = most * size / size.sum(-1, keepdim=True)
    k = 2 * math.pi * torch.arange(1, MODES + 1, dtype=torch.float64)
    found = []
    for i in (0, 1):
        waves = torch.cos(k[:, None, None] * x[..., i] + 2 * math.pi * phase[:, i, :, None, None])
        found.append((size[:, i, :, None, None] * waves).sum(1))
    return found[0], found[1]


def _kelvin_helmholtz(cases: Cases, x: Tensor, gravity: float) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of a band with wavy edges."""
    along = torch.stack([x[..., 0]] * 2, -1)
    edges = [0.25 + 0.5 * i + wave for i, wave in enumerate(_waves(cases, along, 0.02))]
    lower, upper = (torch.tanh((x[..., 1] - edge) / EDGE) for edge in edges)
    inside = 0.5 * (lower - upper)
    return torch.stack([1 + inside, inside - 0.5, 0 * inside, 2.5 + 0 * inside], 1)


def _richtmyer_meshkov(cases: Cases, x: Tensor, gravity: float) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of a wavy circle of heavy gas around a small one of high pressure."""
    gap = x - 0.5
    radius = gap.norm(dim=-1)
    angle = torch.atan2(gap[..., 1], gap[..., 0]) / (2 * math.pi)
    edge = 0.25 + _waves(cases, torch.stack([angle] * 2, -1), 0.05)[0]
    rho, none = 1.0 + (radius < edge).double(), torch.zeros_like(edge)
    return torch.stack([rho, none, none, 1.0 + 19.0 * (radius < 0.1) + none], 1)


def _rayleigh_taylor(cases: Cases, x: Tensor, gravity: float) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of heavy gas over light gas, whose pressure carries the weight."""
    y = (x[..., 1] - 0.5) / EDGE
    rho = 1.5 + 0.5 * torch.tanh(y)
    p = 2.5 - gravity * EDGE * (1.5 * y + 0.5 * torch.log(torch.cosh(y)))
    up = _waves(cases, x, 0.1)[0] * torch.exp(-((x[..., 1] - 0.5) ** 2) / (8 * EDGE**2))
    return torch.stack([rho + 0 * up, 0 * up, up, p + 0 * up], 1)


def _gaussians(cases: Cases, x: Tensor, gravity: float) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of bumps and vortices; distances are those on the torus."""
    place, width, size = (
        cases.uniform((3, BUMPS, k), name) for k, name in ((2, "places"), (1, "widths"), (1, "sizes"))
    )
    gap = (x[:, :, None, None] - place[:, None, None] + 0.5) % 1 - 0.5
    width = 0.05 + 0.05 * width[:, None, None, ..., 0]
    bump = torch.exp(-(gap**2).sum(-1) / (2 * width**2))
    height = size[:, None, None, ..., 0]
    rho, p = (1 + (height[..., i, :] * bump[..., i, :]).sum(-1) for i in (0, 1))
    turn = (4 * height[..., 2, :] - 2) * bump[..., 2, :] / width[..., 2, :]
    return torch.stack([rho, -(turn * gap[..., 2, :, 1]).sum(-1), (turn * gap[..., 2, :, 0]).sum(-1), p], 1)


_STATES = {
    "riemann": _riemann,
    "curved-riemann": _curved_riemann,
    "kelvin-helmholtz": _kelvin_helmholtz,
    "gaussians": _gaussians,
    "richtmyer-meshkov": _richtmyer_meshkov,
    "rayleigh-taylor": _rayleigh_taylor,
}

__all__ = ["EULER", "Euler2D"]
