r"""Forced two-dimensional flow on a torus: the bed of the Fourier neural operator, and Kolmogorov flow.

    w_t + u . grad w = nu Laplacian w - drag w + f

`NS2DForced` is that of Li et al. (arXiv 2010.08895): the unit torus, ``f = 0.1 (sin + cos)(2 pi (x + y))``, starts of covariance
``7^{3/2} (-Laplacian + 49)^{-5/2}``. `Kolmogorov2D` is that of Kochkov et al. (PNAS 118 (2021) e2101784118): a torus of length
2 pi, the force ``sin(4 y)`` along x, drag 0.1, and frames that are box averages of a finer simulation.
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
from isocline.equations.classical.spectral_march import Torus, random_waves
from isocline.equations.classical.vorticity import velocity, vorticity_march
from isocline.equations.spec import EquationSpec

WAVES = 16  # an axis, of the starts


@dataclass(frozen=True)
class NS2DForced(Simulator):
    """Vorticity of forced flow on the unit torus.

    Args:
        resolution: points an axis.
        frames: stored frames, one time unit apart.
        low: the smallest viscosity.
        high: the largest; drawn by its logarithm.
        h: the step in time.
    """

    resolution: int = 64
    frames: int = 21
    low: float = 1e-3
    high: float = 1e-3
    h: float = 0.01

    equation: ClassVar[EquationSpec] = EquationSpec(
        "vorticity",
        lambda f, q, p: (
            f[0].t + f[1].y * f[0].x - f[1].x * f[0].y - p.nu * (f[0].xx + f[0].yy)
            - 0.1 * (torch.sin(2 * math.pi * (q.x + q.y)) + torch.cos(2 * math.pi * (q.x + q.y))),
            f[0] + f[1].xx + f[1].yy,
        ),
        ("w", "psi"),
        ("x", "y"),
        {"nu": "viscosity"},
    )  # fmt: skip

    def __post_init__(self) -> None:
        require(
            abs(round(1 / self.h) * self.h - 1) < 1e-9, f"one time unit is a whole number of steps, got h = {self.h:g}"
        )

    @property
    def spec(self) -> DataSpec:
        """One field, the vorticity ``w``, and the viscosity ``nu``."""
        nu = ParameterSpec("nu", self.low, self.high, log=True)
        grid = (("x", "y"), (0.0, 0.0), (1.0, 1.0), (self.resolution,) * 2, ("periodic",) * 2)
        return DataSpec("ns2d_forced", (FieldSpec("w", units="1/s"),), *grid, self.frames, 1.0, (nu,))  # type: ignore[arg-type]

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames (n, x, y)."""
        torus = Torus(tuple(resolution or self.spec.resolution), torch.ones(2, dtype=torch.float64))
        draws = cases.normal((2, WAVES, 2 * WAVES), "start")
        w = random_waves(draws, torus, lambda k2: 7**0.75 * (k2 + 49) ** -1.25)
        x, y = _grid(torus)
        phase = 2 * math.pi * (x + y)
        force = 0.1 * (torch.sin(phase) + torch.cos(phase))
        march = vorticity_march(torus, cases.parameters["nu"], self.h, forcing=force)
        c = torus.coefficients(w) * torus.kept()
        for k in range(self.frames):
            yield Frame(torch.full((len(cases),), float(k), dtype=torch.float64), {"w": torus.values(c)})
            if k < self.frames - 1:
                c = march.advance(c, round(1 / self.h))


@dataclass(frozen=True)
class Kolmogorov2D(Simulator):
    """Velocity of Kolmogorov flow, box averages of a finer simulation.

    Args:
        resolution: points an axis, as stored.
        factor: how many times as many the simulation has.
        frames: stored frames.
        dt: between frames.
        nu: viscosity.
        drag: linear friction.
        warmup: time before the first frame.
        h: the step in time, which divides `dt`.
    """

    resolution: int = 64
    factor: int = 2
    frames: int = 100
    dt: float = 0.1
    nu: float = 1e-3
    drag: float = 0.1
    warmup: float = 20.0
    h: float = 0.005

    equation: ClassVar[EquationSpec] = EquationSpec(
        "kolmogorov",
        lambda f, q, p: (
            f[0].t + f[0] * f[0].x + f[1] * f[0].y + f[2].x - p.nu * (f[0].xx + f[0].yy) + p.drag * f[0] - torch.sin(4 * q.y),
            f[1].t + f[0] * f[1].x + f[1] * f[1].y + f[2].y - p.nu * (f[1].xx + f[1].yy) + p.drag * f[1],
            f[0].x + f[1].y,
        ),
        ("velocity_x", "velocity_y", "pressure"),
        ("x", "y"),
        {"nu": "viscosity", "drag": "linear friction"},
    )  # fmt: skip

    def __post_init__(self) -> None:
        require(self.factor >= 1, f"the simulation is at least as fine as what is stored, got factor {self.factor}")
        steps = self.dt / self.h
        require(abs(round(steps) - steps) < 1e-9, f"dt is a whole number of steps h, got {self.dt:g} and {self.h:g}")

    @property
    def spec(self) -> DataSpec:
        """One vector field ``velocity``; viscosity and drag are the same for all cases."""
        parameters = (ParameterSpec("nu", self.nu, self.nu), ParameterSpec("drag", self.drag, self.drag))
        grid = (("x", "y"), (0.0, 0.0), (2 * math.pi,) * 2, (self.resolution,) * 2, ("periodic",) * 2)
        fields = (FieldSpec("velocity", order=1, units="m/s"),)
        return DataSpec("kolmo2d", fields, *grid, self.frames, self.dt, parameters)  # type: ignore[arg-type]

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames (n, x, y, 2)."""
        stored = tuple(resolution or self.spec.resolution)
        torus = Torus(tuple(self.factor * n for n in stored), torch.full((2,), 2 * math.pi, dtype=torch.float64))
        draws = cases.normal((2, WAVES, 2 * WAVES), "start")
        c = torus.coefficients(random_waves(draws, torus, _peaked)) * torus.kept()
        force = -4 * torch.cos(4 * _grid(torus)[1])
        march = vorticity_march(torus, cases.parameters["nu"], self.h, drag=self.drag, forcing=force)
        c = march.advance(c, round(self.warmup / self.h))
        for k in range(self.frames):
            t = torch.full((len(cases),), k * self.dt, dtype=torch.float64)
            u = torch.stack([torus.values(part) for part in velocity(c, torus)], -1)
            yield Frame(t, {"velocity": self._averaged(u)})
            if k < self.frames - 1:
                c = march.advance(c, round(self.dt / self.h))

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the middles of the boxes that are averaged."""
        shift = (self.factor - 1) / 2 / self.factor
        lines = [2 * math.pi * (torch.arange(n, dtype=torch.float64) + shift) / n for n in resolution]
        return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)

    def _averaged(self, u: Tensor) -> Tensor:
        """Return the means over boxes of factor x factor points."""
        f = self.factor
        return u.unflatten(2, (-1, f)).mean(3).unflatten(1, (-1, f)).mean(2)


def _peaked(k2: Tensor) -> Tensor:
    """Return the size of a start's waves: a ring around wave number 4, of velocities of order 1."""
    return torch.where((k2 >= 4) & (k2 <= 36), torch.full_like(k2, 0.7), torch.zeros_like(k2))


def _grid(torus: Torus) -> tuple[Tensor, Tensor]:
    lines = [
        length * torch.arange(n, dtype=torch.float64) / n for n, length in zip(torus.sizes, torus.lengths, strict=True)
    ]
    x, y = torch.meshgrid(*lines, indexing="ij")
    return x, y
