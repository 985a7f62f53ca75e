"""Waves on an interval: d'Alembert's reflections, order in time, energy, and the matrices beneath."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.equations.classical.wave_1d import End, Wave, chebyshev_points, differentiation, interpolation

D = torch.float64
ENDS: list[tuple[End, End]] = list(itertools.product(("dirichlet", "neumann"), repeat=2))  # type: ignore[arg-type]


def left_going(x: Tensor, c: float) -> tuple[Tensor, Tensor]:
    u = torch.exp(-((x - 1) ** 2))
    return u[None], (-2 * c * (x - 1) * u)[None]


def reflected(x: Tensor, travelled: float, left: End, right: End) -> Tensor:
    """Return a bump on (-8, 8) that has moved to the left and through its mirror images."""
    signs = [-1.0 if end == "dirichlet" else 1.0 for end in (left, right)]
    total = torch.zeros_like(x)
    sign = 1.0
    for image in range(6):
        # images alternate: the bump, its mirror at the left end moving right, that one's mirror at the right end, ...
        place = 1 + 16 * image if image % 2 == 0 else -17 - 16 * (image - 1)
        moved = place - travelled if image % 2 == 0 else place + travelled
        total = total + sign * torch.exp(-((x - moved) ** 2))
        sign *= signs[image % 2]
    return total


@pytest.mark.parametrize(("left", "right"), ENDS)
def test_reflections_are_dalemberts(left: End, right: End) -> None:
    wave = Wave(left=left, right=right, degree=128)
    u, v = left_going(wave.x, 2.0)
    matrix = wave.propagator(1.0, 512)
    for i in range(1, 21):  # the bump hits the left end at 4.5 and the right one at 12.5
        u, v = wave.advance(u, v, matrix)
        assert float((u[0] - reflected(wave.x, 2.0 * i, left, right)).abs().max()) < 1e-6


@pytest.mark.parametrize(("left", "right"), ENDS)
def test_energy_is_kept(left: End, right: End) -> None:
    wave = Wave(left=left, right=right, degree=128)
    u, v = left_going(wave.x, 2.0)
    start, matrix = wave.energy(u, v), wave.propagator(0.5, 128)
    exact = 4 * math.sqrt(math.pi / 2)  # c^2 times the integral of u_x^2, twice a half
    assert abs(float(start) - exact) < 1e-10
    for _ in range(40):
        u, v = wave.advance(u, v, matrix)
    assert abs(float(wave.energy(u, v) / start) - 1) < 1e-8


def test_steps_have_fourth_order() -> None:
    wave = Wave(0.0, math.pi, 1.0, degree=32)
    errors = []
    for steps in (4, 8, 16):
        u, _ = wave.advance(torch.sin(3 * wave.x)[None], torch.zeros_like(wave.x)[None], wave.propagator(2.0, steps))
        errors.append(float((u - math.cos(6) * torch.sin(3 * wave.x)).abs().max()))
    assert 3.7 < math.log2(errors[1] / errors[2]) < 4.3


def test_the_error_falls_geometrically_in_the_degree() -> None:
    errors = []
    for degree in (32, 64, 96):
        wave = Wave(degree=degree)
        u, _ = wave.advance(*left_going(wave.x, 2.0), wave.propagator(2.0, 2048))
        errors.append(float((u[0] - reflected(wave.x, 4.0, "dirichlet", "dirichlet")).abs().max()))
    assert errors[0] / errors[1] > 30
    assert errors[1] / errors[2] > 30


@pytest.mark.parametrize(("left", "right"), ENDS)
def test_no_mode_grows(left: End, right: End) -> None:
    wave = Wave(0.0, 1.0, 1.0, left, right, degree=24)
    eigenvalues = torch.linalg.eigvals(wave.generator)
    assert float((eigenvalues.real.abs() / eigenvalues.abs().max()).max()) < 1e-6
    slow = eigenvalues.imag[eigenvalues.imag > 1e-3].min()
    expected = math.pi / 2 if left != right else math.pi
    assert abs(float(slow) - expected) < 1e-6


def test_differentiation_and_interpolation_are_exact_for_polynomials() -> None:
    x = chebyshev_points(-1.0, 3.0, 9)
    y = torch.tensor([-1.0, 0.123, 2.9, float(x[4])], dtype=D)
    torch.testing.assert_close(differentiation(x) @ x**8, 8 * x**7, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(interpolation(x, y) @ x**8, y**8, rtol=1e-12, atol=1e-12)


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidInput, match="dirichlet or neumann"):
        Wave(left="fixed")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="empty"):
        Wave(1.0, 1.0)
