"""Steady flow: orders on a manufactured solution, closed forms, a published benchmark, and meshes past obstacles."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput, NotFinite
from isocline.equations.classical.obstacle import channel_flow, channel_mesh, signed_distance
from isocline.equations.classical.taylor_hood import steady_flow

pytest.importorskip("skfem", reason="scikit-fem comes with an extra")
Array = np.ndarray[Any, Any]
LENGTHS = (2.0, 1.0)


def ring(n: int, radius: float, centre: tuple[float, float]) -> Array:
    t = 2 * np.pi * np.arange(n) / n
    return np.asarray(centre) + radius * np.stack([np.cos(t), np.sin(t)], 1)


def rectangle(n: int, m: int, length: float = 1.0) -> tuple[Array, Array]:
    x, y = np.meshgrid(np.linspace(0, length, n + 1), np.linspace(0, 1, m + 1), indexing="ij")
    i, j = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    a = (i * (m + 1) + j).ravel()
    b, c, d = a + m + 1, a + m + 2, a + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return np.stack([x.ravel(), y.ravel()], 1), triangles


def nothing(x: Array) -> Array:
    return np.zeros_like(x)


def parabola(x: Array) -> Array:
    return np.stack([6 * x[:, 1] * (1 - x[:, 1]) * (x[:, 0] < 1e-9), 0 * x[:, 1]], 1)


def places(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("nu", [1.0, 0.01])
def test_poiseuille_flow_is_exact(nu: float) -> None:
    """``u = 6 y (1 - y), p = 12 nu (L - x)``; the force on the walls is what the fall of the pressure pushes with."""
    flow = steady_flow(*rectangle(6, 4, 2.0), nu, parabola, outflow=lambda x: x[:, 0] > 2 - 1e-9)
    x = places(200) * torch.tensor([2.0, 1.0], dtype=torch.float64)
    zero = 0 * x[:, 0]
    exact = torch.stack([6 * x[:, 1] * (1 - x[:, 1]), zero, 12 * nu * (2 - x[:, 0])], 1)
    torch.testing.assert_close(flow(x), exact, rtol=0, atol=1e-10)
    total = flow.force(lambda x: np.ones(len(x), bool))[0]
    inflow = flow.force(lambda x: x[:, 0] < 1e-9)[0]
    assert abs(total) < 1e-9  # what comes in and out has the same momentum, and the outflow is free of force
    corners = flow.force(lambda x: (x[:, 0] < 1e-9) & ((x[:, 1] < 1e-9) | (x[:, 1] > 1 - 1e-9)))[0]
    assert inflow - corners < 0


def manufactured(x: Array, nu: float) -> tuple[Array, Array, Array]:
    """Return the velocity of the stream function ``sin(pi x) sin(pi y) / pi``, a pressure, and their force."""
    s, c = np.sin(np.pi * x), np.cos(np.pi * x)
    u = np.stack([s[:, 0] * c[:, 1], -c[:, 0] * s[:, 1]], 1)
    p = np.cos(np.pi * x[:, 0]) + x[:, 1] ** 2 - 1 / 3
    carried = np.pi * np.stack([s[:, 0] * c[:, 0], s[:, 1] * c[:, 1]], 1)
    slope = np.stack([-np.pi * s[:, 0], 2 * x[:, 1]], 1)
    return u, p, carried + 2 * np.pi**2 * nu * u + slope


def test_third_order_of_the_velocity_and_second_of_the_pressure() -> None:
    nu, errors, x = 0.05, [], places(4000)
    u, p, _ = manufactured(x.numpy(), nu)
    for n in (6, 12, 24):
        flow = steady_flow(
            *rectangle(n, n), nu, lambda x: manufactured(x, nu)[0], source=lambda x: manufactured(x, nu)[2]
        )
        found = flow(x).numpy()
        errors.append((math.sqrt(((found[:, :2] - u) ** 2).mean()), math.sqrt(((found[:, 2] - p) ** 2).mean())))
    orders = [[math.log2(a / b) for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(errors)]
    assert 2.85 < orders[-1][0] < 3.3, orders
    assert 1.85 < orders[-1][1] < 2.5, orders


def test_small_viscosity_is_reached_by_larger_ones() -> None:
    """The manufactured flow again; Newton's method alone need not come from the flow without inertia to this one."""
    nu, x = 0.002, places(1000)
    flow = steady_flow(
        *rectangle(12, 12), nu, lambda x: manufactured(x, nu)[0], source=lambda x: manufactured(x, nu)[2]
    )
    assert float((flow(x)[:, :2] - torch.from_numpy(manufactured(x.numpy(), nu)[0])).abs().max()) < 0.03


def test_as_much_flows_out_as_in_and_forces_balance() -> None:
    polygon = ring(30, 0.15, (0.5, 0.45))
    flow = channel_flow(polygon, 0.02, LENGTHS, (0.03, 0.07))
    y = np.polynomial.legendre.leggauss(200)
    x = torch.tensor(np.stack([np.full(200, 2.0), (y[0] + 1) / 2], 1))
    outflow = flow(x).numpy()[:, 0]
    assert abs(outflow @ y[1] / 2 - 1) < 1e-3  # by quadrature across the kinks of the mesh
    drag, lift = flow.force(lambda x: signed_distance(polygon, x) < 1e-6)
    total = flow.force(lambda x: np.ones(len(x), bool))[0]
    momentum = 6 / 5 - outflow**2 @ y[1] / 2  # in minus out
    assert drag > 0
    assert abs(total - momentum) < 5e-3
    assert abs(lift) < drag


def test_forces_on_a_mirrored_obstacle_are_mirrored() -> None:
    drags, lifts = [], []
    for height in (0.42, 0.58):
        flow = channel_flow(ring(30, 0.15, (0.5, height)), 0.02, LENGTHS, (0.03, 0.07))
        drag, lift = flow.force(lambda x: (x.min(1) > 1e-6) & (x[:, 0] < 1.9) & (x[:, 1] < 1 - 1e-6))
        drags.append(drag)
        lifts.append(lift)
    assert drags[0] == pytest.approx(drags[1], rel=1e-2)
    assert lifts[0] == pytest.approx(-lifts[1], abs=0.02 * drags[0])


@pytest.mark.slow
def test_the_benchmark_of_the_flow_around_a_cylinder() -> None:
    """Re = 20 of Schaefer and Turek (1996), with values of spectral accuracy by John and Matthies (2001) and Nabh (1998)."""
    polygon = ring(96, 0.05, (0.2, 0.2))
    flow = channel_flow(polygon, 1e-3, (2.2, 0.41), (0.0033, 0.015), 0.2)
    drag, lift = (500 * part for part in flow.force(lambda x: signed_distance(polygon, x) < 1e-6))
    front, back = flow(torch.tensor([[0.15 - 1e-9, 0.2], [0.25 + 1e-9, 0.2]], dtype=torch.float64))[:, 2].tolist()
    assert drag == pytest.approx(5.57953523384, rel=2e-3)
    assert lift == pytest.approx(0.010618948146, rel=2e-2)
    assert front - back == pytest.approx(0.11752016697, rel=5e-3)


def test_a_mesh_fills_the_channel_but_for_the_polygon() -> None:
    polygon = ring(40, 0.15, (0.5, 0.5))
    points, triangles = channel_mesh(polygon, LENGTHS, (0.024, 0.05))
    a, b, c = (points[triangles[:, k]] for k in range(3))
    first, second = b - a, c - a
    areas = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    hole = 20 * 0.15**2 * math.sin(2 * math.pi / 40)
    assert areas.sum() == pytest.approx(2 - hole, rel=1e-12)
    edges = np.stack([b - a, c - b, a - c])
    lengths = np.hypot(edges[..., 0], edges[..., 1])
    quality = 4 * math.sqrt(3) * areas / (lengths**2).sum(0)  # 1 for equal sides, 0 for flat ones
    assert quality.min() > 0.4
    assert quality.mean() > 0.9


def test_distances_to_a_star() -> None:
    """A polygon with inward corners, by brute force, and its inside by the angle that it winds around."""
    t = 2 * np.pi * np.arange(10) / 10
    star = (0.3 + 0.2 * (-1.0) ** np.arange(10))[:, None] * np.stack([np.cos(t), np.sin(t)], 1)
    x = places(500).numpy() * 1.4 - 0.7
    s = np.linspace(0, 1, 401)[:, None, None]
    dense = ((1 - s) * star + s * np.roll(star, -1, 0)).reshape(-1, 2)
    gaps = np.hypot(*(x[:, None] - dense).transpose(2, 0, 1)).min(1)
    around = np.concatenate([star, star[:1]]) - x[:, None]
    turns = np.diff(np.unwrap(np.arctan2(around[..., 1], around[..., 0]), axis=1), axis=1).sum(1) / (2 * np.pi)
    for polygon in (star, star[::-1]):
        found = signed_distance(polygon, x)
        assert np.abs(np.abs(found) - gaps).max() < 1e-3
        assert bool(((found < 0) == (np.round(np.abs(turns)) == 1)).all())


def test_bad_input_is_named() -> None:
    polygon = ring(30, 0.15, (0.5, 0.5))
    with pytest.raises(InvalidInput, match="away from the channel's sides"):
        channel_mesh(ring(30, 0.15, (0.5, 0.2)), LENGTHS, (0.03, 0.06))
    with pytest.raises(InvalidInput, match="the smaller ones"):
        channel_mesh(polygon, LENGTHS, (0.06, 0.03))
    with pytest.raises(InvalidInput, match="do not follow the polygon"):
        channel_mesh(ring(6, 0.15, (0.5, 0.5)), LENGTHS, (0.02, 0.05))
    with pytest.raises(InvalidInput, match="viscosity must be positive"):
        steady_flow(*rectangle(2, 2), 0.0, nothing)
    with pytest.raises(NotFinite, match="no steady flow"):
        steady_flow(*rectangle(3, 3), 1.0, nothing, source=lambda x: np.full_like(x, np.nan))
    with pytest.raises(InvalidInput, match="as much must leave"):
        steady_flow(*rectangle(3, 3), 1.0, parabola)
