"""Steps of one size made in one go: the same bits, counts and failures as one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from isocline.integrators import (
    RK4,
    SDE,
    AdamsBashforth,
    Checkpointed,
    Dopri5,
    EulerMaruyama,
    ImplicitEuler,
    Reason,
    SaveAt,
    SPaRK,
    integrate,
)

F64 = torch.float64


def field(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[..., 1], -(y[..., 0].sin()) - t * y[..., 1]], -1)


TERMS: dict[str, tuple[Any, Any]] = {
    "RK4": (field, RK4()),
    "Dopri5": (field, Dopri5()),
    "Adams": (field, AdamsBashforth(3)),
    "Euler-Maruyama": (SDE(field, lambda t, y: 0.1 * y, 0), EulerMaruyama()),
    "SPaRK": (SDE(field, lambda t, y: 0.1 * y, 0, calculus="stratonovich"), SPaRK()),
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("ends", [(0.0, 1.0, 0.01), (1.0, -0.5, 0.04), (0.0, 1.0, 0.3)])
def test_the_same_as_one_by_one(name: str, ends: tuple[float, float, float]) -> None:
    terms, method = TERMS[name]
    t0, t1, dt0 = ends
    y0 = torch.tensor([[1.0, 0.2], [0.3, -0.5]], dtype=F64)
    settings: Any = {"method": method, "dt0": dt0, "saveat": SaveAt(ts=[t0 + 0.37 * (t1 - t0), t1], t1=True)}
    together = integrate(terms, y0, t0, t1, **settings)
    alone = integrate(terms, y0, t0, t1, record=("steps",), **settings)
    assert torch.equal(together.ys, alone.ys)
    assert torch.equal(together.y1, alone.y1)
    assert together.stats == alone.stats
    replayed = integrate(terms, y0.clone().requires_grad_(), t0, t1, gradient=Checkpointed(), **settings)
    assert torch.allclose(
        replayed.ys.detach(), alone.ys, rtol=0, atol=1e-14
    )  # made without a graph, with other roundings


def test_a_failure_is_named_with_its_place() -> None:
    def broken(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 0.5, torch.nan, -y)

    solution = integrate(broken, torch.ones(2, dtype=F64), 0.0, 1.0, method=RK4(), dt0=0.01)
    assert solution.status.reason is Reason.NOT_FINITE
    assert 0.48 < solution.status.time < 0.52
    alone = integrate(broken, torch.ones(2, dtype=F64), 0.0, 1.0, method=RK4(), dt0=0.01, record=("steps",))
    assert solution.stats == alone.stats


def test_a_step_that_is_not_solved_ends_it() -> None:
    """y = y0 + h (y^2 + 1) has no root for a large h: nothing of the steps after it may count."""
    stiff: Any = {"method": ImplicitEuler(), "dt0": 0.4}
    together = integrate(lambda t, y: y**2 + 1, torch.full((2,), 1.0, dtype=F64), 0.0, 4.0, **stiff)
    alone = integrate(lambda t, y: y**2 + 1, torch.full((2,), 1.0, dtype=F64), 0.0, 4.0, record=("steps",), **stiff)
    assert alone.status.reason is Reason.NOT_SOLVED
    assert together.status.reason is Reason.NOT_SOLVED
    assert together.status.time == alone.status.time
    assert together.stats == alone.stats


def test_the_cap_on_steps_holds() -> None:
    solution = integrate(field, torch.ones(2, dtype=F64), 0.0, 1.0, method=RK4(), dt0=0.01, max_steps=30)
    assert solution.status.reason is Reason.MAX_STEPS
    assert solution.stats.accepted == 30
    assert abs(solution.status.time - 0.3) < 1e-9


def test_evaluations_are_counted_at_the_field() -> None:
    seen = 0

    def counting(t: Tensor, y: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        return -y

    solution = integrate(counting, torch.ones(2, dtype=F64), 0.0, 1.0, method=Dopri5(), dt0=0.02)
    assert solution.stats.nfe == seen
