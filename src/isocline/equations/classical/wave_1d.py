r"""Waves on an interval by Chebyshev collocation in space and Gauss-Legendre steps in time.

    d_t u = v ,    d_t v = c^2 d_xx u ,    u = 0 (Dirichlet) or d_x u = 0 (Neumann) at each end

u is a polynomial of degree N through its values at the points ``x_j = cos(pi j / N)``, moved to the interval; those at the two ends
follow from the others by the conditions. What is left is linear, ``y' = A y`` with y the values of u and v inside. The step of the
two-stage Gauss-Legendre method, of fourth order, is the diagonal Pade approximation of ``exp(z)``, z = h A,

    y' = (1 - z / 2 + z^2 / 12)^-1 (1 + z / 2 + z^2 / 12) y .

All eigenvalues of A are imaginary (Gottlieb and Lustman, SIAM J. Numer. Anal. 20 (1983) 909), and so no step, however long, makes a
mode grow or decay. The matrix of many steps is a power, by repeated squaring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from isocline._core.errors import require

End = Literal["dirichlet", "neumann"]


@dataclass(frozen=True)
class Wave:
    """A wave equation on an interval.

    Args:
        low: left end.
        high: right end.
        c: speed.
        left: condition at the left end.
        right: condition at the right end.
        degree: N, at least 4; there are N + 1 points.

    Raises:
        InvalidInput: numbers out of their range.

    Examples:
        >>> wave = Wave(0.0, math.pi, c=1.0, degree=24)
        >>> u, v = wave.advance(torch.sin(wave.x)[None], 0 * wave.x[None], wave.propagator(1.0, 32))
        >>> bool((u - math.cos(1) * torch.sin(wave.x)).abs().max() < 1e-8)
        True
    """

    low: float = -8.0
    high: float = 8.0
    c: float = 2.0
    left: End = "dirichlet"
    right: End = "dirichlet"
    degree: int = 128

    def __post_init__(self) -> None:
        require(self.low < self.high, f"the interval is empty: {self.low}, {self.high}")
        require(self.c > 0, f"the speed must be positive, got {self.c}")
        require(self.degree >= 4, f"the degree must be at least 4, got {self.degree}")
        known = {self.left, self.right} <= {"dirichlet", "neumann"}
        require(known, f"an end is dirichlet or neumann, got {self.left} and {self.right}")

    @cached_property
    def x(self) -> Tensor:
        """The points, from the left end on, (N + 1,)."""
        return chebyshev_points(self.low, self.high, self.degree + 1)

    @cached_property
    def slope(self) -> Tensor:
        """The matrix of d_x at the points, (N + 1, N + 1)."""
        return differentiation(self.x)

    @cached_property
    def _ends(self) -> Tensor:
        """The matrix that gives the values at the two ends from those inside, (2, N - 1)."""
        rows = torch.zeros(2, self.degree + 1, dtype=torch.float64)
        for row, place, kind in ((0, 0, self.left), (1, self.degree, self.right)):
            rows[row] = (
                self.slope[place] if kind == "neumann" else torch.eye(self.degree + 1, dtype=torch.float64)[place]
            )
        return -torch.linalg.solve(rows[:, [0, -1]], rows[:, 1:-1])

    @cached_property
    def generator(self) -> Tensor:
        """A, (2 N - 2, 2 N - 2)."""
        one = torch.eye(self.degree - 1, dtype=torch.float64)
        full = torch.cat([self._ends[:1], one, self._ends[1:]])
        second = (self.slope @ self.slope @ full)[1:-1]
        zero = torch.zeros_like(one)
        return torch.cat([torch.cat([zero, one], 1), torch.cat([self.c**2 * second, zero], 1)])

    def propagator(self, dt: float, steps: int) -> Tensor:
        """Return the matrix of a time `dt` in `steps` steps."""
        require(steps >= 1, f"at least one step, got {steps}")
        z = self.generator * (dt / steps)
        one = torch.eye(len(z), dtype=torch.float64)
        even, odd = one + z @ z / 12, z / 2
        found: Tensor = torch.linalg.matrix_power(torch.linalg.solve(even - odd, even + odd), steps)
        return found

    def advance(self, u: Tensor, v: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and v, (n, N + 1) each, after the time of a propagator."""
        y = torch.cat([u[:, 1:-1], v[:, 1:-1]], 1) @ matrix.T
        inner = y.split(self.degree - 1, 1)
        ends = [part @ self._ends.T for part in inner]
        found = [torch.cat([e[:, :1], part, e[:, 1:]], 1) for e, part in zip(ends, inner, strict=True)]
        return found[0], found[1]

    def energy(self, u: Tensor, v: Tensor) -> Tensor:
        """Return ``1/2 integral of v^2 + c^2 u_x^2``, (n,), by Clenshaw and Curtis's rule."""
        return 0.5 * (v**2 + self.c**2 * (u @ self.slope.T) ** 2) @ self._weights

    @cached_property
    def _weights(self) -> Tensor:
        """Weights of the rule: integrals of the polynomials through unit values, (N + 1,)."""
        n = self.degree
        angles = torch.arange(n + 1, dtype=torch.float64) * math.pi / n
        k = torch.arange(0, n + 1, 2, dtype=torch.float64)
        moments = 2 / (1 - k**2) * torch.where((k == 0) | (k == n), 0.5, 1.0)
        edge = torch.ones(n + 1, dtype=torch.float64)
        edge[[0, -1]] = 0.5
        return (self.high - self.low) / n * edge * (torch.cos(angles[:, None] * k) @ moments)


def chebyshev_points(low: float, high: float, n: int) -> Tensor:
    """Return n extreme points of a Chebyshev polynomial on an interval, in increasing order, both ends included.

    Examples:
        >>> chebyshev_points(-1.0, 1.0, 3).tolist()
        [-1.0, 0.0, 1.0]
    """
    # the sine is odd to the last bit, so that the points are symmetric
    s = torch.sin(math.pi / 2 * (2 * torch.arange(n, dtype=torch.float64) - (n - 1)) / (n - 1))
    return 0.5 * (low + high) + 0.5 * (high - low) * s


def differentiation(x: Tensor) -> Tensor:
    """Return the matrix that takes values at Chebyshev points (n,) to slopes of their polynomial there, (n, n)."""
    n = len(x)
    weights = _barycentric(n)
    gaps = x[:, None] - x + torch.eye(n, dtype=torch.float64)
    found = weights / weights[:, None] / gaps
    found.fill_diagonal_(0.0)
    # rows sum to zero: constants have no slope, and rounding is smaller so
    return found - torch.diag(found.sum(1))


def interpolation(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix that takes values at Chebyshev points x, (n,), to those of their polynomial at y, (m, n)."""
    gaps = y[:, None] - x
    hit = gaps == 0
    parts = _barycentric(len(x)) / torch.where(hit, 1.0, gaps)
    found = parts / parts.sum(1, keepdim=True)
    return torch.where(hit.any(1, keepdim=True), hit.double(), found)


def _barycentric(n: int) -> Tensor:
    weights = (-1.0) ** torch.arange(n, dtype=torch.float64)
    weights[[0, -1]] *= 0.5
    return weights


__all__ = ["End", "Wave", "chebyshev_points", "differentiation", "interpolation"]
