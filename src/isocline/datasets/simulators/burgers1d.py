r"""Burgers' equation, ``u_t + u u_x = nu u_xx`` on a circle of length 1: from the start to time 1.

Starts are Gaussian fields with the covariance ``625 (-Laplacian + 25)^{-2}`` and mean zero, as in Li et al. (arXiv 2010.08895).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.classical.spectral_march import SpectralMarch, Torus, random_waves
from isocline.equations.spec import EquationSpec

WAVES = 128  # of the starts


@dataclass(frozen=True)
class Burgers1D(Simulator):
    """Pairs of a start and the solution at time 1, or more frames between.

    Args:
        resolution: points.
        frames: stored frames, from time 0 to 1.
        low: the smallest viscosity.
        high: the largest; drawn by its logarithm.
        steps: from time 0 to 1, a multiple of ``frames - 1``.
    """

    resolution: int = 1024
    frames: int = 2
    low: float = 0.1
    high: float = 0.1
    steps: int = 200

    equation: ClassVar[EquationSpec] = EquationSpec(
        "burgers", lambda u, q, p: u.t + u * u.x - p.nu * u.xx, ("u",), ("x",), {"nu": "viscosity"}
    )

    def __post_init__(self) -> None:
        require(self.frames >= 2, f"there are at least two frames, got {self.frames}")
        require(self.steps % (self.frames - 1) == 0, f"steps must be a multiple of {self.frames - 1}, got {self.steps}")

    @property
    def spec(self) -> DataSpec:
        """One field ``u`` and the viscosity ``nu``."""
        nu = ParameterSpec("nu", self.low, self.high, log=True)
        grid = (("x",), (0.0,), (1.0,), (self.resolution,), ("periodic",))
        return DataSpec("burgers1d", (FieldSpec("u"),), *grid, self.frames, 1 / (self.frames - 1), (nu,))  # type: ignore[arg-type]

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames (n, x)."""
        torus = Torus(tuple(resolution or (self.resolution,)), torch.ones(1, dtype=torch.float64))
        u = random_waves(cases.normal((2, WAVES), "start"), torus, lambda k2: 25 / (k2 + 25))
        k, kept = torus.wave(0), torus.kept()

        def nonlinear(t: Tensor, w: Tensor) -> Tensor:
            return -0.5 * k * kept * torus.coefficients(torus.values(w).square())

        march = SpectralMarch(cases.parameters["nu"][:, None] * torus.laplacian(), nonlinear, 1 / self.steps)
        w, every = torus.coefficients(u) * kept, self.steps // (self.frames - 1)
        for k_frame in range(self.frames):
            t = torch.full((len(cases),), k_frame / (self.frames - 1), dtype=torch.float64)
            yield Frame(t, {"u": torus.values(w)})
            if k_frame < self.frames - 1:
                w = march.advance(w, every)
