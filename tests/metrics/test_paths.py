"""Straightness, curvature and first-order defect: closed forms, invariances, and the relations between them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch
from isocline._core.stream import Stream
from isocline.metrics import curvature, first_order_defect, straightness
from isocline.plans import grids, solvers
from isocline.processes import EDM, GaussianMixture, RectifiedFlow, VariancePreserving

PATHS = 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Stream(seed).normal(shape, dtype=torch.float64)


def unit(n: int) -> Tensor:
    return torch.linspace(0, 1, n + 1, dtype=torch.float64)


def arcs(n: int, radius: Tensor) -> Tensor:
    """Return quarter circles (n+1, B, 2) at constant speed."""
    angle = math.pi / 2 * unit(n)
    return torch.stack([angle.cos(), angle.sin()], -1)[:, None] * radius[:, None]


def test_straight_paths_of_constant_speed_are_zero_in_all() -> None:
    start, end = normal(PATHS, 2, 3), normal(PATHS, 2, 3, seed=1)
    u = unit(7) ** 1.5  # uneven times
    states = start + u[:, None, None, None] * (end - start)
    assert straightness(states, u).value < 1e-25
    assert straightness(states, 10 - 3 * u).value < 1e-25
    assert straightness(states, u, lambda x, t: end - start).value < 1e-25
    assert curvature(states).value < 1e-15


def test_uneven_speed_on_a_line_costs_straightness_and_not_curvature() -> None:
    """``x_u = u^2 c``: the defect is ``int (1 - 2 u)^2 |c|^2 du = |c|^2 / 3``."""
    c, u = normal(PATHS, 4), unit(400)
    states = u[:, None, None] ** 2 * c
    exact = float(c.square().sum(1).mean()) / 3
    assert straightness(states, u).value == pytest.approx(exact, rel=1e-4)
    assert straightness(states, u, lambda x, t: 2 * t * c).value == pytest.approx(exact, rel=1e-4)
    assert curvature(states).value < 1e-12


def test_quarter_circles_have_closed_forms() -> None:
    """Speed ``pi R / 2``, chord ``sqrt(2) R``: ``S = (pi^2 / 4 - 2) R^2`` and ``C = 1 - 2 sqrt(2) / pi`` for any ``R``."""
    radius = torch.linspace(0.5, 2, PATHS, dtype=torch.float64)
    states, u = arcs(400, radius), unit(400)
    found = straightness(states, u)
    assert found.value == pytest.approx((math.pi**2 / 4 - 2) * float(radius.square().mean()), rel=1e-4)
    assert found.low < found.value < found.high
    assert found.n == PATHS
    bent = curvature(states)
    assert bent.value == pytest.approx(1 - 2 * math.sqrt(2) / math.pi, rel=1e-4)
    assert bent.high - bent.low < 1e-12


def test_the_polygon_approaches_from_below_with_order_two() -> None:
    radius = torch.ones(2, dtype=torch.float64)
    exact = math.pi**2 / 4 - 2
    gaps = [exact - straightness(arcs(n, radius), unit(n)).value for n in (8, 16, 32)]
    assert min(gaps) > 0
    assert math.log2(gaps[1] / gaps[2]) == pytest.approx(2, abs=0.05)


def test_units_direction_and_speed() -> None:
    states, u = normal(9, PATHS, 3), unit(8)
    value, bent = straightness(states, u).value, curvature(states).value
    assert straightness(3 * states + 7, 5 * u + 2).value == pytest.approx(9 * value, rel=1e-12)
    assert straightness(states.flip(0), u).value == pytest.approx(value, rel=1e-12)
    assert curvature(3 * states + 7).value == pytest.approx(bent, rel=1e-12)
    assert curvature(states.repeat_interleave(2, 0)).value == pytest.approx(bent, rel=1e-12)
    assert curvature(torch.ones(4, 2, 3)).value == 0  # paths that stay where they are


def test_straightness_is_the_loss_of_flow_matching_on_interpolations() -> None:
    """On ``x_t = (1 - t) x_0 + t x_1`` it is ``E int |(x_1 - x_0) - v(x_t, t)|^2 dt``: here ``v = a x``, integrated exactly."""
    x0, x1, u = normal(2000, 2), normal(2000, 2, seed=1), unit(200)
    states = x0 + u[:, None, None] * (x1 - x0)
    found = straightness(states, u, lambda x, t: 0.5 * x)
    gap = x1 - x0
    # with m = x_0 and g = x_1 - x_0: int |g - (m + u g) / 2|^2 du, a polynomial of degree 2 in u
    exact = (gap - x0 / 2).square().sum(1) - ((gap - x0 / 2) * gap).sum(1) / 2 + gap.square().sum(1) / 12
    assert found.value == pytest.approx(float(exact.mean()), rel=1e-4)


def test_a_point_is_reached_on_first_order_paths_though_they_bend_in_x() -> None:
    """One datum: the noise prediction stays constant; the path is straight in ``(y, s)`` and bends in VP's ``x``."""
    process = VariancePreserving()
    point = GaussianMixture(process, torch.tensor([[3.0, -4.0]]), torch.zeros(1))
    times = grids.log_snr(process, 200)
    eps = normal(PATHS, 2)
    alpha, sigma = process.alpha(times)[:, None, None], process.sigma(times)[:, None, None]
    states = alpha * point.means + sigma * eps
    assert first_order_defect(lambda x, t: point.predict(x, t).eps, states, eps, times).value < 1e-20
    assert straightness(states, times).value > 1
    assert curvature(states).value > 0.01
    assert straightness(states / alpha, (sigma / alpha).flatten()).value < 1e-20
    one_step = solvers.ddim(process, times[[0, -1]]).run(point, states[0]).x
    torch.testing.assert_close(one_step, states[-1], rtol=1e-10, atol=1e-10)


def test_the_defect_of_independent_pairs_has_a_closed_form() -> None:
    """Data ``N(0, 1)``: ``e = sigma x / (alpha^2 + sigma^2)`` leaves ``E |e - eps|^2 = d alpha^2 / (alpha^2 + sigma^2)``."""
    flow, d, pairs = RectifiedFlow(), 3, 20000
    model = GaussianMixture(flow, torch.zeros(1, d), torch.ones(1))
    times = torch.linspace(1.0, 1e-3, 21, dtype=torch.float64)
    x0, eps = normal(pairs, d), normal(pairs, d, seed=1)
    states = (1 - times)[:, None, None] * x0 + times[:, None, None] * eps
    found = first_order_defect(lambda x, t: model.predict(x, t).eps, states, eps, times)
    line = torch.linspace(1e-3, 1, 2001, dtype=torch.float64)
    exact = d * float(torch.trapezoid((1 - line) ** 2 / ((1 - line) ** 2 + line**2), line)) / (1 - 1e-3)
    assert found.low < exact + 0.002  # the trapezoidal rule on 20 steps is off by about 0.001
    assert found.high > exact - 0.002
    assert found.high - found.low < 0.05


def test_the_flow_of_a_plan_can_be_measured() -> None:
    """Velocities agree with the polygon of many DDIM steps on EDM, where the path is ``dx/ds = e``."""
    process = EDM(t_min=0.05, t_max=20.0)
    model = GaussianMixture.smooth_bed(process)
    times = grids.karras(process, 150)
    plan = solvers.ddim(process, times)
    states = plan.run(model, plan.start((20, 8), 0, dtype=torch.float64), record=True).trajectory
    assert states is not None
    polygon, field = straightness(states, times), straightness(states, times, lambda x, t: model.predict(x, t).eps)
    assert field.value == pytest.approx(polygon.value, rel=0.03)
    assert polygon.value > 1
    assert 0 < curvature(states).value < 0.1


def test_bad_input_is_refused() -> None:
    states, u = normal(5, 3, 2), unit(4)
    with pytest.raises(InvalidInput, match=r"paths are \(n\+1, B, \*\).*got \(5, 3\)"):
        straightness(states[..., 0], u)
    with pytest.raises(InvalidInput, match=r"5 states need as many times, got shape \(4,\)"):
        straightness(states, u[1:])
    with pytest.raises(InvalidInput, match="strictly monotone; of a plan with stages keep the states at its nodes"):
        straightness(states, torch.tensor([1.0, 0.5, 0.5, 0.2, 0.1]))
    with pytest.raises(Mismatch, match=r"the field returned shape \(3,\) for states of shape \(3, 2\)"):
        straightness(states, u, lambda x, t: x[:, 0])
    with pytest.raises(InvalidInput, match=r"eps needs the shape \(3, 2\), got \(2, 2\)"):
        first_order_defect(lambda x, t: x, states, normal(2, 2), u)
    with pytest.raises(InvalidInput, match="needs two values or more"):
        curvature(states[:, :1])
