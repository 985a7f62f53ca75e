"""Penalties on the solver's work: against a step written here with SciPy's coefficients, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import RK45
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    PID,
    Backsolve,
    Bosh3,
    Checkpointed,
    Constant,
    Direct,
    Dopri5,
    Reversible,
    ReversibleAdjoint,
    SaveAt,
    Tsit5,
    integrate,
)
from isocline.objectives import (
    ExponentialDecay,
    error_cost,
    local_step,
    squared_error_cost,
    stability_size,
    stiffness_cost,
    uniform_time,
    visited_step,
    with_time,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
STEERING = PID(1e-5, 1e-6)
Y0 = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], **DOUBLE)
P = torch.tensor([1.3, -0.4, 0.7], **DOUBLE)


def wave(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """A field that depends on time, state and three parameters."""
    return torch.tanh(p[0] * y.flip(-1) + torch.cos(6 * t)) * p[1] * 4 - p[2] * torch.sin(2 * y)


class Naive(NamedTuple):
    """One step, written out."""

    y: Tensor
    ratio: Tensor
    stiffness: Tensor
    tolerated: Tensor


def naive_step(f: Callable[[Any, Tensor], Tensor], t: float, h: float, y: Tensor, tolerated: Any = None) -> Naive:
    """Dormand-Prince with SciPy's coefficients; what is tolerated is worked out unless it is given."""
    k, states = [], []
    for c, row in zip(RK45.C, RK45.A, strict=True):
        states.append(y + h * sum((float(a) * s for a, s in zip(row, k, strict=False)), torch.zeros_like(y)))
        k.append(f(torch.tensor(t + c * h, **DOUBLE), states[-1]))
    y1 = y + h * sum(float(b) * s for b, s in zip(RK45.B, k, strict=True))
    k.append(f(torch.tensor(t + h, **DOUBLE), y1))
    error = h * sum(float(e) * s for e, s in zip(RK45.E, k, strict=True))
    scale = 1e-6 + 1e-5 * torch.maximum(y.abs(), y1.abs()) if tolerated is None else tolerated
    ratio = (error / scale).square().mean().sqrt()
    return Naive(y1, ratio, (k[6] - k[5]).norm() / (y1 - states[5]).norm(), scale)


def naive_walk(p: Tensor, grid: list[tuple[float, float]], tolerated: Any = None) -> list[Naive]:
    y, walked = Y0, []
    for j, (t, h) in enumerate(grid):
        walked.append(naive_step(lambda t, y: wave(t, y, p), t, h, y, None if tolerated is None else tolerated[j]))
        y = walked[-1].y
    return walked


def recorded(p: Tensor, t0: float = 0.0, t1: float = 2.0, **more: Any) -> Any:
    more.setdefault("dt0", 1.0)  # far too large, so that attempts are rejected
    return integrate(wave, Y0, t0, t1, args=p, controller=STEERING, record=("steps",), **more)


def grid_of(solution: Any) -> list[tuple[float, float]]:
    record = solution.record
    return [(float(t), float(h)) for t, h, ok in zip(record.t, record.h, record.accepted, strict=True) if ok]


def differences(function: Callable[[Tensor], Tensor], p: Tensor, eps: float = 1e-5) -> Tensor:
    return torch.stack(
        [(function(p + eps * e) - function(p - eps * e)) / (2 * eps) for e in torch.eye(len(p), **DOUBLE)]
    )


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 2.0), (2.0, 0.0)])
def test_costs_are_those_of_a_step_written_out(t0: float, t1: float) -> None:
    solution = recorded(P, t0, t1)
    grid = grid_of(solution)
    walked = naive_walk(P, grid)
    assert solution.status.ok
    assert solution.stats.rejected > 0
    assert len(grid) == solution.stats.accepted
    ratios, sizes = torch.stack([step.ratio for step in walked]), torch.tensor([abs(h) for _, h in grid], **DOUBLE)
    stiffness = torch.stack([step.stiffness for step in walked])
    torch.testing.assert_close(error_cost(solution), (ratios * sizes).sum(), rtol=1e-7, atol=0)
    torch.testing.assert_close(squared_error_cost(solution), ratios.square().sum(), rtol=1e-7, atol=0)
    torch.testing.assert_close(stiffness_cost(solution, 3.3066), stiffness.sum() / 3.3066, rtol=1e-7, atol=0)
    torch.testing.assert_close(error_cost(solution.record), error_cost(solution))


def test_gradients_are_finite_differences_on_the_frozen_grid() -> None:
    p = P.clone().requires_grad_()
    solution = recorded(p)
    grid = grid_of(solution)
    tolerated = [step.tolerated for step in naive_walk(P, grid)]
    sizes = torch.tensor([h for _, h in grid], **DOUBLE)

    def frozen(cost: Callable[[list[Naive]], Tensor]) -> Tensor:
        return differences(lambda q: cost(naive_walk(q, grid, tolerated)), P)

    costs: list[tuple[Tensor, Callable[[list[Naive]], Tensor]]] = [
        (error_cost(solution), lambda walked: (torch.stack([s.ratio for s in walked]) * sizes).sum()),
        (squared_error_cost(solution), lambda walked: torch.stack([s.ratio for s in walked]).square().sum()),
        (stiffness_cost(solution, 1.0), lambda walked: torch.stack([s.stiffness for s in walked]).sum()),
    ]
    for ours, theirs in costs:
        (found,) = torch.autograd.grad(ours, p, retain_graph=True)
        torch.testing.assert_close(found, frozen(theirs), rtol=2e-5, atol=1e-7)


def test_the_controller_hides_the_cost_when_steps_may_follow() -> None:
    """Why step sizes are constants: a field c times as fast needs c times the steps, and has the same R_E on them."""

    def cost(c: float, grid: Any = None) -> tuple[float, int]:
        y0 = torch.tensor([1.0, 0.0], **DOUBLE)
        found = integrate(
            lambda t, y: c * torch.stack([y[1], -y[0]]), y0, 0.0, 20.0, controller=PID(0.0, 1e-6), record=("steps",)
        )
        return float(error_cost(found)), found.stats.accepted

    (slow, few), (fast, many) = cost(1.0), cost(2.0)
    assert many > 1.8 * few
    assert abs(fast / slow - 1) < 0.1
    rate = torch.tensor(1.0, **DOUBLE, requires_grad=True)
    found = integrate(
        lambda t, y: rate * torch.stack([y[1], -y[0]]),
        torch.tensor([1.0, 0.0], **DOUBLE),
        0.0,
        20.0,
        controller=PID(0.0, 1e-6),
        record=("steps",),
    )
    value = error_cost(found)
    value.backward()  # E_j is proportional to rate^6 on fixed steps, for this error estimate of order 5
    assert rate.grad is not None
    assert 4.5 < float(rate.grad / value.detach()) < 6.5


@pytest.mark.parametrize("method", [Tsit5(), Dopri5()], ids=lambda m: type(m).__name__)
def test_the_stiffness_of_a_linear_equation_is_its_rate(method: Any) -> None:
    turn = torch.tensor([[-1.0, -2.0], [2.0, -1.0]], **DOUBLE)  # normal: |A v| = sqrt(5) |v| for all v
    found = integrate(lambda t, y: y @ turn.mT, Y0, 0.0, 1.0, method=method, controller=STEERING, record=("steps",))
    expected = 5**0.5 * found.stats.accepted / stability_size(method)
    assert float(stiffness_cost(found, stability_size(method))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [Tsit5(), Dopri5()], ids=lambda m: type(m).__name__)
def test_the_stability_size_is_where_steps_begin_to_grow(method: Any) -> None:
    size = stability_size(method)
    for factor, damped in ((0.98, True), (1.02, False)):
        y1 = integrate(
            lambda t, y: -y, torch.ones(1, **DOUBLE), 0.0, 200 * size * factor, method=method, dt0=size * factor
        ).y1
        assert (abs(float(y1)) < 1.0) is damped


def test_samples_with_steps_of_their_own_have_costs_of_their_own() -> None:
    together = recorded(P, batching="per-sample")
    assert len(set(together.stats.accepted.tolist())) > 1
    for cost in (error_cost, squared_error_cost, stiffness_cost):
        alone = [
            cost(integrate(wave, y, 0.0, 2.0, args=P, controller=STEERING, record=("steps",), dt0=1.0)) for y in Y0
        ]
        torch.testing.assert_close(cost(together), torch.stack(alone), rtol=1e-6, atol=0)


def test_single_precision_stays_single() -> None:
    found = integrate(wave, Y0.float(), 0.0, 1.0, args=P.float(), controller=PID(1e-3, 1e-3), record=("steps",))
    assert {cost(found).dtype for cost in (error_cost, squared_error_cost, stiffness_cost)} == {torch.float32}


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InvalidInput, match=r'integrate with record=\("steps",\)'):
        error_cost(integrate(wave, Y0, 0.0, 1.0, args=P))
    with pytest.raises(InvalidInput, match="no stiffness estimates"):
        stiffness_cost(recorded(P, method=Bosh3()))
    with pytest.raises(InvalidInput, match="positive values"):
        ExponentialDecay(1.0, 0.0, 5)
    with pytest.raises(InvalidInput, match="at least one step"):
        ExponentialDecay(1.0, 0.5, 0)


# ---------------------------------------------------------------------------------------------------- one local step


AT, END = 0.63, 2.0


def test_the_local_step_is_a_fresh_step_from_the_state() -> None:
    y = torch.tensor([[0.4, -0.2], [1.0, 0.3]], **DOUBLE)
    record = local_step(wave, y, AT, END, args=P, controller=STEERING)
    h = float(record.h)
    first = integrate(wave, y, AT, END, args=P, controller=STEERING, record=("steps",)).record
    assert first is not None
    assert h == float(first.h[0])
    assert 0 < h < END - AT
    assert bool(record.accepted.all())
    made = naive_step(lambda t, y: wave(t, y, P), AT, h, y)
    torch.testing.assert_close(error_cost(record), made.ratio * h, rtol=1e-6, atol=0)
    torch.testing.assert_close(stiffness_cost(record, 1.0), made.stiffness, rtol=1e-6, atol=0)
    own = local_step(wave, y, AT, END, args=P, controller=STEERING, dt0=0.05)
    torch.testing.assert_close(error_cost(own), 0.05 * naive_step(lambda t, y: wave(t, y, P), AT, 0.05, y).ratio)


def penalty_after(solve: Callable[[Tensor], Tensor], p: Tensor, **more: Any) -> Tensor:
    return error_cost(local_step(wave, solve(p), AT, END, args=p, controller=STEERING, **more))


def test_no_gradient_runs_into_the_rule_of_the_first_step() -> None:
    """The gradient is that at a frozen step, through the state at t*; with the step following the rule it would be another."""
    p = P.clone().requires_grad_()

    def state(q: Tensor) -> Tensor:  # fixed steps, so that finite differences see no grid
        return integrate(wave, Y0, 0.0, AT, args=q, dt0=AT / 40).y1

    record = local_step(wave, state(p), AT, END, args=p, controller=STEERING)
    (found,) = torch.autograd.grad(error_cost(record), p)
    h = float(record.h)
    tolerated = naive_step(lambda t, y: wave(t, y, P), AT, h, state(P)).tolerated

    def frozen(q: Tensor) -> Tensor:
        return naive_step(lambda t, y: wave(t, y, q), AT, h, state(q), tolerated).ratio * h

    exact = differences(frozen, P)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))
    following = differences(lambda q: penalty_after(state, q).detach(), P)
    assert float((following - exact).norm()) > 0.2 * float(exact.norm())
    here = state(P)
    detached = differences(lambda q: naive_step(lambda t, y: wave(t, y, q), AT, h, here, tolerated).ratio * h, P)
    assert float((detached - exact).norm()) > 0.01 * float(exact.norm())  # the way through the state counts


@pytest.mark.parametrize("mode", [Checkpointed("sqrt"), Checkpointed("log"), ReversibleAdjoint(), Backsolve()], ids=str)
def test_every_gradient_mode_gives_the_same_penalty_and_gradient(mode: Any) -> None:
    method = Reversible(Dopri5()) if isinstance(mode, ReversibleAdjoint) else Dopri5()
    tight = PID(1e-8, 1e-8) if isinstance(mode, Backsolve) else PID(1e-5, 1e-5)

    def penalties(gradient: Any) -> list[tuple[Tensor, Tensor]]:
        p = P.clone().requires_grad_()
        kept = SaveAt(ts=[AT, END])
        found = integrate(wave, Y0, 0.0, END, args=p, method=method, controller=tight, gradient=gradient, saveat=kept)
        made = []
        for dt0 in (0.1, None):
            value = error_cost(local_step(wave, found.ys[0], AT, END, args=p, controller=STEERING, dt0=dt0))
            made.append((value, torch.autograd.grad(value + 1e-6 * found.ys[1].sum(), p, retain_graph=True)[0]))
        return made

    # the cautious automatic step is a difference of nearly equal slopes, which leaves fewer digits
    for ours, exact, digits in zip(penalties(mode), penalties(Direct()), (1e-10, 1e-7), strict=True):
        torch.testing.assert_close(ours[0], exact[0], rtol=digits, atol=0)
        allowed = 1e-4 if isinstance(mode, Backsolve) else 10 * digits
        torch.testing.assert_close(ours[1], exact[1], rtol=0, atol=allowed * float(exact[1].abs().max()))


@pytest.mark.parametrize("method", [Tsit5(), Dopri5()], ids=lambda m: type(m).__name__)
def test_the_local_penalty_costs_one_step(method: Any) -> None:
    """Eight evaluations: the first slope, one for the first step, six stages. The extra saved state costs none."""
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return wave(t, y, P)

    def solve(saveat: SaveAt) -> Any:
        return integrate(counted, Y0, 0.0, END, method=method, controller=STEERING, saveat=saveat)

    plain, solution = solve(SaveAt(t1=True)), solve(SaveAt(ts=[AT, END]))
    assert solution.stats.nfe == plain.stats.nfe
    assert calls == 2 * plain.stats.nfe
    before = calls
    local_step(counted, solution.ys[0], AT, END, method=method, controller=STEERING)
    assert calls - before == 8


def test_unbiased_times_are_uniform() -> None:
    drawn = [uniform_time(-1.0, 3.0, rng=4, step=step) for step in range(500)]
    assert stats.kstest(drawn, stats.uniform(-1.0, 4.0).cdf).pvalue > 1e-3
    assert drawn[7] == uniform_time(-1.0, 3.0, rng=4, step=7)


def test_biased_times_are_starts_of_steps_each_as_often() -> None:
    times = torch.tensor([0.5, 1.1, 2.0], **DOUBLE)
    plain = integrate(wave, Y0, 0.0, END, args=P, controller=STEERING, saveat=SaveAt(t0=True, steps=True))
    mixed = integrate(wave, Y0, 0.0, END, args=P, controller=STEERING, saveat=SaveAt(ts=times, t0=True, steps=True))
    starts, sizes = plain.ts[:-1].tolist(), plain.ts.diff().tolist()
    assert len(starts) == plain.stats.accepted
    drawn = [visited_step(plain, rng=0, step=step) for step in range(600)]
    counts = [sum(made.t == start for made in drawn) for start in starts]
    assert sum(counts) == 600
    assert stats.chisquare(counts).pvalue > 1e-3
    for step, (t, h, y) in enumerate(drawn[:20]):
        torch.testing.assert_close(y, plain.ys[starts.index(t)])
        assert h == sizes[starts.index(t)]
        again = visited_step(mixed, rng=0, step=step, asked=len(times))
        assert again[:2] == (t, h)
        torch.testing.assert_close(again.y, y)


def test_a_step_of_the_solvers_own_size_estimates_the_global_cost() -> None:
    """The mean over all steps, each made again at its own size, times their number is R_E."""
    found = integrate(
        wave, Y0, 0.0, END, args=P, controller=STEERING, saveat=SaveAt(t0=True, steps=True), record=("steps",)
    )
    drawn = {made.t: made for made in (visited_step(found, rng=0, step=step) for step in range(300))}
    assert len(drawn) == found.stats.accepted
    costs = [
        error_cost(local_step(wave, made.y, made.t, END, args=P, controller=STEERING, dt0=made.h))
        for made in drawn.values()
    ]
    torch.testing.assert_close(torch.stack(costs).sum(), error_cost(found), rtol=1e-6, atol=0)


def test_a_time_is_put_in_its_place() -> None:
    for times in (torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0])):
        for t in (0.2, 0.5, 0.9):
            found, place = with_time(times, t)
            assert float(found[place]) == t
            rest = torch.cat([found[:place], found[place + 1 :]])
            torch.testing.assert_close(rest, times.double())
            assert len(set(np.sign(np.diff(found.numpy()))) - {0.0}) == 1


def test_local_steps_refuse_what_they_cannot_do() -> None:
    solution = integrate(wave, Y0, 0.0, 1.0, args=P)
    with pytest.raises(InvalidInput, match="the steps were not kept"):
        visited_step(solution, rng=0, step=0)
    with pytest.raises(InvalidInput, match="draw t before the end"):
        local_step(wave, Y0, 1.0, 1.0, args=P, controller=STEERING)
    with pytest.raises(InvalidInput, match=r"pass controller=PID"):
        local_step(wave, Y0, 0.0, 1.0, args=P, controller=Constant(), dt0=0.1)
