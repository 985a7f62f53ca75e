r"""The Euler equations of a perfect gas with the HLLC flux.

    d_t (rho, rho v, E) + div (rho v, rho v v + p, (E + p) v) = (0, rho g, rho v . g) ,    E = p / (gamma - 1) + rho (v . v) / 2 .

The weight rho g points down the last axis. HLLC (Toro, Spruce and Speares, Shock Waves 4 (1994) 25) restores the contact
between the two outer waves S_L and S_R,

    S* = (p_R - p_L + rho_L v_L (S_L - v_L) - rho_R v_R (S_R - v_R)) / (rho_L (S_L - v_L) - rho_R (S_R - v_R)) ,

    U*_K = rho_K (S_K - v_K) / (S_K - S*) (1, S*, v_t, E_K / rho_K + (S* - v_K) (S* + p_K / (rho_K (S_K - v_K)))) ,

so that a contact at rest stays as sharp as it is. The speeds of the outer waves are those of Einfeldt (SIAM J. Numer. Anal. 25
(1988) 294): the lesser of a state's own and that of Roe's average.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.equations.classical.finite_volume import Law


@dataclass(frozen=True)
class Euler(Law):
    """A perfect gas; primitive channels are the density, the velocity along each axis, and the pressure.

    Args:
        gamma: ratio of specific heats.
        d: axes.
        gravity: the size of g.
    """

    gamma: float = 1.4
    d: int = 2
    gravity: float = 0.0

    def __post_init__(self) -> None:
        require(self.d in (1, 2), f"one or two axes, got {self.d}")
        require(self.gamma > 1, f"gamma must exceed 1, got {self.gamma}")

    @property
    def positive(self) -> tuple[tuple[int, str], ...]:  # type: ignore[override]
        """The density and the pressure."""
        return ((0, "density"), (1 + self.d, "pressure"))

    def primitive(self, u: Tensor) -> Tensor:
        """Return density, velocity and pressure of density, momentum and energy."""
        rho, m, energy = u[:, :1], u[:, 1:-1], u[:, -1:]
        v = m / rho
        return torch.cat([rho, v, (self.gamma - 1) * (energy - 0.5 * (m * v).sum(1, keepdim=True))], 1)

    def conserved(self, w: Tensor) -> Tensor:
        """Return density, momentum and energy of density, velocity and pressure."""
        rho, v, p = w[:, :1], w[:, 1:-1], w[:, -1:]
        return torch.cat([rho, rho * v, p / (self.gamma - 1) + 0.5 * rho * (v * v).sum(1, keepdim=True)], 1)

    def source(self, w: Tensor) -> Tensor | None:
        """Return the weight and its power; None without gravity."""
        if self.gravity == 0:
            return None
        weight, falls = -self.gravity * w[:, 0], w[:, self.d]
        none = torch.zeros_like(weight)
        return torch.stack([*[none] * self.d, weight, weight * falls], 1)

    def sound(self, w: Tensor) -> Tensor:
        """Return ``sqrt(gamma p / rho)``."""
        return (self.gamma * w[:, -1] / w[:, 0]).sqrt()

    def flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Return the HLLC flux."""
        n = 1 + axis
        sides = (left, right)
        rho, v, p = ([w[:, k] for w in sides] for k in (0, n, -1))
        outer = self._outer(left, right, n)
        mass = [r * (s - x) for r, s, x in zip(rho, outer, v, strict=True)]
        middle = (p[1] - p[0] + v[0] * mass[0] - v[1] * mass[1]) / (mass[0] - mass[1])
        found = [self._side(w, n, s, middle, m) for w, s, m in zip(sides, outer, mass, strict=True)]
        return torch.where((middle >= 0).unsqueeze(1), found[0], found[1])

    def _outer(self, left: Tensor, right: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return the speeds of the two outer waves."""
        a, b = left[:, 0].sqrt(), right[:, 0].sqrt()
        enthalpy = [self._enthalpy(w) for w in (left, right)]
        v = (a.unsqueeze(1) * left[:, 1:-1] + b.unsqueeze(1) * right[:, 1:-1]) / (a + b).unsqueeze(1)
        h = (a * enthalpy[0] + b * enthalpy[1]) / (a + b)
        c = ((self.gamma - 1) * (h - 0.5 * (v * v).sum(1))).sqrt()
        mean = v[:, n - 1]
        low = torch.minimum(left[:, n] - self.sound(left), mean - c)
        return low, torch.maximum(right[:, n] + self.sound(right), mean + c)

    def _enthalpy(self, w: Tensor) -> Tensor:
        v = w[:, 1:-1]
        return self.gamma / (self.gamma - 1) * w[:, -1] / w[:, 0] + 0.5 * (v * v).sum(1)

    def _side(self, w: Tensor, n: int, outer: Tensor, middle: Tensor, mass: Tensor) -> Tensor:
        """Return the flux of one side: its own beyond its outer wave, that of the star state within."""
        u = self.conserved(w)
        v, p = w[:, n], w[:, -1]
        own = u * v.unsqueeze(1)
        own = torch.cat(
            [own[:, :n], own[:, n : n + 1] + p.unsqueeze(1), own[:, n + 1 : -1], own[:, -1:] + (p * v).unsqueeze(1)], 1
        )
        star = torch.cat([torch.ones_like(u[:, :1]), w[:, 1:-1], u[:, -1:] / u[:, :1]], 1)
        shift = torch.zeros_like(u).index_fill(1, torch.tensor([n], device=u.device), 1.0) * (middle - v).unsqueeze(1)
        work = (middle - v) * (middle + p / mass)
        star = torch.cat([(star + shift)[:, :-1], star[:, -1:] + work.unsqueeze(1)], 1)
        star = star * (mass / (outer - middle)).unsqueeze(1)
        # the star state counts where its outer wave has left the face behind it: S_L < 0 at the left, S_R > 0 at the right
        inside = torch.where(middle >= 0, outer < 0, outer > 0).unsqueeze(1)
        return torch.where(inside, own + outer.unsqueeze(1) * (star - u), own)


__all__ = ["Euler"]
