r"""The shallow water equations over a flat bed, with the HLLC flux.

    d_t (h, h v) + div (h v, h v v + g h^2 / 2) = 0 ,    c = sqrt(g h) .

Mass and momentum across a face have the flux of Harten, Lax and van Leer (SIAM Rev. 25 (1983) 35),

    F = (S_R F_L - S_L F_R + S_L S_R (U_R - U_L)) / (S_R - S_L)    where S_L < 0 < S_R,

and momentum along it is carried by the mass from the side that the mass comes from, which restores the contact. S_L and S_R are
Einfeldt's: the lesser of a state's own wave speed and that of Roe's average. Beds stay wet: the depth must be positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.equations.classical.finite_volume import Law


@dataclass(frozen=True)
class ShallowWater(Law):
    """Shallow water; primitive channels are the depth and the velocity along each axis.

    Args:
        g: gravity.
    """

    g: float = 1.0

    positive = ((0, "depth"),)

    def __post_init__(self) -> None:
        require(self.g > 0, f"gravity must be positive, got {self.g}")

    def primitive(self, u: Tensor) -> Tensor:
        """Return depth and velocity of depth and momentum."""
        return torch.cat([u[:, :1], u[:, 1:] / u[:, :1]], 1)

    def conserved(self, w: Tensor) -> Tensor:
        """Return depth and momentum of depth and velocity."""
        return torch.cat([w[:, :1], w[:, 1:] * w[:, :1]], 1)

    def sound(self, w: Tensor) -> Tensor:
        """Return ``sqrt(g h)``."""
        return (self.g * w[:, 0]).sqrt()

    def flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Return the HLLC flux."""
        n = 1 + axis
        low, high = (s.unsqueeze(1) for s in self._outer(left, right, n))
        low, high = low.clamp(max=0), high.clamp(min=0)
        u = [torch.stack([w[:, 0], w[:, 0] * w[:, n]], 1) for w in (left, right)]
        f = [self._across(w, n) for w in (left, right)]
        found = (high * f[0] - low * f[1] + low * high * (u[1] - u[0])) / (high - low)
        mass = found[:, :1]
        carried = mass * torch.where(mass >= 0, left[:, 1:], right[:, 1:])
        return torch.cat([mass, carried[:, : n - 1], found[:, 1:], carried[:, n:]], 1)

    def _outer(self, left: Tensor, right: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return the speeds of the two outer waves."""
        a, b = left[:, 0].sqrt(), right[:, 0].sqrt()
        v = (a * left[:, n] + b * right[:, n]) / (a + b)
        c = (0.5 * self.g * (left[:, 0] + right[:, 0])).sqrt()
        low = torch.minimum(left[:, n] - self.sound(left), v - c)
        return low, torch.maximum(right[:, n] + self.sound(right), v + c)

    def _across(self, w: Tensor, n: int) -> Tensor:
        """Return the flux of mass and of momentum across the face, ``(n, 2, *faces)``."""
        h, v = w[:, 0], w[:, n]
        return torch.stack([h * v, h * v * v + 0.5 * self.g * h * h], 1)


__all__ = ["ShallowWater"]
