"""Explicit Runge-Kutta methods beside a naive one: stages, reuse of the last slope, late stages, stiffness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline.integrators import (
    ODE,
    PID,
    SSPRK3,
    Bosh3,
    Dopri5,
    Dopri8,
    Event,
    ExplicitRungeKutta,
    Heun,
    SaveAt,
    Tableau,
    Tsit5,
    Vern7,
    integrate,
)
from tests.contracts.integrators import INTEGRATORS, LINEAR, QUADRATIC

METHODS = {e.name: e.method for e in INTEGRATORS if isinstance(e.method, ExplicitRungeKutta)}
EACH = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def double(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


class Recording:
    """A field that writes down where it is evaluated."""

    def __init__(self, field: Any) -> None:
        self.field, self.times, self.states = field, [], []  # type: ignore[var-annotated]

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.times.append(float(t))
        self.states.append(y.detach().numpy().copy())
        return self.field(t, y)


def naive(table: Tableau, field: Any, t: float, y: np.ndarray, h: float) -> tuple[np.ndarray, list[float], list[Any]]:
    """One step as the book has it; late stages left out."""
    slopes: list[np.ndarray] = []
    times, states = [], []
    for i in range(table.stages - table.late):
        times.append(t + table.abscissae[i] * h)
        states.append(y + h * sum((table.matrix[i, j] * slopes[j] for j in range(i)), np.zeros_like(y)))
        slopes.append(field(torch.tensor(times[-1], dtype=torch.float64), torch.as_tensor(states[-1])).numpy())
    return y + h * sum(b * k for b, k in zip(table.b, slopes, strict=False)), times, states


@EACH
@pytest.mark.parametrize("h", [0.25, -0.25])
def test_stages_are_where_the_tableau_says(method: ExplicitRungeKutta, h: float) -> None:
    field = Recording(QUADRATIC[1].field)
    y0 = QUADRATIC[1].at(0.5)
    found = integrate(field, y0, 0.5, 0.5 + h, method=method, dt0=0.25)
    y1, times, states = naive(method.tableau, QUADRATIC[1].field, 0.5, y0.numpy(), h)
    np.testing.assert_allclose(field.times, times, rtol=1e-14)
    np.testing.assert_allclose(field.states, states, rtol=1e-12)
    np.testing.assert_allclose(found.y1, y1, rtol=1e-12)


@EACH
def test_the_last_slope_is_used_again(method: ExplicitRungeKutta) -> None:
    table, steps = method.tableau, 6
    stages = table.stages - table.late
    fixed = integrate(LINEAR[1].field, LINEAR[1].at(0.0), 0.0, 1.5, method=method, dt0=0.25)
    assert fixed.stats.nfe == (1 + (stages - 1) * steps if table.last_is_solution else stages * steps)
    if not table.error:
        return
    found = integrate(
        LINEAR[1].field, LINEAR[1].at(0.0), 0.0, 1.0, method=method, controller=PID(1e-4, 1e-4), dt0=None
    ).stats
    attempts = found.accepted + found.rejected
    # the first step size takes two evaluations, of which one is the first slope; a rejected step keeps its first slope
    fresh = 0 if table.last_is_solution else found.accepted - 1
    assert found.nfe == 2 + (stages - 1) * attempts + fresh


@EACH
def test_the_error_estimate_is_of_the_stated_size(method: ExplicitRungeKutta) -> None:
    if not method.error_order:
        pytest.skip("no error estimate")
    problem, y0 = QUADRATIC[1], QUADRATIC[1].at(0.0)
    sizes = [
        method.step(ODE(problem.field), double(0.0), double(h), y0, ()).error.norm()  # type: ignore[union-attr]
        for h in (0.1, 0.05)
    ]
    assert float((sizes[0] / sizes[1]).log2()) == pytest.approx(method.error_order, abs=0.3)


@EACH
def test_a_rejected_step_keeps_its_first_slope(method: ExplicitRungeKutta) -> None:
    if not method.tableau.error:
        pytest.skip("no error estimate")
    options: Any = {"method": method, "controller": PID(1e-3, 1e-4), "dt0": 2.0, "max_steps": 100000}
    found = integrate(QUADRATIC[0].field, QUADRATIC[0].at(0.0), 0.0, 2.0, **options).stats
    assert found.rejected > 0
    stages, fresh = (
        method.tableau.stages - method.tableau.late,
        0 if method.tableau.last_is_solution else found.accepted,
    )
    assert found.nfe == (stages - 1) * (found.accepted + found.rejected) + fresh + method.tableau.last_is_solution


@pytest.mark.parametrize("method", [Heun(), Dopri8(), Vern7()], ids=["heun", "dopri8", "vern7"])
def test_late_stages_are_evaluated_once_and_with_gradients(method: ExplicitRungeKutta) -> None:
    """Events look inside a step dozens of times without gradients, then with them."""
    count = 0

    def falling(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return torch.stack([y[1], -rate * torch.ones_like(y[0])])

    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    hit = Event(lambda t, y: y[0])
    found = integrate(falling, y0, 0.0, 3.0, method=method, dt0=0.75, events=hit)
    assert found.t1 is not None
    assert float(found.t1.detach()) == pytest.approx(1.0, abs=1e-12)
    assert count == found.stats.nfe
    table = method.tableau
    late = table.late if table.powers else 1
    assert count == 2 * (table.stages - table.late) + late - table.last_is_solution
    found.t1.backward()
    assert float(rate.grad) == pytest.approx(-0.25, abs=1e-10)  # t1 = sqrt(2 / rate)


@pytest.mark.parametrize("method", [Dopri5(), Tsit5(), Dopri8(), Vern7()], ids=lambda m: m.tableau.name)
def test_stiffness_estimates_the_jacobian(method: ExplicitRungeKutta) -> None:
    y0 = torch.tensor([1.0, 1.0], dtype=torch.float64)
    options: Any = {"method": method, "dt0": 0.05, "record": ("steps",)}
    found = integrate(lambda t, y: -30.0 * y + t, y0, 0.0, 0.5, **options)
    torch.testing.assert_close(
        found.record.stiffness, torch.full((10,), 30.0, dtype=torch.float64), rtol=1e-6, atol=0.0
    )
    rates = torch.tensor([[-10.0], [-3.0]], dtype=torch.float64)
    each = integrate(lambda t, y: rates * y, y0[:, None], 0.0, 0.5, batching="per-sample", **options)
    torch.testing.assert_close(each.record.stiffness[0], -rates[:, 0], rtol=1e-6, atol=0.0)


def test_stiffness_of_a_state_at_rest_is_zero_and_has_a_gradient() -> None:
    y0 = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = integrate(lambda t, y: -y, y0, 0.0, 0.1, method=Dopri5(), dt0=0.1, record=("steps",))
    found.record.stiffness.sum().backward()
    assert float(found.record.stiffness.detach()) == 0.0
    assert torch.isfinite(y0.grad).all()


def test_without_two_stages_at_the_end_there_is_no_estimate() -> None:
    found = integrate(lambda t, y: -y, torch.ones(2), 0.0, 0.1, method=Bosh3(), dt0=0.1, record=("steps",))
    assert found.record.stiffness is None


def test_ssprk3_keeps_the_total_variation_that_euler_keeps() -> None:
    """Upwind transport of a step at the largest step of Euler; a shifted tableau of the same order does not."""

    def upwind(t: Tensor, u: Tensor) -> Tensor:
        return -(u - u.roll(1)) * 50

    def variation(u: Tensor) -> float:
        return float((u - u.roll(1)).abs().sum())

    u0 = (torch.linspace(0, 1, 51, dtype=torch.float64)[:-1] < 0.4).double()
    found = integrate(upwind, u0, 0.0, 0.4, method=SSPRK3(), dt0=0.02, saveat=SaveAt(steps=True))
    assert max(map(variation, found.ys)) <= 2.0 + 1e-12
    bosh = integrate(upwind, u0, 0.0, 0.4, method=Bosh3(), dt0=0.024, saveat=SaveAt(steps=True))
    assert max(map(variation, bosh.ys)) > 2.0 + 1e-3


@EACH
@pytest.mark.parametrize(
    "field",
    [lambda t, y: y, lambda t, y: y.view_as(y), lambda t, y: y[:1].expand(2)],
    ids=["itself", "a view", "an expanded view"],
)
def test_a_field_may_return_the_memory_it_was_given(method: ExplicitRungeKutta, field: Any) -> None:
    start = torch.full((2,), 1.5, dtype=torch.float64)
    found = integrate(field, start, 0.0, 1.0, method=method, dt0=0.1)
    with torch.no_grad():
        again = integrate(field, start, 0.0, 1.0, method=method, dt0=0.1, saveat=SaveAt(ts=[0.33, 1.0]))
    copied = integrate(
        lambda t, y: field(t, y).clone(), start, 0.0, 1.0, method=method, dt0=0.1, saveat=SaveAt(ts=[0.33])
    )
    torch.testing.assert_close(again.y1, found.y1, rtol=1e-13, atol=0)
    torch.testing.assert_close(again.ys[0], copied.ys[0], rtol=1e-13, atol=0)
    assert torch.equal(start, torch.full_like(start, 1.5))


@EACH
def test_a_naive_step_gives_the_same_without_gradients(method: ExplicitRungeKutta) -> None:
    """The sums of small states are made another way where no gradients are wanted."""
    table, h, t = method.tableau, 0.3, 0.2
    y = torch.tensor([[0.5, -1.0], [2.0, 0.1]], dtype=torch.float64)

    def field(t: float, y: Tensor) -> Tensor:
        return torch.sin(y) * y.flip(1) + t

    k: list[Tensor] = []
    for row, c in zip(table.matrix, table.abscissae, strict=True):
        k.append(
            field(t + c * h, y + h * sum((w * s for w, s in zip(row.tolist(), k, strict=False)), torch.zeros(2, 2)))
        )
    expected = y + h * sum(w * s for w, s in zip(table.b, k, strict=True))
    with torch.no_grad():
        found = method.step(ODE(field), double(t), double(h), y, ())
    torch.testing.assert_close(found.y, expected, rtol=1e-13, atol=1e-13)
    if table.error and method.plain_error:
        error = h * sum(w * s for w, s in zip(table.error, k, strict=True))
        torch.testing.assert_close(found.error, error, rtol=1e-10, atol=1e-14)
