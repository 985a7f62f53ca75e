r"""The combined equation on a circle of length 16: between Burgers and Korteweg-de Vries, with forcing.

    u_t + alpha u u_x - beta u_xx + gamma u_xxx = f(x, t) ,    f = sum_j A_j sin(omega_j t + 2 pi l_j x / L + phi_j) ,

u(x, 0) = f(x, 0), with five waves, A in (-1/2, 1/2), omega in (-0.4, 0.4), phi in (0, 2 pi), all uniform, and l in {1, 2, 3}
(Brandstetter, Worrall and Welling, arXiv 2202.03376). The experiments differ in the coefficients, here those of the authors' code:

    E1   alpha = 1, beta = 0, gamma = 0, until t = 4
    E2   alpha = 1, beta in (0, 0.2), gamma = 0, until t = 4
    E3   alpha in (0, 6), beta in (0.1, 0.4), gamma in (0, 1), until t = 2

alpha is twice that of the paper, whose flux is ``alpha u^2``; the code draws l from {1, 2} only. Data are exact averages, over the
cells of the stored grid, of a solution on a finer one (`CombinedEquation`); the grid's points are centres of cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.classical.finite_volume import averaged, centres
from isocline.equations.classical.weno import CombinedEquation
from isocline.equations.spec import EquationSpec

LENGTH = 16.0
WAVES = 5
RANGES = {
    "E1": {"alpha": (1.0, 1.0), "beta": (0.0, 0.0), "gamma": (0.0, 0.0)},
    "E2": {"alpha": (1.0, 1.0), "beta": (0.0, 0.2), "gamma": (0.0, 0.0)},
    "E3": {"alpha": (0.0, 6.0), "beta": (0.1, 0.4), "gamma": (0.0, 1.0)},
}
STOPS = {"E1": 4.0, "E2": 4.0, "E3": 2.0}
# the forcing is random and no part of the equation that cases share: a residual gets it from `CombinedEquation1D.forcing`
COMBINED = EquationSpec(
    "combined",
    lambda u, q, p: u.t + p.alpha * u * u.x - p.beta * u.xx + p.gamma * u.xxx,
    ("u",),
    ("x",),
    {"alpha": "advection", "beta": "viscosity", "gamma": "dispersion"},
)


@dataclass(frozen=True)
class CombinedEquation1D(Simulator):
    """The combined equation.

    Args:
        experiment: ``"E1"``, ``"E2"`` or ``"E3"``.
        resolution: stored cells.
        frames: stored frames.
        fine: cells, at least, of the grid that is solved on; the next multiple of the stored ones is taken.
        forced: whether the waves of the initial state also force the solution.
        cfl: of the steps.

    Raises:
        InvalidInput: an unknown experiment, fewer than two frames.

    Examples:
        >>> [p.name for p in CombinedEquation1D("E3").spec.parameters]
        ['alpha', 'beta', 'gamma']
    """

    experiment: Literal["E1", "E2", "E3"] = "E1"
    resolution: int = 100
    frames: int = 250
    fine: int = 1600
    forced: bool = True
    cfl: float = 0.6

    equation: ClassVar[EquationSpec] = COMBINED

    def __post_init__(self) -> None:
        require(self.experiment in RANGES, f"the experiment is E1, E2 or E3, got {self.experiment!r}")
        require(self.frames >= 2, f"a run has at least two frames, got {self.frames}")
        require(min(self.resolution, self.fine) >= 5, "at least five cells")

    @property
    def spec(self) -> DataSpec:
        """The one field u."""
        ranges = RANGES[self.experiment].items()
        parameters = tuple(ParameterSpec(name, *ends) for name, ends in ranges)
        dt = STOPS[self.experiment] / (self.frames - 1)
        ends = (0.0,), (LENGTH,)
        return DataSpec(
            "ce1d", (FieldSpec("u"),), ("x",), *ends, (self.resolution,), ("periodic",), self.frames, dt, parameters
        )

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield averages over `resolution` cells of the solution on a finer grid.

        Raises:
            NotFinite: the solution is not finite.
        """
        (n,) = resolution or self.spec.resolution
        blocks = -(-self.fine // n)
        forcing = self.forcing(cases, n * blocks)
        p = cases.parameters
        solver = CombinedEquation(
            LENGTH, p["alpha"], p["beta"], p["gamma"], forcing if self.forced else None, cfl=self.cfl
        )
        start = torch.zeros(len(cases), dtype=torch.float64)
        times = [self.spec.dt * i for i in range(self.frames)]
        for t, u in zip(times, solver.march(forcing(start), times, cases.first), strict=True):
            yield Frame(start + t, {"u": averaged(u, blocks, 1)})

    def forcing(self, cases: Cases, cells: int) -> Callable[[Tensor], Tensor]:
        """Return f as a function of times (n,): its averages over `cells` cells, (n, cells)."""
        size, turn, phase = (cases.uniform((WAVES,), name) for name in ("sizes", "frequencies", "phases"))
        k = 2 * math.pi / LENGTH * (1 + (3 * cases.uniform((WAVES,), "waves")).floor())
        size, turn, phase = size - 0.5, 0.8 * (turn - 0.5), 2 * math.pi * phase
        half = 0.5 * LENGTH / cells
        size = size * torch.sin(k * half) / (k * half)  # the average of a sine over a cell
        angle = k[..., None] * centres((0.0,), (LENGTH,), (cells,))[:, 0]
        sines, cosines = torch.sin(angle), torch.cos(angle)

        def at(t: Tensor) -> Tensor:
            late = turn * t[:, None] + phase
            weights = torch.stack([size * torch.cos(late), size * torch.sin(late)], 1)
            return torch.einsum("njx,nj->nx", sines, weights[:, 0]) + torch.einsum("njx,nj->nx", cosines, weights[:, 1])

        return at

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the centres of cells, (N, 1)."""
        return centres((0.0,), (LENGTH,), resolution)


__all__ = ["COMBINED", "CombinedEquation1D"]
