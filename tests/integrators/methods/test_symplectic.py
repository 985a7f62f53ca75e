"""Symplectic methods: order, symplecticity, reversibility, energy over long times."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    RK4,
    Dopri5,
    Leapfrog,
    SaveAt,
    SemiImplicitEuler,
    Separable,
    Splitting,
    Yoshida4,
    Yoshida6,
    integrate,
)
from isocline.integrators.methods.yoshida import FOURTH, composed
from isocline.integrators.packing import Packing
from isocline.integrators.terms import bound

DOUBLE = {"dtype": torch.float64}
METHODS = [SemiImplicitEuler(), Leapfrog(), Yoshida4(), Yoshida6()]
SYMMETRIC = METHODS[1:]
PENDULUM = Separable(lambda t, p: p, lambda t, q: -torch.sin(q))
# force and velocity both depend on the time
DRIVEN = Separable(lambda t, p: p * (1 + 0.4 * torch.sin(t)), lambda t, q: -torch.sin(q) + 0.6 * torch.cos(2 * t))


def named(method: Any) -> str:
    return type(method).__name__


def start(q: float = 1.2, p: float = 0.3) -> tuple[Tensor, Tensor]:
    return torch.tensor([q, -q / 2], **DOUBLE), torch.tensor([p, 2 * p], **DOUBLE)


def truth(driven: bool, t0: float, t1: float) -> np.ndarray[Any, Any]:
    def field(t: float, y: Any) -> Any:
        q, p = y[:2], y[2:]
        if driven:
            return np.concatenate([p * (1 + 0.4 * np.sin(t)), -np.sin(q) + 0.6 * np.cos(2 * t)])
        return np.concatenate([p, -np.sin(q)])

    y0 = torch.cat(start()).numpy()
    return solve_ivp(field, (t0, t1), y0, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]


@pytest.mark.parametrize("span", [(0.0, 2.0), (1.0, -1.0)])
@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=named)
def test_order(method: Splitting, driven: bool, span: tuple[float, float]) -> None:
    exact = truth(driven, *span)
    coarse = {1: 400, 2: 100, 4: 40, 6: 24}[method.order]
    errors = []
    for n in (coarse, 2 * coarse):
        y1 = integrate(DRIVEN if driven else PENDULUM, start(), *span, method=method, dt0=2.0 / n).y1
        errors.append(np.abs(torch.cat(y1).numpy() - exact).max())
    assert abs(math.log2(errors[0] / errors[1]) - method.order) < 0.15


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_states_inside_a_step(method: Splitting) -> None:
    exact = truth(True, 0.0, 0.73)
    errors = []
    for n in (25, 50):
        found = integrate(DRIVEN, start(), 0, 1, method=method, dt0=1 / n, saveat=SaveAt(ts=[0.73]))
        errors.append(np.abs(torch.cat([x[0] for x in found.ys]).numpy() - exact).max())
    assert math.log2(errors[0] / errors[1]) > min(method.order, 3) - 0.35


def step_map(method: Splitting, h: float) -> Any:
    packing = Packing.of(start())
    terms: Any = bound(DRIVEN, None, packing)  # type: ignore[type-var]
    t, size = torch.tensor(0.4, **DOUBLE), torch.tensor(h, **DOUBLE)

    def move(y: Tensor) -> Tensor:
        return method.step(terms, t, size, y, method.start(terms, t, y, None)).y

    return move


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_a_step_is_symplectic(method: Splitting) -> None:
    jacobian = torch.autograd.functional.jacobian(step_map(method, 0.3), torch.cat(start()))
    zero, one = torch.zeros(2, 2, **DOUBLE), torch.eye(2, **DOUBLE)
    form = torch.cat([torch.cat([zero, one], 1), torch.cat([-one, zero], 1)])
    assert float((jacobian.mT @ form @ jacobian - form).abs().max()) < 1e-14


def test_a_step_of_runge_kutta_is_not() -> None:
    jacobian = torch.autograd.functional.jacobian(step_map(RK4(), 0.3), torch.cat(start()))  # type: ignore[arg-type]
    assert abs(float(torch.linalg.det(jacobian)) - 1.0) > 1e-7


@pytest.mark.parametrize("method", SYMMETRIC, ids=named)
def test_the_way_back_is_the_way_there(method: Splitting) -> None:
    q, p = integrate(PENDULUM, start(), 0.0, 20.0, method=method, dt0=0.1).y1
    back = integrate(PENDULUM, (q, p), 20.0, 0.0, method=method, dt0=0.1).y1
    mirrored = integrate(PENDULUM, (q, -p), 0.0, 20.0, method=method, dt0=0.1).y1
    torch.testing.assert_close(back, start(), rtol=0, atol=1e-12)
    torch.testing.assert_close(mirrored, (start()[0], -start()[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_the_inverse_undoes_a_step(method: Splitting) -> None:
    terms: Any = bound(DRIVEN, None, Packing.of(start()))  # type: ignore[type-var]
    t, h, y = torch.tensor(0.4, **DOUBLE), torch.tensor(0.3, **DOUBLE), torch.cat(start())
    carry = method.start(terms, t, y, None)
    step = method.step(terms, t, h, y, carry)
    y0, before = method.inverse(terms, t, h, step.y, step.state)
    torch.testing.assert_close(y0, y, rtol=0, atol=1e-15)
    torch.testing.assert_close(before, carry, rtol=0, atol=1e-15)


def test_leapfrog_is_what_the_textbook_writes() -> None:
    q, p = start()
    h, t = 0.1, 0.0
    for _ in range(10):
        half = p + h / 2 * (-torch.sin(q) + 0.6 * math.cos(2 * t))
        # the velocity reads the clock of the momenta, which stands at the middle of the step
        q = q + h * half * (1 + 0.4 * math.sin(t + h / 2))
        t += h
        p = half + h / 2 * (-torch.sin(q) + 0.6 * math.cos(2 * t))
    torch.testing.assert_close(
        integrate(DRIVEN, start(), 0, 1, method=Leapfrog(), dt0=h).y1, (q, p), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(("method", "calls"), list(zip(METHODS, (2, 2, 6, 14), strict=True)), ids=str)
def test_evaluations(method: Splitting, calls: int) -> None:
    found = integrate(PENDULUM, start(), 0, 1, method=method, dt0=0.1)
    assert found.stats.nfe == 10 * calls + method.carries  # forces and velocities; the first force comes on top


def energy_error(method: Any, steps: int, h: float) -> float:
    """The largest error of the pendulum's energy in the last fifth of the way."""
    y0 = torch.tensor(1.2, **DOUBLE), torch.tensor(0.0, **DOUBLE)
    times = torch.linspace(0.8 * steps * h, steps * h, 60, **DOUBLE)
    q, p = integrate(
        PENDULUM, y0, 0.0, steps * h, method=method, dt0=h, saveat=SaveAt(ts=times), max_steps=steps + 1
    ).ys
    return float((p**2 / 2 - q.cos() + y0[0].cos()).abs().max())


def test_energy_over_a_thousand_steps() -> None:
    leapfrog = [energy_error(Leapfrog(), n, 0.2) for n in (100, 1000)]
    rk4 = [energy_error(RK4(), n, 0.2) for n in (100, 1000)]
    assert leapfrog[1] < 1.2 * leapfrog[0]
    assert rk4[1] > 5 * rk4[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", SYMMETRIC, ids=named)
def test_energy_over_a_hundred_thousand_steps(method: Splitting) -> None:
    early, late = (energy_error(method, n, 0.2) for n in (1000, 100_000))
    assert late < 1.5 * early + 1e-11


@pytest.mark.slow
def test_energy_of_runge_kutta_drifts() -> None:
    early, late = (energy_error(RK4(), n, 0.2) for n in (1000, 100_000))
    assert late > 10 * early
    assert late > energy_error(Leapfrog(), 1000, 0.2)


def test_any_method_integrates_the_same_equation() -> None:
    y1 = integrate(DRIVEN, start(), 0, 2, method=Dopri5(), dt0=0.01).y1
    np.testing.assert_allclose(torch.cat(y1).numpy(), truth(True, 0.0, 2.0), rtol=0, atol=1e-9)


def test_states_may_be_nested_and_samples_may_have_their_own_times() -> None:
    q, p = start()
    nested = Separable(
        lambda t, p: {"a": p["a"], "b": p["b"]}, lambda t, q: {"a": -torch.sin(q["a"]), "b": -torch.sin(q["b"])}
    )
    y0 = {"a": q[:, None], "b": q[:, None] + 1}, {"a": p[:, None], "b": p[:, None]}
    ends = torch.tensor([1.0, 0.55])
    found = integrate(nested, y0, 0.0, ends, method=Leapfrog(), dt0=0.05, batching="per-sample").y1
    for k in range(2):
        for name in "ab":
            alone = integrate(PENDULUM, (y0[0][name][k], y0[1][name][k]), 0.0, ends[k], method=Leapfrog(), dt0=0.05).y1
            torch.testing.assert_close((found[0][name][k], found[1][name][k]), alone, rtol=0, atol=1e-13)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Leapfrog integrates Separable terms"):
        integrate(lambda t, y: -y, torch.zeros(2), 0, 1, method=Leapfrog(), dt0=0.1)
    for y0 in (torch.zeros(2), (torch.zeros(2), torch.zeros(3)), (torch.zeros(2), torch.zeros(2), torch.zeros(2))):
        with pytest.raises(InvalidInput, match=r"pair \(q, p\)"):
            integrate(PENDULUM, y0, 0, 1, method=Leapfrog(), dt0=0.1)
    with pytest.raises(InvalidInput, match="kicks of a splitting add up to 1"):
        Splitting((0.5, 0.4), (1.0,), 2)
    with pytest.raises(InvalidInput, match="one more kick"):
        Splitting((1.0,), (1.0,), 1)
    with pytest.raises(InvalidInput, match="powers 5"):
        composed(FOURTH, 6)
    with pytest.raises(InvalidInput, match="both ends"):
        composed((0.2, 0.8), 2)
