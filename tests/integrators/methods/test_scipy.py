"""Adaptive runs beside SciPy, step for step, where both control steps in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import DOP853, RK23, RK45
from torch import Tensor

from isocline.integrators import PID, Bosh3, Dopri5, Dopri8, SaveAt, Solution, integrate
from isocline.integrators.controllers.base import Array, Decision, Memory


@dataclass(frozen=True)
class AfterRejection(PID):
    """SciPy's rule: the step after a rejected attempt does not grow."""

    def start(self, shape: tuple[int, ...]) -> Memory:
        return (np.zeros(shape),)

    def decide(self, h: Array, ratio: Array, memory: Memory, order: int) -> Decision:
        found = super().decide(h, ratio, super().start(h.shape), order)
        size = np.where(found.accept & (memory[0] > 0), np.minimum(found.h, h), found.h)
        return Decision(found.accept, size, (np.where(found.accept, 0.0, 1.0),))


def brusselator(t: Any, y: Any) -> Any:
    x, z = y[0], y[1]
    parts = [1 + x * x * z - 4 * x, 3 * x - x * x * z]
    return torch.stack(parts) if isinstance(y, Tensor) else np.array(parts)


def swing(t: Any, y: Any) -> Any:
    """One equation that forces rejections."""
    return (torch.cos(10 * t) if isinstance(t, Tensor) else np.cos(10 * t)) * 5 * y


def ours(
    method: Any, field: Any, y0: list[float], end: float, tolerance: tuple[float, float], **options: Any
) -> Solution:
    start = torch.tensor(y0, dtype=torch.float64)
    controller = AfterRejection(*tolerance)
    return integrate(field, start, 0.0, end, method=method, controller=controller, record=("steps",), **options)


def theirs(
    solver: Any, field: Any, y0: list[float], end: float, tolerance: tuple[float, float]
) -> tuple[Any, list[float], list[Any]]:
    rtol, atol = tolerance
    stepper = solver(field, 0.0, np.array(y0), end, rtol=rtol, atol=atol)
    times, pieces = [0.0], []
    while stepper.status == "running":
        assert stepper.step() is None
        times.append(stepper.t)
        pieces.append((stepper.nfev, stepper.dense_output()))
    return stepper, times, pieces


# the estimate of order 8 is SciPy's where all components are tolerated alike, or where there is one
PAIRS = [
    pytest.param(Bosh3(), RK23, brusselator, [1.5, 3.0], (1e-4, 1e-6), id="bosh3"),
    pytest.param(Dopri5(), RK45, brusselator, [1.5, 3.0], (1e-6, 1e-8), id="dopri5"),
    pytest.param(Dopri8(), DOP853, brusselator, [1.5, 3.0], (1e-13, 1e-8), id="dopri8"),
    pytest.param(Bosh3(), RK23, swing, [1.0], (1e-4, 1e-6), id="bosh3 scalar"),
    pytest.param(Dopri5(), RK45, swing, [1.0], (1e-6, 1e-8), id="dopri5 scalar"),
    pytest.param(Dopri8(), DOP853, swing, [1.0], (1e-9, 1e-11), id="dopri8 scalar"),
]


@pytest.mark.parametrize(("method", "solver", "field", "y0", "tolerance"), PAIRS)
def test_steps_are_scipys(
    method: Any, solver: Any, field: Any, y0: list[float], tolerance: tuple[float, float]
) -> None:
    found = ours(method, field, y0, 3.0, tolerance, saveat=SaveAt(steps=True))
    stepper, times, _ = theirs(solver, field, y0, 3.0, tolerance)
    assert found.stats.rejected > 0
    # error estimates are small differences of large numbers: their rounding shows in the steps
    np.testing.assert_allclose(found.ts, times[1:], rtol=1e-6)
    np.testing.assert_allclose(found.ys[-1], stepper.y, rtol=1e-8)


@pytest.mark.parametrize(("method", "solver", "field", "y0", "tolerance"), PAIRS)
def test_states_inside_steps_are_scipys(
    method: Any, solver: Any, field: Any, y0: list[float], tolerance: tuple[float, float]
) -> None:
    if isinstance(method, Dopri5):
        pytest.skip("SciPy takes another interpolant of order 4")
    found = ours(method, field, y0, 3.0, tolerance, saveat=SaveAt(dense=True))
    _, times, pieces = theirs(solver, field, y0, 3.0, tolerance)
    for k in range(0, len(pieces), max(1, len(pieces) // 10)):
        at = times[k] + (times[k + 1] - times[k]) * np.array([0.1, 0.5, 0.83])
        np.testing.assert_allclose(found.evaluate(at), pieces[k][1](at).T, rtol=1e-6)


def hairer(slopes: Any, h: float) -> float:
    e5, e3 = slopes.T @ DOP853.E5, slopes.T @ DOP853.E3
    return h * float((e5 @ e5) / np.sqrt(((e5 @ e5) + 0.01 * (e3 @ e3)) * len(e5)))


def test_the_estimate_of_each_sample_is_hairers() -> None:
    generator = torch.Generator().manual_seed(0)
    k = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(13)]
    h = torch.tensor([0.3, 0.1, 2.0, 1.0], dtype=torch.float64)
    found = Dopri8().error(h[:, None], k).square().mean(1).sqrt()
    expected = [hairer(torch.stack(k)[:, i].numpy(), float(h[i])) for i in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    together = Dopri8().error(h[0], k).square().mean().sqrt()
    assert float(together) == pytest.approx(hairer(torch.stack(k).reshape(13, 12).numpy(), 0.3), rel=1e-12)


def test_no_error_is_no_obstacle() -> None:
    """A field that is zero has zero for both estimates: no division by zero, and finite gradients."""
    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    found = integrate(lambda t, y: 0 * y, y0, 0.0, 1.0, method=Dopri8(), controller=PID(1e-6, 1e-6), record=("steps",))
    (found.y1.sum() + found.record.ratio.sum()).backward()
    torch.testing.assert_close(y0.grad, torch.ones_like(y0))
