"""Peak memory of gradients, counted from outside, against the number of steps."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from isocline.integrators import SDE, Checkpointed, Direct, ReversibleAdjoint, ReversibleHeun, Solution, integrate
from isocline.integrators.gradients.pullback import Pullback, solved
from isocline.integrators.problem import Problem

METHOD = ReversibleHeun()


def test_it_counts_what_lives_and_forgets_what_died() -> None:
    with LiveBytes() as count:
        for _ in range(100):
            torch.zeros(1000, dtype=torch.float64) + 1
    assert 8000 <= count.peak <= 18 * 16000
    with LiveBytes() as count:
        kept = [torch.zeros(1000, dtype=torch.float64) for _ in range(100)]
    assert 800_000 <= count.peak <= 800_100
    assert len(kept) == 100


def test_it_sees_what_only_a_graph_holds() -> None:
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    with LiveBytes() as count:
        y = x
        for _ in range(50):
            y = torch.exp(y * 0.1)
    assert 2 * 50 * 8000 > count.peak >= 50 * 8000  # exp saves its result


@dataclass(frozen=True)
class Crippled(ReversibleAdjoint):
    """Undoes nothing: it makes all steps again from the start and keeps their graphs, and its gradient is right."""

    def solve(self, problem: Problem) -> Solution:
        return solved(problem, None, self.all_at_once, self.parameters, "Crippled")

    def all_at_once(self, pullback: Pullback, y0: Tensor) -> Tensor | None:
        return pullback.back(0, len(pullback.tape.grid), (y0,), [None])[0]


@dataclass(frozen=True)
class Hoarding(ReversibleAdjoint):
    """Undoes its steps, but the forward pass stored every state all the same."""

    def solve(self, problem: Problem) -> Solution:
        states: list[Tensor] = []
        solution = super().solve(replace(problem, events=()))
        with torch.no_grad():
            for _ in range(solution.stats.accepted):
                states.append(problem.y0 + len(states))
        solution.y1.register_hook(lambda g: g + 0.0 * states[-1])
        return solution


def peak(gradient: Any, steps: int) -> int:
    """Bytes at the peak of one solution and its gradient, the grid of steps included; a state has 16 kB."""
    generator = torch.Generator().manual_seed(0)
    y0 = torch.randn(64, 32, dtype=torch.float64, generator=generator).requires_grad_()
    weight = (torch.randn(32, 32, dtype=torch.float64, generator=generator) / 6).requires_grad_()
    with LiveBytes() as count:
        solution = integrate(
            lambda t, y: torch.tanh(y @ weight),
            y0,
            0.0,
            1.0,
            method=METHOD,
            dt0=1.0 / steps,
            gradient=gradient,
            max_steps=steps + 2,
        )
        solution.y1.sum().backward()
    assert 0 <= solution.stats.accepted - steps <= 1  # rounding may leave a last small step
    assert y0.grad is not None
    assert weight.grad is not None
    grid = 0 if isinstance(gradient, Direct) else 16 * steps
    return count.peak + grid


def growth(gradient: Any, many: int, few: int = 100) -> float:
    return peak(gradient, many) / peak(gradient, few)


MODES = {
    "reversible": (ReversibleAdjoint(), 0.0, 1.5, 1.5),
    "log": (Checkpointed("log"), 0.0, 3.0, 3.0),
    "sqrt": (Checkpointed("sqrt"), 0.0, 5.0, 12.0),
    "direct": (Direct(), 0.5, 10.5, 105.0),
    "crippled": (Crippled(), 0.5, 10.5, 105.0),
}


@pytest.mark.parametrize("name", [name for name in MODES if name != "crippled"])
def test_memory_at_ten_times_the_steps(name: str) -> None:
    gradient, low, high, _ = MODES[name]
    found = growth(gradient, 1000) if name == "reversible" else growth(gradient, 400, 40)
    assert low * 10 <= found <= high


def sde_peak(gradient: Any, steps: int) -> int:
    """The same for a stochastic equation with a state of 16 kB."""
    generator = torch.Generator().manual_seed(0)
    y0 = torch.randn(64, 32, dtype=torch.float64, generator=generator).requires_grad_()
    weight = (torch.randn(32, 32, dtype=torch.float64, generator=generator) / 6).requires_grad_()
    terms = SDE(lambda t, y: torch.tanh(y @ weight), lambda t, y: 0.1 * torch.tanh(y), 0, calculus="stratonovich")
    with LiveBytes() as count:
        integrate(terms, y0, 0.0, 1.0, method=ReversibleHeun(), dt0=1.0 / steps, gradient=gradient).y1.sum().backward()
    return count.peak + (0 if isinstance(gradient, Direct) else 16 * steps)


def test_memory_of_undone_stochastic_steps_is_flat() -> None:
    assert sde_peak(ReversibleAdjoint(), 1000) <= 1.5 * sde_peak(ReversibleAdjoint(), 100)
    assert sde_peak(Direct(), 1000) >= 5 * sde_peak(Direct(), 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
def test_memory_at_a_hundred_times_the_steps(name: str) -> None:
    gradient, low, _, high = MODES[name]
    found = growth(gradient, 10_000)
    assert low * 100 <= found <= high


def test_a_reversible_mode_that_keeps_graphs_or_states_fails() -> None:
    bar = MODES["reversible"][2]
    assert growth(Crippled(), 200, 50) > 2 * bar
    assert growth(Hoarding(), 200, 50) > bar


def test_direct_saves_what_autograd_says() -> None:
    saved = 0

    def pack(x: Tensor) -> Tensor:
        nonlocal saved
        saved += x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        own = peak(Direct(), 50)
    assert saved > 0
    assert 0.3 < own / saved < 3.0
