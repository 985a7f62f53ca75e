"""The heated plate: its equation, its limits, and a second solution by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.datasets.simulators.base import Cases
from isocline.datasets.simulators.heat2d import TEMPERATURES, Heat2D


def solved(heat: Heat2D, cases: Cases, resolution: tuple[int, int] | None = None) -> Tensor:
    return torch.stack([f.fields["u"] for f in heat.simulate(cases, resolution=resolution)], 1)


def given(*rows: tuple[float, ...]) -> Cases:
    table = torch.tensor(rows, dtype=torch.float64)
    parameters = {name: table[:, k] for k, name in enumerate(TEMPERATURES)}
    return Cases(Heat2D().sample(1, 0).rng, 0, parameters, len(rows))


def by_differences(n: int, temperatures: Tensor, t: float, steps: int) -> Tensor:
    """Return the solution by cell-centred second differences in space and the exact exponential of them in time."""
    start, left, right, bottom, top = temperatures.tolist()
    second = torch.diag(torch.full((n,), -2.0)) + torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1)
    second = second.double() * n**2
    second[0, 0] = second[-1, -1] = -3.0 * n**2  # the side lies half a cell away: ghost value 2 T - u
    source = torch.zeros(n, n, dtype=torch.float64)
    source[0] += 2 * left * n**2
    source[-1] += 2 * right * n**2
    source[:, 0] += 2 * bottom * n**2
    source[:, -1] += 2 * top * n**2
    u, dt = torch.full((n, n), start, dtype=torch.float64), t / steps
    eye = torch.eye(n, dtype=torch.float64)
    half = torch.linalg.inv(eye - 0.5 * dt * second)
    for _ in range(steps):  # Peaceman and Rachford: implicit in x, then in y
        u = half @ (u + 0.5 * dt * (u @ second.T + source))
        u = (u + 0.5 * dt * (second @ u + source)) @ half.T
    return u


def test_against_finite_differences_of_order_two() -> None:
    heat, cases = Heat2D(times=3, dt=0.02), given((300.0, 100.0, 500.0, 200.0, 450.0))
    table = torch.stack([cases.parameters[name][0] for name in TEMPERATURES])
    errors = []
    for n in (12, 24, 48):
        exact = solved(heat, cases, (n, n))[0, 2]
        inside = slice(n // 4, -n // 4)  # corners, where sides of different temperature meet, are of lower order
        errors.append(float((by_differences(n, table, 0.04, 20 * n) - exact)[inside, inside].abs().max()))
    assert errors[-1] < 0.2
    assert errors[0] / errors[1] > 3.4
    assert errors[1] / errors[2] > 3.4


def test_limits() -> None:
    """It begins at T_0; plates of one temperature stay; in the end the middle has the mean of the sides, exactly."""
    heat = Heat2D(resolution=(9, 9), times=2, dt=5.0)
    u = solved(heat, given((300.0, 100.0, 500.0, 200.0, 450.0), (250.0,) * 5))
    assert torch.equal(u[0, 0], torch.full((9, 9), 300.0, dtype=torch.float64))
    assert torch.allclose(u[1], torch.full((2, 9, 9), 250.0, dtype=torch.float64))
    assert abs(float(u[0, 1, 4, 4]) - 312.5) < 1e-10


def test_all_sides_of_one_temperature_is_a_product_of_lines() -> None:
    """u = T_s + (T_0 - T_s) f(x) f(y), f the odd sine series of 1 with exponential decay."""
    heat = Heat2D(resolution=(16, 12), times=2, dt=0.03)
    u = solved(heat, given((100.0, 400.0, 400.0, 400.0, 400.0)))[0, 1]
    m = torch.arange(1, 200, 2, dtype=torch.float64) * torch.pi
    lines = [
        (4 / m * torch.exp(-m.square() * 0.03)) @ torch.sin(m[:, None] * (torch.arange(n) + 0.5) / n) for n in (16, 12)
    ]
    assert torch.allclose(u, 400 - 300 * lines[0][:, None] * lines[1], rtol=1e-12, atol=1e-9)


def test_it_solves_the_equation_and_keeps_the_maximum_principle() -> None:
    heat = Heat2D(resolution=(5, 5), times=40, dt=2e-3)
    cases = heat.sample(6, 0)
    u = solved(heat, cases)
    low, high = torch.stack([cases.parameters[n] for n in TEMPERATURES]).aminmax(dim=0)
    assert bool((u >= low[:, None, None, None] - 1e-9).all())
    assert bool((u <= high[:, None, None, None] + 1e-9).all())
    fine = [solved(Heat2D(times=2, dt=t), cases, (105, 105))[:, 1, 50:55, 50:55] for t in (0.099, 0.1, 0.101)]
    rate, v = (fine[2] - fine[0])[:, 1:-1, 1:-1] / 2e-3, fine[1]  # around the middle
    bend = v[:, 2:, 1:-1] + v[:, :-2, 1:-1] + v[:, 1:-1, 2:] + v[:, 1:-1, :-2] - 4 * v[:, 1:-1, 1:-1]
    assert torch.allclose(rate, bend * 105**2, rtol=2e-3, atol=0.5)


def test_grids_agree_where_they_meet_and_cases_do_not_depend_on_the_batch() -> None:
    heat = Heat2D(times=3)
    cases = heat.sample(3, 4)
    coarse, fine = solved(heat, cases, (8, 8)), solved(heat, cases, (24, 24))
    assert torch.allclose(coarse, fine[..., 1::3, 1::3], rtol=1e-12)
    last = heat.sample(1, 4, first=2)
    assert torch.equal(last.parameters["top"], cases.parameters["top"][2:])
    assert torch.allclose(solved(heat, last, (8, 8)), coarse[2:], rtol=1e-14)


def test_the_description() -> None:
    heat = Heat2D(resolution=(6, 4))
    assert [f.fields["u"].shape for f in heat.simulate(heat.sample(2, 0))] == [(2, 6, 4)] * 101
    assert heat.coordinates(heat.sample(1, 0), (6, 4)).shape == (6, 4, 2)
    assert heat.equation.formula == ("u_t - diffusivity (u_xx + u_yy) = 0",)
    with pytest.raises(InvalidInput, match="must be positive"):
        Heat2D(diffusivity=0.0)
