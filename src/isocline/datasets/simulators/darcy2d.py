r"""Steady flow through random media on the unit square, zero pressure at its sides.

    -div(a grad u) = f ,      a = psi(g)

g is a Gaussian field with the covariance ``(-Laplacian + 9)^{-2}`` for insulated sides and without its mean, so a sum of cosines
with independent coefficients of standard deviation ``1 / (pi^2 |k|^2 + 9)``, scaled to a mean variance of 1. As in Li et al. (arXiv
2010.08895), f = 1, and psi is 12 where g is positive and 3 elsewhere; or ``exp(spread g)``. `DarcyTensor2D` has what covariance
augmentation needs: a smooth tensor ``a = exp(S)`` for a symmetric S of such fields, and a smooth f.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import DataSpec, FieldSpec, Frame
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.classical.darcy import solve_darcy
from isocline.equations.spec import EquationSpec

WAVES = 32  # an axis, of rough fields
SMOOTH = 5  # of smooth ones


@dataclass(frozen=True)
class Darcy2D(Simulator):
    """Permeability to pressure, with a source of 1.

    Args:
        resolution: cells an axis.
        levels: the two values of a; None for a lognormal one.
        spread: standard deviation of log a, where it is lognormal.

    Raises:
        InvalidInput: a level is not positive.
    """

    resolution: int = 64
    levels: tuple[float, float] | None = (3.0, 12.0)
    spread: float = 0.5

    equation: ClassVar[EquationSpec] = EquationSpec(
        "darcy", lambda f, q, p: -(f[1] * (f[0].xx + f[0].yy) + f[1].x * f[0].x + f[1].y * f[0].y) - 1.0,
        ("u", "a"), ("x", "y"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        require(self.levels is None or min(self.levels) > 0, f"levels of a must be positive, got {self.levels}")
        require(self.spread >= 0, f"spread is a standard deviation, at least 0, got {self.spread:g}")

    @property
    def spec(self) -> DataSpec:
        """The pressure ``u``, which is to be predicted, and the permeability ``a``."""
        return _spec("darcy2d", self.resolution, FieldSpec("a", varies=False))

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the one frame (n, x, y)."""
        a = self.constants(cases, resolution=resolution)["a"]
        yield _steady(solve_darcy(a, torch.ones_like(a[0])))

    def constants(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return ``a``, (n, x, y)."""
        g = _waves(cases.normal((WAVES, WAVES), "a"), resolution or self.spec.resolution, _rough())
        if self.levels is None:
            return {"a": torch.exp(self.spread * g)}
        low, high = (torch.tensor(level, dtype=torch.float64) for level in self.levels)
        return {"a": torch.where(g >= 0, high, low)}


@dataclass(frozen=True)
class DarcyTensor2D(Simulator):
    """A smooth tensor and a smooth source to pressure.

    Args:
        resolution: cells an axis.
        spread: standard deviation of the entries of log a.
    """

    resolution: int = 64
    spread: float = 0.5

    equation: ClassVar[EquationSpec] = EquationSpec(
        "darcy_tensor",
        lambda f, q, p: (
            -(f[1] * f[0].xx + 2 * f[2] * f[0].xy + f[3] * f[0].yy)
            - (f[1].x + f[2].y) * f[0].x - (f[2].x + f[3].y) * f[0].y - f[4]
        ),
        ("u", "a_xx", "a_xy", "a_yy", "f"), ("x", "y"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        require(self.spread >= 0, f"spread is a standard deviation, at least 0, got {self.spread:g}")

    @property
    def spec(self) -> DataSpec:
        """The pressure ``u``, which is to be predicted, the tensor ``a`` and the source ``f``."""
        return _spec("darcy2d_tensor", self.resolution, FieldSpec("a", 2, varies=False), FieldSpec("f", varies=False))

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the one frame (n, x, y)."""
        given = self.constants(cases, resolution=resolution)
        yield _steady(solve_darcy(given["a"], given["f"]))

    def constants(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return ``a`` (n, x, y, 2, 2) and ``f`` (n, x, y)."""
        sizes = resolution or self.spec.resolution
        entries = _waves(cases.normal((3, SMOOTH, SMOOTH), "a"), sizes, _gentle())
        f = _waves(cases.normal((SMOOTH, SMOOTH), "f"), sizes, _gentle())
        return {"a": _exponential(self.spread * entries), "f": f}


def _spec(name: str, resolution: int, *constants: FieldSpec) -> DataSpec:
    grid = (("x", "y"), (0.0, 0.0), (1.0, 1.0), (resolution,) * 2, ("wall",) * 2)
    return DataSpec(name, (FieldSpec("u"), *constants), *grid, 1, 0.0)  # type: ignore[arg-type]


def _steady(u: Tensor) -> Frame:
    return Frame(torch.zeros(len(u), dtype=torch.float64), {"u": u})


def _waves(draws: Tensor, sizes: Sequence[int], size: Tensor) -> Tensor:
    """Return fields (..., x, y) of mean variance 1 in the middle of cells, the same functions on every grid.

    Args:
        draws: standard normal, (..., M, M), one for each cosine.
        sizes: cells along both axes.
        size: standard deviation of each normalised cosine, (M, M), up to a factor.
    """
    k = torch.arange(len(size), dtype=torch.float64)
    norms = torch.where(k > 0, 2**0.5, 1.0)
    x, y = (norms * torch.cos(math.pi * k * (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n) for n in sizes)
    return x @ (draws * size / size.norm()) @ y.T


def _squares(m: int) -> Tensor:
    """Return ``|k|^2``, (m, m)."""
    k2 = torch.arange(m, dtype=torch.float64).square()
    return k2[:, None] + k2


def _rough() -> Tensor:
    size = 1 / (math.pi**2 * _squares(WAVES) + 9)
    size[0, 0] = 0.0
    return size


def _gentle() -> Tensor:
    return torch.exp(-_squares(SMOOTH) / 4)


def _exponential(entries: Tensor) -> Tensor:
    """Return exp(S), (n, x, y, 2, 2), for ``S_11, S_12, S_22`` in (n, 3, x, y)."""
    p, r, q = entries.unbind(1)
    mean, half = (p + q) / 2, (p - q) / 2
    size = torch.hypot(half, r)
    ratio = torch.where(size > 1e-8, torch.sinh(size) / size.clamp_min(1e-8), torch.ones_like(size))
    even = torch.cosh(size)
    rows = [even + ratio * half, ratio * r, ratio * r, even - ratio * half]
    return (torch.stack(rows, -1) * torch.exp(mean).unsqueeze(-1)).unflatten(-1, (2, 2))
