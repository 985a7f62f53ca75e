r"""Shallow water over a flat bed in a square.

    d_t h + div (h v) = 0 ,    d_t (h v) + div (h v v + g h^2 / 2) = 0 ,

by finite volumes (`FiniteVolume` with minmod slopes, HLLC flux and Heun steps). Initial states are at rest, of one of two kinds:

    dam-break  h = 2 within a circle of radius uniform in (0.3, 0.7), whose centre is uniform in (-1, 1)^2, and 1 outside
    random     h = 1 + 0.3 tanh(f), f a sum of waves of up to four periods along each axis with coefficients ~ 1 / (1 + k . k)

Data are cell averages of the depth, and the velocity at averages; the grid's points are centres of cells.
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
from isocline.equations.classical.finite_volume import FiniteVolume, averaged, centres
from isocline.equations.classical.shallow_water import ShallowWater
from isocline.equations.spec import EquationSpec

FINER = 4  # points along each edge of a cell that an initial state is averaged over
HALF = 2.5  # half of the square's edge
WAVES = 4
SHALLOW_WATER = EquationSpec(
    "shallow_water",
    lambda w, q, p: (
        w[0].t + w[1] * w[0].x + w[2] * w[0].y + w[0] * (w[1].x + w[2].y),
        w[1].t + w[1] * w[1].x + w[2] * w[1].y + p.g * w[0].x,
        w[2].t + w[1] * w[2].x + w[2] * w[2].y + p.g * w[0].y,
    ),
    ("depth", "velocity_x", "velocity_y"),
    ("x", "y"),
    {"g": "gravity"},
)


@dataclass(frozen=True)
class ShallowWater2D(Simulator):
    """Shallow water.

    Args:
        initial: ``"dam-break"`` or ``"random"``.
        resolution: cells along each axis.
        frames: stored frames.
        stop: time of the last frame.
        boundary: of both axes.
        g: gravity, the same for all cases.
        cfl: of the steps.

    Raises:
        InvalidInput: an unknown kind of initial state, fewer than two frames.

    Examples:
        >>> ShallowWater2D(resolution=32).spec.channels
        3
    """

    initial: Literal["dam-break", "random"] = "dam-break"
    resolution: int = 64
    frames: int = 21
    stop: float = 1.0
    boundary: Boundary = "open"
    g: float = 1.0
    cfl: float = 0.4

    equation: ClassVar[EquationSpec] = SHALLOW_WATER

    def __post_init__(self) -> None:
        require(self.initial in _DEPTHS, f"initial is one of {', '.join(_DEPTHS)}, got {self.initial!r}")
        require(self.frames >= 2 and self.stop > 0, "a run has at least two frames and a positive duration")

    @property
    def spec(self) -> DataSpec:
        """Depth and velocity."""
        fields = (FieldSpec("depth"), FieldSpec("velocity", 1))
        g = (ParameterSpec("g", self.g, self.g),)
        low, high = (-HALF, -HALF), (HALF, HALF)
        size, ends, dt = (self.resolution,) * 2, (self.boundary,) * 2, self.stop / (self.frames - 1)
        return DataSpec("swe2d", fields, ("x", "y"), low, high, size, ends, self.frames, dt, g)

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield frames; every grid is solved on as it is.

        Raises:
            NotFinite: a depth is not positive.
        """
        size = tuple(resolution or self.spec.resolution)
        require(len(size) == 2, f"two numbers of cells, got {size}")
        law = ShallowWater(self.g)
        solver = FiniteVolume(law, (2 * HALF / size[0], 2 * HALF / size[1]), (self.boundary,) * 2, self.cfl)
        x = centres(self.spec.low, self.spec.high, [FINER * n for n in size])
        depth = averaged(_DEPTHS[self.initial](cases, x), FINER, 2)
        u = torch.stack([depth, torch.zeros_like(depth), torch.zeros_like(depth)], 1)
        times = [self.spec.dt * i for i in range(self.frames)]
        for t, state in zip(times, solver.march(u, times, cases.first), strict=True):
            w = law.primitive(state)
            fields = {"depth": w[:, 0], "velocity": w[:, 1:].movedim(1, -1)}
            yield Frame(torch.full((len(cases),), t, dtype=torch.float64), fields)

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the centres of cells, ``(*S, 2)``."""
        return centres(self.spec.low, self.spec.high, resolution)


def _dam_break(cases: Cases, x: Tensor) -> Tensor:
    """Return depths ``(n, *S)``."""
    place = 2 * cases.uniform((2,), "places") - 1
    radius = 0.3 + 0.4 * cases.uniform((1,), "radii")
    within = (x - place[:, None, None]).norm(dim=-1) < radius[:, None]
    return 1 + within.double()


def _random(cases: Cases, x: Tensor) -> Tensor:
    """Return depths ``(n, *S)``."""
    k = torch.arange(-WAVES, WAVES + 1, dtype=torch.float64)
    size = 1 / (1 + k[:, None] ** 2 + k**2)
    a, b = (cases.normal((2 * WAVES + 1, 2 * WAVES + 1), name) * size for name in ("cosines", "sines"))
    angles = [math.pi / HALF * k[:, None] * line for line in (x[:, 0, 0], x[0, :, 1])]
    along, across = (torch.polar(torch.ones_like(angle), angle) for angle in angles)
    f = torch.einsum("njk,jx,ky->nxy", torch.complex(a, b), along, across).real
    return 1 + 0.3 * torch.tanh(f)


_DEPTHS = {"dam-break": _dam_break, "random": _random}

__all__ = ["SHALLOW_WATER", "ShallowWater2D"]
