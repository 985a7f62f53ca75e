r"""Compressible flow of a perfect gas in the unit square.

    d_t rho + div (rho v) = 0 ,    d_t (rho v) + div (rho v v) + grad p = 0 ,    d_t E + div ((E + p) v) = 0 ,

E = p / (gamma - 1) + rho (v . v) / 2, by finite volumes (`FiniteVolume` with minmod slopes, HLLC flux and Heun steps). Initial
states are of one of three kinds:

    riemann           four quadrants of constant states, rho and p uniform in (0.1, 1), v_a in (-1, 1)
    kelvin-helmholtz  a band of density 2 in gas of density 1 that flows against it, p = 2.5; its edges are waves
    gaussians         four Gaussian bumps of density and of pressure, and four Gaussian vortices, over gas at rest

The edges of the band have the profile ``tanh(y / 0.05)`` and are displaced by four waves of random amplitude and phase.
Data are cell averages of the density and, at those averages, velocity and pressure; the grid's points are centres of cells.
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
        w[2].t + w[1] * w[2].x + w[2] * w[2].y + w[3].y / w[0],
        w[3].t + w[1] * w[3].x + w[2] * w[3].y + p.gamma * w[3] * (w[1].x + w[2].y),
    ),
    ("density", "velocity_x", "velocity_y", "pressure"),
    ("x", "y"),
    {"gamma": "ratio of specific heats"},
)


@dataclass(frozen=True)
class Euler2D(Simulator):
    """Compressible flow.

    Args:
        initial: ``"riemann"``, ``"kelvin-helmholtz"`` or ``"gaussians"``.
        resolution: cells along each axis.
        frames: stored frames.
        stop: time of the last frame.
        boundary: of both axes.
        gamma: ratio of specific heats, the same for all cases.
        cfl: of the steps.

    Raises:
        InvalidInput: an unknown kind of initial state, fewer than two frames.

    Examples:
        >>> Euler2D(resolution=32).spec.channels
        4
    """

    initial: Literal["riemann", "kelvin-helmholtz", "gaussians"] = "riemann"
    resolution: int = 64
    frames: int = 21
    stop: float = 1.0
    boundary: Boundary = "periodic"
    gamma: float = 1.4
    cfl: float = 0.4

    equation: ClassVar[EquationSpec] = EULER

    def __post_init__(self) -> None:
        require(self.initial in _STATES, f"initial is one of {', '.join(_STATES)}, got {self.initial!r}")
        require(self.frames >= 2 and self.stop > 0, "a run has at least two frames and a positive duration")

    @property
    def spec(self) -> DataSpec:
        """Density, velocity and pressure."""
        fields = (FieldSpec("density"), FieldSpec("velocity", 1), FieldSpec("pressure"))
        gamma = (ParameterSpec("gamma", self.gamma, self.gamma),)
        size, ends, dt = (self.resolution,) * 2, (self.boundary,) * 2, self.stop / (self.frames - 1)
        return DataSpec("euler2d", fields, ("x", "y"), (0.0, 0.0), (1.0, 1.0), size, ends, self.frames, dt, gamma)

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield frames; every grid is solved on as it is.

        Raises:
            NotFinite: a density or pressure is not positive.
        """
        size = tuple(resolution or self.spec.resolution)
        require(len(size) == 2, f"two numbers of cells, got {size}")
        law = Euler(self.gamma)
        solver = FiniteVolume(law, (1 / size[0], 1 / size[1]), (self.boundary,) * 2, self.cfl)
        x = centres((0.0, 0.0), (1.0, 1.0), [FINER * n for n in size])
        u = averaged(law.conserved(_STATES[self.initial](cases, x)), FINER, 2)
        times = [self.spec.dt * i for i in range(self.frames)]
        for t, state in zip(times, solver.march(u, times, cases.first), strict=True):
            w = law.primitive(state)
            fields = {"density": w[:, 0], "velocity": w[:, 1:3].movedim(1, -1), "pressure": w[:, 3]}
            yield Frame(torch.full((len(cases),), t, dtype=torch.float64), fields)

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the centres of cells, ``(*S, 2)``."""
        return centres(self.spec.low, self.spec.high, resolution)


def _riemann(cases: Cases, x: Tensor) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of four quadrants that meet in the middle."""
    low, high = torch.tensor([[0.1, -1.0, -1.0, 0.1], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    states = low + (high - low) * cases.uniform((2, 2, 4), "quadrants")
    right, upper = ((x[..., a] >= 0.5).long() for a in (0, 1))
    return states[:, right, upper].movedim(-1, 1)


def _kelvin_helmholtz(cases: Cases, x: Tensor) -> Tensor:
    """Return primitive variables ``(n, 4, *S)`` of a band with wavy edges."""
    size, phase = (cases.uniform((2, MODES), name) for name in ("sizes", "phases"))
    size = 0.02 * size / size.sum(-1, keepdim=True)
    k = 2 * math.pi * torch.arange(1, MODES + 1, dtype=torch.float64)
    waves = torch.cos(k[:, None, None] * x[..., 0] + 2 * math.pi * phase[..., None, None])
    edges = torch.tensor([0.25, 0.75], dtype=torch.float64)[:, None, None] + (size[..., None, None] * waves).sum(2)
    lower, upper = (torch.tanh((x[..., 1] - edges[:, i]) / EDGE) for i in (0, 1))
    inside = 0.5 * (lower - upper)
    return torch.stack([1 + inside, inside - 0.5, 0 * inside, 2.5 + 0 * inside], 1)


def _gaussians(cases: Cases, x: Tensor) -> Tensor:
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


_STATES = {"riemann": _riemann, "kelvin-helmholtz": _kelvin_helmholtz, "gaussians": _gaussians}

__all__ = ["EULER", "Euler2D"]
