r"""The Kuramoto-Sivashinsky equation, ``u_t + u u_x + u_xx + nu u_xxxx = 0``: chaos on a circle.

Length and time step differ between cases (Brandstetter, Welling, Worrall, arXiv 2202.07643; Lippe et al., arXiv 2308.05732). A case
starts from sines of the three longest waves, and its first frame comes after a warm-up in which it forgets them.
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
from isocline.equations.classical.spectral_march import SpectralMarch, Torus
from isocline.equations.spec import EquationSpec

SINES, LONGEST = 10, 3


@dataclass(frozen=True)
class KS1D(Simulator):
    """Trajectories of the Kuramoto-Sivashinsky equation.

    Args:
        resolution: points.
        frames: stored frames.
        length: L, the mean over cases.
        dt: between frames, the mean over cases.
        spread: share by which L and dt differ at most.
        nu: viscosity.
        warmup: time before the first frame, in units of ``dt / 0.2`` of the case.
        substeps: steps between frames.
    """

    resolution: int = 256
    frames: int = 140
    length: float = 64.0
    dt: float = 0.2
    spread: float = 0.1
    nu: float = 1.0
    warmup: float = 100.0
    substeps: int = 4

    equation: ClassVar[EquationSpec] = EquationSpec(
        "kuramoto-sivashinsky",
        lambda u, q, p: u.t + u * u.x + u.xx + p.nu * u.xxxx,
        ("u",),
        ("x",),
        {"nu": "viscosity"},
    )

    def __post_init__(self) -> None:
        require(0 <= self.spread < 1, f"the spread is a share below 1, got {self.spread:g}")
        require(self.substeps >= 1 and self.nu > 0, f"substeps and nu must be positive, got {self}")

    @property
    def spec(self) -> DataSpec:
        """One field ``u``; the parameters are L, dt and nu."""
        about = [
            (name, mean * (1 - self.spread), mean * (1 + self.spread))
            for name, mean in (("L", self.length), ("dt", self.dt))
        ]
        parameters = (*(ParameterSpec(*each) for each in about), ParameterSpec("nu", self.nu, self.nu))
        grid = (("x",), (0.0,), (self.length,), (self.resolution,), ("periodic",))
        return DataSpec("ks1d", (FieldSpec("u"),), *grid, self.frames, self.dt, parameters)  # type: ignore[arg-type]

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames (n, x)."""
        torus = self._torus(cases, resolution)
        dt = cases.parameters["dt"]
        march, w = self.march(torus, cases), torus.coefficients(self._first(cases, torus)) * torus.kept()
        w = march.advance(w, round(self.warmup / 0.2) * self.substeps)
        for k in range(self.frames):
            yield Frame(k * dt, {"u": torus.values(w)})
            if k < self.frames - 1:
                w = march.advance(w, self.substeps)

    def march(self, torus: Torus, cases: Cases) -> SpectralMarch:
        """Return the steps; time is counted in frames, so that cases of other dt march together."""
        k, kept, dt = torus.wave(0), torus.kept(), cases.parameters["dt"][:, None]
        linear = dt * (-(k**2) - cases.parameters["nu"][:, None] * k**4)

        def nonlinear(t: Tensor, w: Tensor) -> Tensor:
            return -0.5 * dt * k * kept * torus.coefficients(torus.values(w).square())

        return SpectralMarch(linear.real, nonlinear, 1 / self.substeps)

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the points (n, x, 1): each case has its own length."""
        unit = torch.arange(resolution[0], dtype=torch.float64) / resolution[0]
        return (cases.parameters["L"][:, None] * unit)[..., None]

    def _torus(self, cases: Cases, resolution: Sequence[int] | None) -> Torus:
        return Torus(tuple(resolution or (self.resolution,)), cases.parameters["L"][:, None])

    def _first(self, cases: Cases, torus: Torus) -> Tensor:
        drawn = cases.uniform((3, SINES), "sines")
        amplitude, phase = drawn[:, 0] - 0.5, 2 * math.pi * drawn[:, 1]
        waves = 1 + (LONGEST * drawn[:, 2]).floor()
        s = torch.arange(torus.sizes[0], dtype=torch.float64) / torus.sizes[0]
        return (amplitude[..., None] * torch.sin(2 * math.pi * waves[..., None] * s + phase[..., None])).sum(1)
