"""The Euler equations: Sod's tube against its exact solution, an isentropic vortex, and what HLLC must keep."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.equations.classical.euler import Euler
from isocline.equations.classical.finite_volume import FiniteVolume, centres
from isocline.equations.classical.riemann import Riemann

D = torch.float64
SOD = Riemann((1.0, 0.0, 1.0), (0.125, 0.0, 0.1))


def tube(problem: Riemann, n: int, stop: float) -> tuple[Tensor, Tensor]:
    """Return density, velocity, pressure (3, n) on (0, 1), computed and exact at centres."""
    x, law = centres((0.0,), (1.0,), (n,))[:, 0], Euler(d=1)
    left, right = (torch.tensor(side, dtype=D)[:, None] for side in (problem.left, problem.right))
    fv = FiniteVolume(law, (1 / n,), ("open",))
    found = fv.advance(law.conserved(torch.where(x < 0.5, left, right)[None]), 0.0, stop)
    return law.primitive(found)[0], problem((x - 0.5) / stop).T


def crossing(x: Tensor, y: Tensor, level: float) -> float:
    """Return the largest x at which y falls through a level, by linear interpolation."""
    i = int((y > level).nonzero().max())
    return float(x[i] + (x[i + 1] - x[i]) * (y[i] - level) / (y[i] - y[i + 1]))


def test_sods_tube_converges_in_l1_at_about_first_order() -> None:
    errors = []
    for n in (50, 100, 200):
        found, exact = tube(SOD, n, 0.2)
        errors.append(float((found[0] - exact[0]).abs().mean()))
    assert errors[-1] < 0.006
    assert 0.7 < math.log2(errors[0] / errors[2]) / 2 < 1.2


def test_sods_shock_and_contact_are_where_they_belong() -> None:
    n, t = 200, 0.2
    x = centres((0.0,), (1.0,), (n,))[:, 0]
    found, _ = tube(SOD, n, t)
    behind = SOD(torch.tensor([SOD.shock() - 1e-9, SOD.velocity + 1e-9, SOD.velocity - 1e-9], dtype=D))[:, 0].tolist()
    shock = crossing(x, found[0], 0.5 * (behind[0] + 0.125))
    contact = crossing(x, found[0], 0.5 * (behind[1] + behind[2]))
    assert abs(shock - (0.5 + SOD.shock() * t)) < 1 / n
    assert abs(contact - (0.5 + SOD.velocity * t)) < 2 / n


def vortex(x: Tensor, strength: float = 5.0, gamma: float = 1.4) -> Tensor:
    """Return primitive states (1, 4, n, n) of an isentropic vortex around (5, 5) in a stream (1, 1)."""
    y = x - 5
    swirl = strength / (2 * math.pi) * torch.exp((1 - (y**2).sum(-1)) / 2)
    rho = (1 - (gamma - 1) / (2 * gamma) * swirl**2) ** (1 / (gamma - 1))
    return torch.stack([rho, 1 - swirl * y[..., 1], 1 + swirl * y[..., 0], rho**gamma])[None]


def vortex_order(sizes: tuple[int, int], theta: float) -> float:
    """Return the order of the density in L1 after time 1, in which the vortex moves by (1, 1)."""
    errors, law = [], Euler()
    for n in sizes:
        x = centres((0.0, 0.0), (10.0, 10.0), (n, n))
        fv = FiniteVolume(law, (10 / n,) * 2, ("periodic",) * 2, theta=theta)
        found = law.primitive(fv.advance(law.conserved(vortex(x)), 0.0, 1.0))
        errors.append(float((found - vortex(x - 1))[:, 0].abs().mean()))
    return math.log(errors[0] / errors[1]) / math.log(sizes[1] / sizes[0])


def test_a_smooth_vortex_has_second_order() -> None:
    assert vortex_order((24, 48), theta=1.5) >= 1.8


@pytest.mark.slow
def test_minmod_has_second_order_on_a_smooth_vortex_once_it_is_resolved() -> None:
    assert vortex_order((64, 128), theta=1.0) >= 1.8


def test_the_flux_of_equal_states_is_the_flux() -> None:
    w = torch.tensor([0.7, 0.3, -0.4, 1.9], dtype=D).reshape(1, 4, 1)
    rho, u, v, p = w.flatten().tolist()
    energy = p / 0.4 + 0.5 * rho * (u * u + v * v)
    across = [rho * u, rho * u * u + p, rho * u * v, (energy + p) * u]
    along = [rho * v, rho * u * v, rho * v * v + p, (energy + p) * v]
    for axis, expected in enumerate((across, along)):
        found = Euler().flux(w, w, axis).flatten()
        torch.testing.assert_close(found, torch.tensor(expected, dtype=D), rtol=1e-14, atol=1e-14)


def test_a_contact_at_rest_stays_and_mirrors_are_mirrored() -> None:
    left = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=D).reshape(1, 4, 1)
    right = torch.tensor([0.1, 0.0, -0.5, 1.0], dtype=D).reshape(1, 4, 1)
    expected = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=D)
    assert float((Euler().flux(left, right, 0).flatten() - expected).abs().max()) < 1e-14
    fast = left.clone()
    fast[:, 1], fast[:, 3] = 0.3, 0.2
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=D).reshape(1, 4, 1)
    mirrored = Euler().flux(right * sign, fast * sign, 0)
    torch.testing.assert_close(mirrored, -sign * Euler().flux(fast, right, 0))


def test_supersonic_flow_takes_the_flux_from_upwind() -> None:
    left = torch.tensor([1.0, 5.0, 0.5, 1.0], dtype=D).reshape(1, 4, 1)
    right = torch.tensor([0.5, 4.0, 0.0, 0.5], dtype=D).reshape(1, 4, 1)
    assert torch.allclose(Euler().flux(left, right, 0), Euler().flux(left, left, 0), rtol=1e-14)


def test_primitive_and_conserved_are_inverse_and_gamma_is_checked() -> None:
    w = vortex(centres((0.0, 0.0), (10.0, 10.0), (6, 6)))
    torch.testing.assert_close(Euler().primitive(Euler().conserved(w)), w, rtol=1e-13, atol=1e-13)
    with pytest.raises(InvalidInput, match="gamma must exceed 1"):
        Euler(1.0)


def test_gas_in_free_fall_has_the_speed_of_its_time() -> None:
    law = Euler(gravity=2.0)
    w = torch.tensor([1.5, 0.3, 0.0, 1.0], dtype=torch.float64).reshape(1, 4, 1, 1).expand(1, 4, 6, 6)
    fv = FiniteVolume(law, (1 / 6,) * 2, ("periodic",) * 2)
    found = law.primitive(fv.advance(law.conserved(w), 0.0, 0.3))
    expected = torch.tensor([1.5, 0.3, -0.6, 1.0], dtype=torch.float64).reshape(1, 4, 1, 1).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_a_column_at_rest_stays_at_second_order() -> None:
    law, speeds = Euler(gravity=1.0), []
    for n in (16, 32, 64):
        y = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        p = torch.exp(-y).expand(1, 1, 2, n)  # of one temperature
        w = torch.cat([p, 0 * p, 0 * p, p], 1)
        fv = FiniteVolume(law, (0.5, 1 / n), ("periodic", "wall"))
        found = law.primitive(fv.advance(law.conserved(w), 0.0, 0.2))
        assert float((found[:, 0].mean() - p.mean()).abs()) < 1e-12
        speeds.append(float(found[0, 2].abs().mean()))
    assert speeds[0] / speeds[1] > 3
    assert speeds[1] / speeds[2] > 3
