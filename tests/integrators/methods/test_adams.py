"""Adams methods: the classical weights, any step sizes, the cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import AdamsBashforth, AdamsBashforthMoulton, Clip, Constant, Heun, Steps, integrate
from isocline.integrators.methods.adams import integral
from tests.contracts.integrators import LINEAR

BASHFORTH = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
MOULTON = {2: [1 / 2, 1 / 2], 3: [5 / 12, 8 / 12, -1 / 12], 4: [9 / 24, 19 / 24, -5 / 24, 1 / 24]}


def double(x: Any) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def weights(k: int, h: float, predicted: bool) -> list[float]:
    """The weights of equal steps, found with unit slopes; the predicted slope first."""
    units = list(torch.eye(k + predicted, dtype=torch.float64))
    sizes = [double(h)] * (k - 1)
    last = units.pop() if predicted else None
    found = integral(sizes, units, double(h), last) / h
    return found.roll(1).tolist() if predicted else found.tolist()


@pytest.mark.parametrize("h", [0.1, -3.0])
def test_equal_steps_have_the_classical_weights(h: float) -> None:
    for k, expected in BASHFORTH.items():
        np.testing.assert_allclose(weights(k, h, predicted=False), expected, rtol=1e-12)
    for k, expected in MOULTON.items():
        np.testing.assert_allclose(weights(k - 1, h, predicted=True), expected, rtol=1e-12)


@pytest.mark.parametrize("sizes", [[0.3, 0.01, 0.5], [1.0, 1.0, 1.0], [1e-4, 2.0, 0.1]])
@pytest.mark.parametrize("h", [0.2, 1e-5])
def test_any_steps_integrate_polynomials_exactly(sizes: list[float], h: float) -> None:
    places = -np.cumsum([0.0, *sizes])
    for power in range(4):
        found = integral([double(s) for s in sizes], [double(p**power) for p in places], double(h))
        assert float(found) == pytest.approx(h ** (power + 1) / (power + 1), rel=1e-9, abs=1e-13 * h)


def test_six_slopes_integrate_a_polynomial_of_degree_six_with_the_predicted_one() -> None:
    sizes, h = [0.3, 0.1, 0.2, 0.25, 0.1], 0.2
    places = -np.cumsum([0.0, *sizes])
    found = integral([double(s) for s in sizes], [double(p**6) for p in places], double(h), double(h**6))
    assert float(found) == pytest.approx(h**7 / 7, rel=1e-8)


@pytest.mark.parametrize("method", [AdamsBashforth(4), AdamsBashforthMoulton(4)], ids=["bashforth", "moulton"])
def test_order_with_steps_of_any_size(method: Any) -> None:
    problem = LINEAR[1]
    errors = []
    for n in (120, 240):
        edges = np.linspace(0.0, 1.0, n + 1)
        times = 2 * edges + 0.2 * np.sin(2 * np.pi * edges)
        found = integrate(problem.field, problem.at(0.0), 0.0, 2.0, method=method, controller=Steps(times))
        errors.append(float((found.y1 - problem.at(2.0)).norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize(("method", "start", "each"), [(AdamsBashforth(4), 3, 1), (AdamsBashforthMoulton(4), 2, 2)])
def test_cost(method: Any, start: int, each: int) -> None:
    found = integrate(LINEAR[1].field, LINEAR[1].at(0.0), 0.0, 2.0, method=method, dt0=0.1)
    assert found.stats.nfe == 1 + 6 * start + each * (20 - start)


def test_moulton_of_order_2_is_heuns_method() -> None:
    options: dict[str, Any] = {"y0": LINEAR[1].at(0.0), "t0": 0.0, "t1": 1.0, "dt0": 0.1}
    found = integrate(LINEAR[1].field, method=AdamsBashforthMoulton(2), **options)
    torch.testing.assert_close(found.y1, integrate(LINEAR[1].field, method=Heun(), **options).y1, rtol=1e-14, atol=0.0)


def test_history_ends_where_the_field_jumps() -> None:
    """With the history carried over the jump, the error is of order 2 there; started afresh, it stays small."""

    def bent(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t < 0.5, torch.cos(t), 5 - torch.sin(t)) + 0 * y

    exact = math.sin(0.5) + 2.5 + math.cos(1.0) - math.cos(0.5)
    y0 = torch.zeros(1, dtype=torch.float64)
    options: dict[str, Any] = {"method": AdamsBashforth(4), "dt0": 0.05}
    aware = integrate(bent, y0, 0.0, 1.0, controller=Clip(Constant(), jump_times=(0.5,)), **options)
    unaware = integrate(bent, y0, 0.0, 1.0, controller=Constant(), **options)
    assert abs(float(aware.y1) - exact) < 1e-6
    assert abs(float(unaware.y1) - exact) > 1e-3


def test_orders_that_there_are_not() -> None:
    with pytest.raises(InvalidInput, match="order 1 to 6 here, got 7"):
        AdamsBashforth(7)
    with pytest.raises(InvalidInput, match="order 2 to 6 here, got 1"):
        AdamsBashforthMoulton(1)
