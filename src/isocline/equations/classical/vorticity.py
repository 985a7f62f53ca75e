r"""Two-dimensional incompressible flow on a torus, by its vorticity.

    w_t + u . grad w = nu Laplacian w - drag w + f ,      u = (psi_y, -psi_x) ,   -Laplacian psi = w

The velocity is free of divergence by construction, its mean is zero. Steps in time are those of ETDRK4, which are exact for
viscosity, drag and a steady forcing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.equations.classical.spectral_march import SpectralMarch, Torus


def velocity(w: Tensor, torus: Torus) -> tuple[Tensor, Tensor]:
    """Return the coefficients of both components of the velocity, of those of the vorticity."""
    k2 = -torus.laplacian()
    stream = w / torch.where(k2 > 0, k2, torch.ones_like(k2)) * (k2 > 0)
    return torus.wave(1) * stream, -torus.wave(0) * stream


def vorticity_march(
    torus: Torus, nu: Tensor, h: float, *, drag: float = 0.0, forcing: Tensor | None = None
) -> SpectralMarch:
    """Return the steps of the vorticity's coefficients, kept to two thirds of the waves.

    Args:
        torus: two axes.
        nu: viscosity of each case, (n,).
        h: the step.
        drag: linear friction.
        forcing: f on the grid, the curl of the force: ``(*S)`` or ``(n, *S)``.
    """
    kept, waves = torus.kept(), (torus.wave(0), torus.wave(1))
    force = None if forcing is None else torus.coefficients(forcing) * kept

    def nonlinear(t: Tensor, w: Tensor) -> Tensor:
        value = torus.values(w)
        fluxes = [torus.coefficients(torus.values(u) * value) for u in velocity(w, torus)]
        rate = -kept * (waves[0] * fluxes[0] + waves[1] * fluxes[1])
        return rate if force is None else rate + force

    return SpectralMarch(nu[:, None, None] * torus.laplacian() - drag, nonlinear, h)
