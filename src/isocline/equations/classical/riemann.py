r"""The exact solution of the Riemann problem of a perfect gas: two constant states that meet at x = 0, at t = 0.

The pressure p between the two outer waves is the root of ``f_L(p) + f_R(p) + v_R - v_L = 0`` (Toro, Riemann Solvers and Numerical
Methods for Fluid Dynamics, 2009, chapter 4), where for each side K, with a the speed of sound,

    shock, p > p_K:   f_K = (p - p_K) sqrt(A / (p + B)) ,    A = 2 / ((gamma + 1) rho_K) ,    B = (gamma - 1) / (gamma + 1) p_K ,

    rarefaction:      f_K = 2 a_K / (gamma - 1) ((p / p_K)^((gamma - 1) / (2 gamma)) - 1) .

f is concave and grows, and the root is found by bisection in the logarithm of p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require

State = tuple[float, float, float]


@dataclass(frozen=True)
class Riemann:
    """A Riemann problem.

    Args:
        left: density, velocity, pressure.
        right: the same.
        gamma: ratio of specific heats.

    Raises:
        InvalidInput: a density or pressure is not positive, or the gas would tear apart into vacuum.

    Examples:
        >>> sod = Riemann((1.0, 0.0, 1.0), (0.125, 0.0, 0.1))
        >>> round(sod.pressure, 5), round(sod.velocity, 5)
        (0.30313, 0.92745)
    """

    left: State
    right: State
    gamma: float = 1.4

    def __post_init__(self) -> None:
        require(min(*self.left[::2], *self.right[::2]) > 0, "densities and pressures must be positive")
        spread = 2 * (self._sound(self.left) + self._sound(self.right)) / (self.gamma - 1)
        require(self.right[1] - self.left[1] < spread, "the states part so fast that vacuum appears between them")

    @property
    def pressure(self) -> float:
        """Pressure between the outer waves."""
        low, high = -40.0, 40.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self._gap(math.exp(middle)) > 0 else (middle, high)
        return math.exp(0.5 * (low + high))

    @property
    def velocity(self) -> float:
        """Velocity between the outer waves: that of the contact."""
        p = self.pressure
        return 0.5 * (self.left[1] + self.right[1] + self._wave(p, self.right) - self._wave(p, self.left))

    def __call__(self, s: Tensor) -> Tensor:
        """Return density, velocity and pressure at the speeds ``s = x / t``, (..., 3) float64."""
        s = s.double()
        p, v = self.pressure, self.velocity
        left = self._fan(s, self.left, p, v)
        rho, u, q = self.right
        mirrored = self._fan(-s, (rho, -u, q), p, -v)
        right = mirrored * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
        return torch.where((s < v).unsqueeze(-1), left, right)

    def shock(self) -> float:
        """Return the speed of the right wave's front."""
        _, u, q = self.right
        ratio = max(self.pressure / q, 1.0)
        g = self.gamma
        return u + self._sound(self.right) * math.sqrt((g + 1) / (2 * g) * ratio + (g - 1) / (2 * g))

    def _sound(self, side: State) -> float:
        return math.sqrt(self.gamma * side[2] / side[0])

    def _gap(self, p: float) -> float:
        return self._wave(p, self.left) + self._wave(p, self.right) + self.right[1] - self.left[1]

    def _wave(self, p: float, side: State) -> float:
        """Return f_K."""
        g, (rho, _, q) = self.gamma, side
        if p > q:
            return (p - q) * math.sqrt(2 / ((g + 1) * rho) / (p + (g - 1) / (g + 1) * q))
        return 2 * self._sound(side) / (g - 1) * ((p / q) ** ((g - 1) / (2 * g)) - 1)

    def _fan(self, s: Tensor, side: State, p: float, v: float) -> Tensor:
        """Return the states left of the contact, (..., 3)."""
        g, (rho, u, q) = self.gamma, side
        a, m = self._sound(side), (self.gamma - 1) / (self.gamma + 1)
        whole = torch.ones_like(s)
        before = torch.stack([rho * whole, u * whole, q * whole], -1)
        if p > q:
            front = u - a * math.sqrt((g + 1) / (2 * g) * p / q + (g - 1) / (2 * g))
            density = rho * (p / q + m) / (m * p / q + 1)
            after = torch.stack([density * whole, v * whole, p * whole], -1)
            return torch.where((s < front).unsqueeze(-1), before, after)
        after = torch.stack([rho * (p / q) ** (1 / g) * whole, v * whole, p * whole], -1)
        tail = v - a * (p / q) ** ((g - 1) / (2 * g))
        c = (2 / (g + 1) + m / a * (u - s)).clamp(min=1e-12)
        inside = torch.stack(
            [rho * c ** (2 / (g - 1)), 2 / (g + 1) * (a + (g - 1) / 2 * u + s), q * c ** (2 * g / (g - 1))], -1
        )
        found = torch.where((s < u - a).unsqueeze(-1), before, inside)
        return torch.where((s > tail).unsqueeze(-1), after, found)


__all__ = ["Riemann"]
