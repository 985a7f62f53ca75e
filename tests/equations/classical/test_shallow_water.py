"""Shallow water: a simple wave in closed form, the middle state of a dam break, and conservation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.equations.classical.finite_volume import FiniteVolume, centres
from isocline.equations.classical.shallow_water import ShallowWater

D = torch.float64


def simple_wave(x: Tensor, t: float) -> Tensor:
    """Return depth and velocity (1, 3, n, n) of a wave along the diagonal, periodic in the unit square, with g = 1.

    The invariant v - 2 c is constant, so that ``c = C(xi - sqrt(2) (3 c - 2) t)`` with xi = x + y.
    """
    xi = x.sum(-1)
    c = torch.ones_like(xi)
    for _ in range(60):
        c = 1 + 0.1 * torch.sin(2 * math.pi * (xi - math.sqrt(2) * (3 * c - 2) * t))
    v = 2 * (c - 1) / math.sqrt(2)
    return torch.stack([c**2, v, v])[None]


def simple_wave_order(sizes: tuple[int, int], theta: float) -> float:
    law, errors = ShallowWater(), []
    for n in sizes:
        x = centres((0.0, 0.0), (1.0, 1.0), (n, n))
        fv = FiniteVolume(law, (1 / n,) * 2, ("periodic",) * 2, theta=theta)
        found = law.primitive(fv.advance(law.conserved(simple_wave(x, 0.0)), 0.0, 0.1))
        errors.append(float((found - simple_wave(x, 0.1))[:, 0].abs().mean()))
    return math.log(errors[0] / errors[1]) / math.log(sizes[1] / sizes[0])


def test_a_simple_wave_has_second_order() -> None:
    assert simple_wave_order((24, 48), 1.5) >= 1.8


def test_minmod_has_it_once_the_wave_is_resolved() -> None:
    assert simple_wave_order((48, 96), 1.0) >= 1.8


def middle(high: float, low: float) -> float:
    """Return the depth between the rarefaction and the bore of a dam break, g = 1."""
    a, b = low, high
    for _ in range(80):
        h = 0.5 * (a + b)
        gap = 2 * (math.sqrt(high) - math.sqrt(h)) - (h - low) * math.sqrt(0.5 * (h + low) / (h * low))
        a, b = (h, b) if gap > 0 else (a, h)
    return 0.5 * (a + b)


def test_a_dam_break_has_its_middle_state_and_its_bore() -> None:
    n, t = 200, 0.2
    law, x = ShallowWater(), centres((0.0,), (1.0,), (200,))[:, 0]
    w = torch.stack([1 + (x < 0.5).double(), torch.zeros_like(x)])[None]
    found = law.primitive(FiniteVolume(law, (1 / n,), ("wall",)).advance(law.conserved(w), 0.0, t))[0]
    h = middle(2.0, 1.0)
    v = 2 * (math.sqrt(2) - math.sqrt(h))
    bore = 0.5 + t * v * h / (h - 1)
    assert abs(float(found[0, 120]) - h) < 1e-3
    assert abs(float(found[1, 120]) - v) < 1e-3
    ahead = x[found[0] > 0.5 * (1 + h)].max()
    assert abs(float(ahead) - bore) < 1.5 / n


def test_mass_and_momentum_are_kept() -> None:
    law = ShallowWater(9.81)
    w = torch.rand(2, 3, 10, 12, dtype=D, generator=torch.Generator().manual_seed(1)) + 0.5
    u = law.conserved(w)
    after = FiniteVolume(law, (0.1, 0.2), ("periodic",) * 2).advance(u, 0.0, 0.2)
    assert float((after - u).abs().max()) > 0.1
    assert float((after - u).mean((2, 3)).abs().max()) < 1e-12


def test_equal_states_have_their_own_flux_along_both_axes() -> None:
    w = torch.tensor([2.0, 0.3, -0.4], dtype=D).reshape(1, 3, 1)
    across = torch.tensor([0.6, 0.18 + 2.0, -0.24], dtype=D)
    along = torch.tensor([-0.8, -0.24, 0.32 + 2.0], dtype=D)
    torch.testing.assert_close(ShallowWater().flux(w, w, 0).flatten(), across)
    torch.testing.assert_close(ShallowWater().flux(w, w, 1).flatten(), along)


def test_a_contact_is_kept_and_gravity_is_checked() -> None:
    left, right = (torch.tensor([1.0, 0.0, v], dtype=D).reshape(1, 3, 1) for v in (1.0, -1.0))
    assert ShallowWater().flux(left, right, 0).flatten().tolist() == [0.0, 0.5, 0.0]
    with pytest.raises(InvalidInput, match="gravity"):
        ShallowWater(0.0)
