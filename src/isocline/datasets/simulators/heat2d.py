r"""A plate that is heated from its sides: the heat equation on the unit square, solved exactly.

    u_t = D (u_xx + u_yy) ,   u = T_left, T_right, T_bottom, T_top on the sides,   u = T_0 at t = 0 ,

five random temperatures, as in the heat example of Meyer et al. (arXiv 2306.16133). With phi_s the solution for a side of
temperature 1 and everything else 0, u = T_0 + sum_s (T_s - T_0) phi_s, and for the left side, odd m,

    phi = sum_m 4 / (m pi) sin(m pi y) [ sinh(m pi (1 - x)) / sinh(m pi)
                                         - sum_n 2 n / (pi (n^2 + m^2)) sin(n pi x) exp(-D pi^2 (n^2 + m^2) t) ] .

The sums stop where their terms fall below rounding, so solutions on all grids agree at shared points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.spec import EquationSpec

TEMPERATURES = ("initial", "left", "right", "bottom", "top")
DIGITS = 40.0  # terms below exp(-40) of the largest are left out


@dataclass(frozen=True)
class Heat2D(Simulator):
    """Five temperatures and their plate.

    Args:
        resolution: points along each axis, in the middle of cells.
        times: frames, the first at t = 0.
        dt: seconds between them.
        diffusivity: D, in squared sides a second.
        low: least temperature, in kelvin.
        high: largest temperature.

    Raises:
        InvalidInput: D or dt is not positive.
    """

    resolution: tuple[int, int] = (32, 32)
    times: int = 101
    dt: float = 0.01
    diffusivity: float = 1.0
    low: float = 100.0
    high: float = 500.0

    equation: ClassVar[EquationSpec] = EquationSpec(
        "heat2d",
        lambda u, q, p: u.t - p.diffusivity * (u.xx + u.yy),
        ("u",),
        ("x", "y"),
        {"diffusivity": "how fast differences of temperature even out"},
    )

    def __post_init__(self) -> None:
        require(
            self.diffusivity > 0 and self.dt > 0,
            f"diffusivity and dt must be positive, got {self.diffusivity:g} and {self.dt:g}",
        )

    @property
    def spec(self) -> DataSpec:
        """What its data hold."""
        drawn = [ParameterSpec(name, self.low, self.high) for name in TEMPERATURES]
        known = ParameterSpec("diffusivity", self.diffusivity, self.diffusivity)
        square = (0.0, 0.0), (1.0, 1.0)
        fields = (FieldSpec("u", units="K"),)
        size, walls = tuple(self.resolution), ("wall", "wall")
        return DataSpec("heat2d", fields, ("x", "y"), *square, size, walls, self.times, self.dt, (*drawn, known))  # type: ignore[arg-type]

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield ``times`` frames."""
        size = tuple(resolution or self.resolution)
        x, y = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in size)
        start, *sides = (cases.parameters[name] for name in TEMPERATURES)
        jumps = torch.stack(sides, 1) - start.unsqueeze(1)
        left, bottom = _Side(x, y), _Side(y, x)
        for k in range(self.times):
            t = k * self.dt
            across, along = left.at(self.diffusivity * t), bottom.at(self.diffusivity * t).T
            phi = torch.stack([across, across.flip(0), along, along.flip(1)])
            u = start[:, None, None] + torch.tensordot(jumps, phi, 1)
            yield Frame(torch.full((len(cases),), t, dtype=torch.float64), {"u": u})


class _Side:
    """Phi of a side at x = 0, on a grid of points inside (0, 1); what does not depend on time is kept."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        m = torch.arange(1, math.ceil(DIGITS / (math.pi * float(x.min()))) + 2, 2, dtype=torch.float64)
        self.x, self.m = x, m
        self.waves = torch.sin(math.pi * m.unsqueeze(1) * y) * (4 / (math.pi * m)).unsqueeze(1)
        self.steady = _steep(math.pi * m, x) @ self.waves

    def at(self, t: float) -> Tensor:
        """Return phi at D t, (X, Y)."""
        if t == 0:
            return torch.zeros_like(self.steady)
        most = math.ceil(math.sqrt(DIGITS / t) / math.pi) + 1
        n, m = torch.arange(1, most + 1, dtype=torch.float64), self.m[self.m <= most]
        both = n.square().unsqueeze(1) + m.square()
        weights = 2 * n.unsqueeze(1) / (math.pi * both) * torch.exp(-(math.pi**2) * both * t)
        return self.steady - torch.sin(math.pi * self.x.unsqueeze(1) * n) @ weights @ self.waves[: len(m)]


def _steep(k: Tensor, x: Tensor) -> Tensor:
    """Return sinh(k (1 - x)) / sinh(k), (X, K), without overflow."""
    up = torch.exp(-k * x.unsqueeze(1)) - torch.exp(-k * (2 - x.unsqueeze(1)))
    return up / -torch.expm1(-2 * k)
