"""Reversible methods: order, inverse, stability, error estimate."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    ODE,
    PID,
    RK4,
    Bosh3,
    Dopri5,
    Euler,
    Midpoint,
    Reversible,
    ReversibleHeun,
    SaveAt,
    integrate,
)
from isocline.integrators.terms import bound

DOUBLE = {"dtype": torch.float64}
METHODS = [Reversible(Euler(), 1.0), Reversible(Midpoint()), Reversible(Bosh3()), Reversible(RK4()), ReversibleHeun()]


def swing(t: Tensor, y: Tensor) -> Tensor:
    """Its solution is y0 exp(sin t - t / 5)."""
    return y * (torch.cos(t) - 0.2)


def rotation(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([-y[1], y[0]])


def turning(t: Tensor, y: Tensor) -> Tensor:
    """Turns by the angle t + (1 - cos 2t) / 2."""
    return rotation(t, y) * (1 + torch.sin(2 * t))


@pytest.mark.parametrize("span", [(0.0, 2.0), (1.0, -1.0)])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m).__name__}-{m.order}")
def test_order(method: Any, span: tuple[float, float]) -> None:
    """Without damping the two states stay together; with l < 1 the constant changes where n (1 - l) is not small."""
    first = torch.tensor([1.0, -0.5], **DOUBLE)
    t0, t1 = span
    angles = (t1 - t0, t1 - t0 - (math.cos(2 * t1) - math.cos(2 * t0)) / 2)
    n = {1: 200, 2: 100, 3: 60, 4: 40}[method.order]
    for field, angle in zip((rotation, turning), angles, strict=True):
        c, s = math.cos(angle), math.sin(angle)
        exact = torch.tensor([[c, -s], [s, c]], **DOUBLE) @ first
        errors = [
            (integrate(field, first, *span, method=method, dt0=2.0 / m).y1 - exact).abs().max() for m in (n, 2 * n)
        ]
        assert abs(math.log2(float(errors[0] / errors[1])) - method.order) < 0.15


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m).__name__}-{m.order}")
def test_the_inverse_undoes_three_hundred_steps(method: Any) -> None:
    terms: Any = bound(ODE(lambda t, y: rotation(t, y) * torch.cos(t)), None, None)  # type: ignore[type-var, arg-type]
    h = torch.tensor(0.01, **DOUBLE)
    y = torch.tensor([1.0, -0.5], **DOUBLE)
    t, state = torch.zeros((), **DOUBLE), method.start(terms, torch.zeros((), **DOUBLE), y, None)
    passed = [(y, *state)]
    for k in range(300):
        step = method.step(terms, t + k * h, h, y, state)
        y, state = step.y, step.state
        passed.append((y, *state))
    for k in reversed(range(300)):
        y, state = method.inverse(terms, t + k * h, h, y, state)
        for now, then in zip((y, *state), passed[k], strict=True):
            assert float((now - then).abs().max()) < 1e-12


def test_a_step_is_what_the_paper_writes() -> None:
    h, l, t = 0.1, 0.9, 0.3
    y, z = 1.2, 1.1
    slope = lambda t, y: y * (math.cos(t) - 0.2)  # noqa: E731
    y1 = l * y + (1 - l) * z + h * slope(t, z)
    z1 = z + h * slope(t + h, y1)
    terms: Any = bound(ODE(swing), None, None)  # type: ignore[type-var, arg-type]
    as_tensor = lambda x: torch.tensor([x], **DOUBLE)  # noqa: E731
    step = Reversible(Euler(), l).step(
        terms, torch.tensor(t, **DOUBLE), torch.tensor(h, **DOUBLE), as_tensor(y), (as_tensor(z),)
    )
    assert float(step.y) == pytest.approx(y1, abs=1e-15)
    assert float(step.state[0]) == pytest.approx(z1, abs=1e-15)
    assert step.evaluations == 2


def test_the_error_estimate_is_that_of_the_inner_method() -> None:
    y0 = torch.tensor([1.0, -0.5], **DOUBLE)
    inner = integrate(swing, y0, 0, 2, method=Dopri5(), controller=PID(1e-6, 1e-6))
    outer = integrate(swing, y0, 0, 2, method=Reversible(Dopri5()), controller=PID(1e-6, 1e-6))
    assert abs(outer.stats.accepted - inner.stats.accepted) <= 2
    exact = y0 * math.exp(math.sin(2) - 0.4)
    assert float((outer.y1 - exact).abs().max()) < 1e-5
    heun = integrate(swing, y0, 0, 2, method=ReversibleHeun(), controller=PID(1e-5, 1e-5), max_steps=10_000)
    assert heun.status.ok
    assert float((heun.y1 - exact).abs().max()) < 1e-3


def test_states_inside_a_step() -> None:
    y0 = torch.tensor([1.0], **DOUBLE)
    exact = math.exp(math.sin(0.73) - 0.146)
    for method, bar in ((Reversible(RK4()), 2e-7), (ReversibleHeun(), 2e-4)):
        found = integrate(swing, y0, 0, 1, method=method, dt0=0.02, saveat=SaveAt(ts=[0.73]))
        assert abs(float(found.ys) - exact) < bar


def radius(method: Any, h: float) -> float:
    """Growth of all carried states of y' = -y in one step."""
    terms: Any = bound(ODE(lambda t, y: -y), None, None)  # type: ignore[type-var, arg-type]
    zero, size = torch.zeros((), **DOUBLE), torch.tensor(h, **DOUBLE)

    def both(yz: Tensor) -> Tensor:
        y, z = yz[:1], yz[1:]
        state = (z, -z) if isinstance(method, ReversibleHeun) else (z,)
        step = method.step(terms, zero, size, y, state)
        return torch.cat([step.y, step.state[0]])

    jacobian = torch.autograd.functional.jacobian(both, torch.ones(2, **DOUBLE))
    return float(torch.linalg.eigvals(jacobian).abs().max())


def test_reversible_heun_is_unstable_where_the_docstring_says_so() -> None:
    assert all(radius(ReversibleHeun(), h) > 1.0 for h in (0.01, 0.1, 0.5))
    assert radius(ReversibleHeun(), 0.1) == pytest.approx(1.10, abs=0.01)


def test_the_step_up_to_which_damping_is_stable() -> None:
    for method in (Euler(), Midpoint(), RK4()):
        assert radius(Reversible(method, 0.9), 0.08) < 1.0  # a h < 1 - l
        assert radius(Reversible(method, 0.9), 0.15) > 1.0
        assert radius(Reversible(method, 1.0), 0.01) > 1.0


def test_the_coupling_lies_between_zero_and_one() -> None:
    for coupling in (0.0, 1.1, -0.5):
        with pytest.raises(InvalidInput, match="coupling"):
            Reversible(coupling=coupling)
