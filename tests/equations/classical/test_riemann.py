"""The exact Riemann solver: published middle states, and the jump conditions."""

from __future__ import annotations

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.equations.classical.riemann import Riemann, State

# Toro (2009), table 4.2 and 4.3: pressure and velocity in the middle
PUBLISHED: list[tuple[State, State, float, float]] = [
    ((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), 0.30313, 0.92745),
    ((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.00189, 0.0),
    ((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01), 460.894, 19.5975),
    ((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.0950), 1691.64, 8.68975),
]


@pytest.mark.parametrize(("left", "right", "pressure", "velocity"), PUBLISHED)
def test_middle_states_are_those_of_the_book(left: State, right: State, pressure: float, velocity: float) -> None:
    found = Riemann(left, right)
    assert abs(found.pressure / pressure - 1) < 5e-3 if pressure < 0.01 else abs(found.pressure / pressure - 1) < 2e-5
    assert abs(found.velocity - velocity) < 1e-4


def test_shocks_fulfil_the_jump_conditions() -> None:
    problem = Riemann((1.0, 0.0, 1.0), (0.125, 0.0, 0.1))
    s = problem.shock()
    ahead, behind = problem(torch.tensor([s + 1e-9, s - 1e-9], dtype=torch.float64))
    for power in (0, 1):
        flux = [w[0] * w[1] ** (1 + power) + power * w[2] for w in (ahead, behind)]
        kept = [w[0] * w[1] ** power for w in (ahead, behind)]
        assert abs(float(flux[0] - flux[1] - s * (kept[0] - kept[1]))) < 1e-12


def test_a_rarefaction_is_smooth_isentropic_and_continuous() -> None:
    s = torch.linspace(-1.5, 0.9, 2001, dtype=torch.float64)
    w = Riemann((1.0, 0.0, 1.0), (0.125, 0.0, 0.1))(s)
    entropy = w[:, 2] / w[:, 0] ** 1.4
    assert float((entropy - 1).abs().max()) < 1e-12
    assert float(torch.diff(w, dim=0).abs().max()) < 0.002


def test_mirrors_and_vacuum() -> None:
    a, b = Riemann((1.0, 0.3, 1.0), (0.2, -0.1, 0.3)), Riemann((0.2, 0.1, 0.3), (1.0, -0.3, 1.0))
    s = torch.linspace(-2, 2, 101, dtype=torch.float64) + 1e-4
    torch.testing.assert_close(a(s), b(-s) * torch.tensor([1.0, -1.0, 1.0]).double(), rtol=1e-12, atol=1e-12)
    with pytest.raises(InvalidInput, match="vacuum"):
        Riemann((1.0, -20.0, 1.0), (1.0, 20.0, 1.0))
