"""SDEs in the loop: adaptive steps, rejected times, gradients that undo steps, both calculi, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline.integrators import (
    PID,
    SDE,
    BrownianPath,
    Checkpointed,
    Clip,
    Constant,
    Direct,
    EulerMaruyama,
    Event,
    Milstein,
    Reason,
    ReversibleAdjoint,
    ReversibleHeun,
    SaveAt,
    ShARK,
    SPaRK,
    Steps,
    StochasticHeun,
    integrate,
)
from isocline.integrators.sde import known_steps

F64 = torch.float64


def width(y: Tensor) -> Tensor:
    return (1 + y**2).sqrt()


def growing(path: Any, **settings: Any) -> SDE:
    """Solution sinh(arcsinh y0 + 0.3 t + 0.7 W)."""
    return SDE(lambda t, y: 0.3 * width(y), lambda t, y: 0.7 * width(y), path, calculus="stratonovich", **settings)


def exact(path: BrownianPath, t: float = 1.0) -> Tensor:
    return torch.sinh(0.3 * t + 0.7 * path(t))


def brownian(seed: int, shape: tuple[int, ...] = (8, 2), **options: Any) -> BrownianPath:
    return BrownianPath(seed, shape, 0.0, 1.0, area=True, dtype=F64, **options)


@pytest.mark.parametrize("method", [SPaRK(), StochasticHeun(), ReversibleHeun()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("batching", ["joint", "per-sample"])
def test_adaptive_steps_converge_with_the_tolerance(method: Any, batching: Any) -> None:
    worst = []
    for tolerance in (1e-1, 1e-3):
        errors = []
        for seed in range(5):
            path = brownian(seed)
            y0 = torch.zeros(8, 2, dtype=F64)
            controller = PID(tolerance, tolerance, p=0.1, i=0.3)
            solution = integrate(
                growing(path),
                y0,
                0.0,
                1.0,
                method=method,
                controller=controller,
                dt0=0.05,
                batching=batching,
                max_steps=20000,
            )
            solution.check()
            errors.append((solution.y1 - exact(path)).square().mean().sqrt())
        worst.append(float(torch.stack(errors).median()))
    assert np.sum(solution.stats.rejected) > 0
    assert worst[1] < worst[0] / 4
    assert worst[1] < 0.05


def test_later_steps_end_where_rejected_ones_did() -> None:
    """Otherwise what a rejection says of the noise would be thrown away, and accepted paths would be a biased choice."""
    controller = PID(1e-3, 1e-3, p=0.1, i=0.3)
    settings: Any = {
        "method": SPaRK(),
        "controller": controller,
        "dt0": 0.05,
        "record": ("steps",),
        "saveat": SaveAt(t1=True, steps=True),
    }
    for seed in range(5):
        record = integrate(growing(brownian(seed)), torch.zeros(8, 2, dtype=F64), 0.0, 1.0, **settings).record
        assert record is not None
        ends = record.t + record.h
        refused, taken = ends[~record.accepted], ends[record.accepted]
        assert len(refused) >= 3
        assert all(bool((taken - end).abs().min() < 1e-12) for end in refused)


def test_adaptive_means_are_not_biased() -> None:
    """dy = y o dW with general-noise steps: E y = exp(1/2), from 20000 samples with steps of their own."""
    terms = SDE(lambda t, y: 0 * y, lambda t, y: y, 4, calculus="stratonovich")
    solution = integrate(
        terms,
        torch.ones(20000, 1, dtype=F64),
        0.0,
        1.0,
        method=SPaRK(),
        controller=PID(0.02, 0.02, p=0.1, i=0.3),
        dt0=0.1,
        batching="per-sample",
    )
    spread = float((np.e**2 - np.e) ** 0.5) / 20000**0.5
    assert abs(float(solution.y1.mean()) - np.exp(0.5)) < 4 * spread
    assert solution.stats.rejected.sum() > 1000


def test_steps_known_beforehand_cost_one_normal_each() -> None:
    drawn: list[int] = []
    path = BrownianPath(0, (8, 2), 0.0, 1.0, grid=np.linspace(0, 1, 65), dtype=F64)
    original = path._drawn

    def counted(*asked: Any) -> Tensor:
        found = original(*asked)
        drawn.append(found.numel() // 16)
        return found

    path._drawn = counted  # type: ignore[method-assign]
    integrate(growing(path), torch.zeros(8, 2, dtype=F64), 0.0, 1.0, method=StochasticHeun(), dt0=1 / 64)
    assert sum(drawn) == 64


def test_a_step_that_nearly_fills_the_span_is_a_cell() -> None:
    """0.03333333 is taken as 1 / 30 by the loop, so the cells must be thirtieths too, and each step one of them."""
    for dt0, count in ((0.03333333, 29), (0.3, 3)):
        grid = known_steps(np.float64(0.0), np.float64(1.0), Constant(), dt0)
        assert len(grid) == count
    assert np.allclose(
        known_steps(np.float64(0.0), np.float64(1.0), Constant(), 0.03333333), np.arange(1, 30) / 30, atol=1e-15
    )


def test_the_path_of_fixed_steps_agrees_with_its_tree() -> None:
    """The path that fixed steps use is the one that can be asked at any time afterwards."""
    y0 = torch.zeros(8, 2, dtype=F64)
    noise = SDE(lambda t, y: 0 * y, lambda t, y: torch.ones_like(y), 3, noise="additive")
    steps = integrate(
        noise, y0, 0.0, 1.0, method=EulerMaruyama(), dt0=0.1, saveat=SaveAt(ts=np.linspace(0.1, 1, 10))
    ).ys
    grid = known_steps(np.float64(0.0), np.float64(1.0), Constant(), 0.1)
    path = BrownianPath(3, (8, 2), 0.0, 1.0, grid=grid, dtype=F64)
    assert all(torch.allclose(steps[k], path(0.1 * (k + 1)), atol=1e-12) for k in range(10))
    assert torch.allclose(path.increment(0.1, 0.13).w + path.increment(0.13, 0.2).w, steps[1] - steps[0], atol=1e-12)


@pytest.mark.parametrize(
    "controller", [Constant(), Steps(np.linspace(0, 1, 9)), Clip(PID(1e-2, 1e-2, p=0.1, i=0.3), times=(0.35, 0.7))]
)
@pytest.mark.parametrize("batching", ["joint", "per-sample"])
def test_every_controller_and_direction(controller: Any, batching: Any) -> None:
    settings: Any = {"method": SPaRK(), "controller": controller, "dt0": 0.125, "batching": batching}
    path = brownian(2)
    forward = integrate(growing(path), torch.zeros(8, 2, dtype=F64), 0.0, 1.0, **settings).check().y1
    back = integrate(growing(path), forward, 1.0, 0.0, **settings).check().y1
    assert float((forward - exact(path)).square().mean().sqrt()) < 0.2
    assert float(back.square().mean().sqrt()) < 0.2  # the same noise leads back


def test_gradients_of_undone_steps_equal_direct_ones() -> None:
    found = []
    for gradient in (Direct(), Checkpointed(), ReversibleAdjoint()):
        torch.manual_seed(0)
        drift, diffusion = (
            torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
            for _ in range(2)
        )
        terms = SDE(
            lambda t, y, f=drift: f(y),
            lambda t, y, g=diffusion: 0.3 * g(y),
            1,
            noise="general",
            calculus="stratonovich",
        )
        y0 = torch.linspace(-1, 1, 12, dtype=F64).reshape(4, 3).requires_grad_()
        solution = integrate(
            terms, y0, 0.0, 1.0, method=ReversibleHeun(), dt0=0.002, gradient=gradient, saveat=SaveAt(ts=[0.3, 1.0])
        )
        found.append(
            torch.autograd.grad(solution.ys.square().sum(), [y0, *drift.parameters(), *diffusion.parameters()])
        )
    for other in found[1:]:
        for direct, mine in zip(found[0], other, strict=True):
            assert (direct - mine).abs().max() <= 1e-10 * direct.abs().max()


def test_steps_that_begin_at_zero_are_undone() -> None:
    """The way back ends near zero, not at it: what is near is measured by the solution, not by its start."""
    weight = torch.ones(3, requires_grad=True)
    terms = SDE(lambda t, y: torch.tanh(weight + y), lambda t, y: 0.1 * torch.ones_like(y), 2, calculus="stratonovich")
    settings: Any = {"method": ReversibleHeun(), "dt0": 0.01}
    found = [
        integrate(terms, torch.zeros(16, 3), 0.0, 1.0, gradient=g, **settings).y1
        for g in (Direct(), ReversibleAdjoint())
    ]
    direct, undone = (torch.autograd.grad(y.square().mean(), weight)[0] for y in found)
    assert torch.allclose(direct, undone, rtol=1e-4)


def test_gradients_of_adaptive_steps_equal_direct_ones() -> None:
    for batching in ("joint", "per-sample"):
        found = []
        for gradient in (Direct(), Checkpointed()):
            rate = torch.tensor(0.3, dtype=F64, requires_grad=True)
            terms = SDE(
                lambda t, y, a=rate: a * width(y),
                lambda t, y, a=rate: (a + 0.4) * width(y),
                brownian(5),
                calculus="stratonovich",
            )
            y1 = integrate(
                terms,
                torch.zeros(8, 2, dtype=F64),
                0.0,
                1.0,
                method=SPaRK(),
                controller=PID(1e-2, 1e-2, p=0.1, i=0.3),
                dt0=0.05,
                gradient=gradient,
                batching=batching,  # type: ignore[arg-type]
            ).y1
            found.append(torch.autograd.grad(y1.square().sum(), rate)[0])
        assert abs(float(found[0] - found[1])) <= 1e-10 * abs(float(found[0]))


def test_gradient_is_the_derivative_of_the_solution_on_the_same_path() -> None:
    path = brownian(6)

    def end(rate: Tensor) -> Tensor:
        terms = SDE(lambda t, y: rate * y, lambda t, y: rate * y, path)
        return integrate(terms, torch.ones(8, 2, dtype=F64), 0.0, 1.0, method=Milstein(), dt0=0.05).y1.sum()

    rate = torch.tensor(0.4, dtype=F64, requires_grad=True)
    (found,) = torch.autograd.grad(end(rate), rate)
    with torch.no_grad():
        numeric = (end(rate + 1e-6) - end(rate - 1e-6)) / 2e-6
    assert abs(float(found - numeric)) < 1e-7 * abs(float(numeric))


@pytest.mark.parametrize("method", [EulerMaruyama(), Milstein()], ids=lambda m: type(m).__name__)
def test_converted_equations_have_the_same_solution(method: Any) -> None:
    path = brownian(0, (500, 1))
    ito = growing(path).converted("ito")
    assert ito.converted("ito") == ito
    y0 = torch.zeros(500, 1, dtype=F64)
    errors = [
        float((integrate(ito, y0, 0.0, 1.0, method=method, dt0=1 / n).y1 - exact(path)).abs().mean()) for n in (32, 512)
    ]
    assert errors[1] < errors[0] / 3
    back = integrate(ito.converted("stratonovich"), y0, 0.0, 1.0, method=StochasticHeun(), dt0=1 / 64).y1
    assert torch.allclose(
        back, integrate(growing(path), y0, 0.0, 1.0, method=StochasticHeun(), dt0=1 / 64).y1, atol=1e-12
    )


def test_nested_states_and_arguments() -> None:
    terms = SDE(
        lambda t, y, a: {"x": -a * y["x"], "z": y["x"].sum(-1)},
        lambda t, y, a: {"x": 0 * y["x"] + a, "z": 0 * y["z"]},
        0,
        noise="additive",
    )
    y0 = {"x": torch.ones(4, 3), "z": torch.zeros(4)}
    found = integrate(terms, y0, 0.0, 1.0, method=ShARK(), dt0=0.1, args=torch.tensor(0.5)).y1
    assert found["x"].shape == (4, 3)
    assert found["z"].shape == (4,)
    assert float(found["x"].std()) > 0.1


def test_events_and_counts() -> None:
    rising = SDE(lambda t, y: torch.ones_like(y), lambda t, y: 0.1 * torch.ones_like(y), 0, noise="additive")
    solution = integrate(
        rising,
        torch.zeros(3, 1, dtype=F64),
        0.0,
        2.0,
        method=EulerMaruyama(),
        dt0=0.01,
        batching="per-sample",
        events=Event(lambda t, y: y[:, 0] - 1),
    )
    assert all(reason is Reason.EVENT for reason in solution.status.reasons)
    assert torch.allclose(solution.y1, torch.ones(3, 1, dtype=F64), atol=1e-6)
    whole = integrate(rising, torch.zeros(3, 1, dtype=F64), 0.0, 1.0, method=EulerMaruyama(), dt0=0.01)
    assert whole.stats.nfe == 200


def test_a_seed_gives_the_same_bits_and_another_one_others() -> None:
    ends = [integrate(growing(seed), torch.zeros(4, 2), 0.0, 1.0, method=SPaRK(), dt0=0.1).y1 for seed in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: growing(0, noise="white"), "noise is one of additive, diagonal"),
        (lambda: SDE(width, width, 0, calculus="skorokhod"), "calculus is one of ito, stratonovich"),  # type: ignore[arg-type]
        (lambda: growing(0, channels=2), "leave out channels"),
        (lambda: growing(0, noise="general").converted("ito"), "write it in ito form"),
        (lambda: integrate(growing(0), torch.zeros(2), 0.0, 1.0, method=SPaRK(), controller=PID(0.1, 0.1)), "pass dt0"),
        (lambda: integrate(growing(0), torch.zeros(2), 0.0, 1.0, method=SPaRK()), "pass dt0"),
        (
            lambda: integrate(growing(brownian(0)), torch.zeros(2), 0.0, 1.0, method=SPaRK(), dt0=0.1),
            "the Brownian path has shape",
        ),
        (
            lambda: integrate(
                growing(0, noise="general", channels=2), torch.zeros(2, 3), 0.0, 1.0, method=SPaRK(), dt0=0.1
            ),
            "expected torch.float32 .2, 3, 2.",
        ),
        (
            lambda: integrate(growing(brownian(0)), torch.zeros(8, 2, dtype=F64), 0.0, 2.0, method=SPaRK(), dt0=0.1),
            "was asked for",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
