from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import PID, Rodas3, Rodas4, Rodas5P, Rosenbrock, Rosenbrock23, integrate
from isocline.integrators.methods import rosenbrock

ALL = pytest.mark.parametrize("method", [Rosenbrock23(), Rodas3(), Rodas4(), Rodas5P()], ids=lambda m: type(m).__name__)


def driven(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[1] * torch.cos(t), -torch.sin(y[0]) + torch.sin(2 * t)])


def observed(method: Any, steps: int = 24) -> float:
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    exact = integrate(driven, y0, 0.0, 1.5, controller=PID(1e-12, 1e-12)).y1
    errors = [
        float((integrate(driven, y0, 0.0, 1.5, method=method, dt0=1.5 / n).y1 - exact).norm())
        for n in (steps, 2 * steps)
    ]
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("method", [Rodas3(), Rodas4(), Rodas5P()], ids=lambda m: type(m).__name__)
def test_the_derivative_by_time_is_needed(method: Rosenbrock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert observed(method) > method.order - 0.25
    monkeypatch.setattr(rosenbrock, "_by_time", lambda work, t, y: torch.zeros_like(y))
    assert observed(method) < 2.3


@ALL
def test_a_step_is_the_textbook_form(method: Rosenbrock) -> None:
    """A second implementation, with slopes, products with J, and derivatives by hand."""
    table = method.tableau
    alpha, gammas = table.alphas, table.gammas
    b, h, t, y = np.array(table.m) @ gammas, 0.2, 0.3, np.array([0.8, -0.3])

    def f(t: float, y: Any) -> Any:
        return np.array([-20 * y[0] ** 3 + y[1] * t, np.cos(y[0]) - 40 * y[1]])

    jacobian = np.array([[-60 * y[0] ** 2, t], [-np.sin(y[0]), -40.0]])
    by_time = np.array([y[1], 0.0])
    k: list[Any] = []
    for i in range(table.stages):
        state = y + h * sum((alpha[i, j] * k[j] for j in range(i)), np.zeros(2))
        right = f(t + alpha[i].sum() * h, state) + h * gammas[i].sum() * by_time
        right = right + h * jacobian @ sum((gammas[i, j] * k[j] for j in range(i)), np.zeros(2))
        k.append(np.linalg.solve(np.eye(2) - h * table.gamma * jacobian, right))

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-20 * y[0] ** 3 + y[1] * t, torch.cos(y[0]) - 40 * y[1]])

    found = integrate(field, torch.tensor(y), t, t + h, method=method, dt0=h)
    np.testing.assert_allclose(found.y1.numpy(), y + h * sum(w * x for w, x in zip(b, k, strict=True)), rtol=1e-11)


@ALL
def test_a_wrong_digit_is_refused(method: Rosenbrock) -> None:
    table = method.tableau
    c = [list(row) for row in table.c]
    c[1][0] += 1e-9
    with pytest.raises(InvalidInput, match="order condition"):
        replace(table, c=c)


def test_costs_of_a_step() -> None:
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for method, stages in ((Rosenbrock23(), 2), (Rodas3(), 4), (Rodas4(), 6), (Rodas5P(), 8)):
        found = integrate(driven, y0, 0.0, 1.0, method=method, dt0=0.1)
        first = 1 if method.tableau.last_is_solution else 0
        assert found.stats.nfe == 10 * (stages + 2 + 1) + first


def test_second_gradients_go_through_the_jacobian() -> None:
    rate = torch.tensor([3.0, 0.5], dtype=torch.float64, requires_grad=True)

    def run(rate: Tensor) -> Tensor:
        terms = lambda t, y: -rate * y**3 + torch.sin(t)  # noqa: E731
        return integrate(terms, torch.ones(2, dtype=torch.float64), 0.0, 0.3, method=Rodas3(), dt0=0.15).y1

    assert torch.autograd.gradcheck(run, (rate,))
    assert torch.autograd.gradgradcheck(run, (rate,))


def test_complex_states() -> None:
    turn = torch.tensor([-0.3 + 2.0j], dtype=torch.complex128)
    found = integrate(lambda t, y: turn * y + torch.sin(t), turn, 0.0, 1.0, method=Rodas5P(), dt0=0.05)
    exact = turn * torch.exp(turn) + (torch.exp(turn) - turn * math.sin(1.0) - math.cos(1.0)) / (turn**2 + 1)
    torch.testing.assert_close(found.y1, exact, rtol=1e-8, atol=1e-9)
