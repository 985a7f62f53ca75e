"""Incompressible flow by splitting: one step against Fourier coefficients, divergence, steady vortices, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.optimizers.evolution import GaussNewtonFit, divergence, incompressible
from isocline.points import Box, Uniform

BOX = Box(x=(0.0, 2 * math.pi), y=(0.0, 2 * math.pi))
GRID = 32
FIT = GaussNewtonFit(3, damping=1e-12)


class Waves(nn.Module):
    """A trigonometric polynomial of both coordinates, linear in its parameters, with `components` columns."""

    def __init__(self, components: int, top: int = 5) -> None:
        super().__init__()
        k = torch.cartesian_prod(*[torch.arange(-top, top + 1)] * 2).double()
        half = (k[:, 0] > 0) | ((k[:, 0] == 0) & (k[:, 1] > 0))
        self.register_buffer("k", k[half])
        self.theta = nn.Parameter(torch.zeros(2 * int(half.sum()), components, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Return values (N, components)."""
        phase = x @ self.k.T
        return torch.cat([torch.cos(phase), torch.sin(phase)], 1) @ self.theta


def grid() -> Tensor:
    line = 2 * math.pi * torch.arange(GRID, dtype=torch.float64) / GRID
    return torch.cartesian_prod(line, line)


def start(x: Tensor) -> Tensor:
    """Two vortex arrays of different size, without divergence."""
    a, b = x.unbind(1)
    u = torch.sin(a) * torch.cos(b) + 0.2 * torch.cos(2 * b)
    return torch.stack([u, -torch.cos(a) * torch.sin(b) + 0.1 * torch.sin(a)], 1)


def fitted(function: object, components: int) -> Waves:
    field, x = Waves(components), grid()
    phase = x @ field.k.T
    basis = torch.cat([torch.cos(phase), torch.sin(phase)], 1)
    with torch.no_grad():
        field.theta.copy_(torch.linalg.lstsq(basis, function(x)).solution)  # type: ignore[operator]
    return field


def projected(v: Tensor) -> Tensor:
    """Return the part of grid values (GRID^2, 2) without divergence, by Fourier coefficients."""
    k = torch.fft.fftfreq(GRID, 1 / GRID, dtype=torch.float64)
    kx, ky = torch.meshgrid(k, k, indexing="ij")
    a, b = (torch.fft.fft2(v[:, c].reshape(GRID, GRID)) for c in (0, 1))
    along = (kx * a + ky * b) / (kx**2 + ky**2).clamp_min(1)
    return torch.stack([torch.fft.ifft2(part).real.flatten() for part in (a - kx * along, b - ky * along)], 1)


def test_a_step_is_advection_and_the_projection_of_fourier_series() -> None:
    h, velocity = 0.05, fitted(start, 2)
    x = grid()
    expected = projected(start(x - h * start(x)))
    (step,) = incompressible(velocity, Waves(1), 0.0, h, h, BOX, sampler=Uniform(400), minimise=FIT)
    found = velocity(x).detach()
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert float(divergence(velocity, x).detach().abs().max()) < 1e-5
    assert step.time == pytest.approx(h)
    assert len(step.losses) == 3
    assert max(step.losses) < 1e-8


def test_without_the_projection_there_would_be_divergence() -> None:
    h, velocity = 0.05, fitted(start, 2)
    carried = fitted(lambda x: start(x - h * start(x)), 2)
    before = float(divergence(carried, grid()).detach().square().mean().sqrt())
    list(incompressible(velocity, Waves(1), 0.0, h, h, BOX, sampler=Uniform(400), minimise=FIT))
    assert float(divergence(velocity, grid()).detach().square().mean().sqrt()) < 1e-4 * before


def test_a_steady_vortex_keeps_to_first_order() -> None:
    """Its shape stays, its size changes by the straightness of the characteristics: half the step, half the error."""

    def vortex(x: Tensor) -> Tensor:
        a, b = x.unbind(1)
        return torch.stack([torch.sin(a) * torch.cos(b), -torch.cos(a) * torch.sin(b)], 1)

    x, errors = grid(), []
    for h in (0.1, 0.05):
        velocity = fitted(vortex, 2)
        list(incompressible(velocity, Waves(1), 0.0, 0.2, h, BOX, sampler=Uniform(300), minimise=FIT))
        errors.append(float((velocity(x).detach() - vortex(x)).norm() / vortex(x).norm()))
    assert errors[1] < 0.02
    assert 1.7 < errors[0] / errors[1] < 2.3


def test_fields_with_wrong_components_are_named() -> None:
    with pytest.raises(InvalidInput, match="the velocity in 2 dimensions has 2 components, the field has 1"):
        list(incompressible(Waves(1), Waves(1), 0.0, 0.1, 0.1, BOX))
    with pytest.raises(InvalidInput, match="the pressure in 2 dimensions has 1 components, the field has 2"):
        list(incompressible(Waves(2), Waves(2), 0.0, 0.1, 0.1, BOX))
