"""The combined equation: fifth order, agreement with ETDRK4, conservation, exact linear terms, shocks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.equations.classical import PeriodicEvolution
from isocline.equations.classical.weno import CombinedEquation, weno
from isocline.points import Box

D = torch.float64
L = 2 * math.pi
NODES, WEIGHTS = [-0.9061798459386640, -0.5384693101056831, 0.0], [0.2369268850561891, 0.4786286704993665, 128 / 225]


def cells(f: Callable[[Tensor], Tensor], n: int, length: float = L) -> Tensor:
    """Return averages of f over n cells by Gauss's rule of five points, (n,)."""
    h = length / n
    middle = h * (torch.arange(n, dtype=D) + 0.5)
    total = WEIGHTS[2] * f(middle)
    for node, weight in zip(NODES[:2], WEIGHTS[:2], strict=True):
        total = total + weight * (f(middle + 0.5 * h * node) + f(middle - 0.5 * h * node))
    return 0.5 * total


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=D)


def order(errors: list[float], k: int = 1) -> float:
    return math.log2(errors[-1 - k] / errors[-1]) / k


def test_reconstruction_has_fifth_order_and_is_symmetric() -> None:
    errors = []
    for n in (32, 64):
        face = (torch.arange(n, dtype=D) + 1) * (L / n)
        left, right = weno(cells(lambda x: torch.exp(torch.sin(x)), n))
        errors.append(float((left - torch.exp(torch.sin(face))).abs().mean()))
        mirrored = weno(cells(lambda x: torch.exp(torch.sin(-x)), n))[0]
        # the right face of cell i is the left face of the mirrored one
        torch.testing.assert_close(right, mirrored.flip(-1).roll(-1, -1), rtol=1e-12, atol=1e-12)
    assert order(errors) >= 4.5


def burgers(edges: Tensor, t: float) -> Tensor:
    """Return exact averages between edges for u(x, 0) = 1 + sin(x) / 2, before the shock, by characteristics."""
    foot = edges.clone()
    for _ in range(60):
        foot = foot - (foot + t * (1 + 0.5 * torch.sin(foot)) - edges) / (1 + 0.5 * t * torch.cos(foot))
    potential = foot - 0.5 * torch.cos(foot) + 0.5 * t * (1 + 0.5 * torch.sin(foot)) ** 2
    return torch.diff(potential) / torch.diff(edges)


def test_burgers_has_fifth_order_before_the_shock() -> None:
    errors = []
    for n in (48, 96, 192):
        edges = torch.arange(n + 1, dtype=D) * (L / n)
        # steps of third order shrink faster than cells, so that space decides
        eq = CombinedEquation(L, numbers(1.0), numbers(0.0), numbers(0.0), cfl=0.4 * (48 / n) ** (2 / 3))
        found = eq.advance(burgers(edges, 0.0)[None], 0.0, 0.6)[0]
        errors.append(float((found - burgers(edges, 0.6)).abs().mean()))
    assert order(errors) >= 4.5


def test_steps_have_third_order_with_all_terms_and_forcing() -> None:
    """A travelling sine is made a solution by its forcing; the error of steps of one size, taken by hand."""
    alpha, beta, gamma, n = 1.5, 0.2, 0.3, 128

    def forcing(t: Tensor) -> Tensor:
        def f(x: Tensor) -> Tensor:
            s, c = torch.sin(x - 2 * t), torch.cos(x - 2 * t)
            return -2 * c + alpha * s * c + beta * s - gamma * c

        return cells(f, n)[None]

    eq = CombinedEquation(L, numbers(alpha), numbers(beta), numbers(gamma), forcing)
    errors = []
    for steps in (10, 20, 40):
        u, h = cells(torch.sin, n)[None], 0.4 / steps
        for i in range(steps):
            u = eq.step(u, numbers(i * h), numbers(h))
        errors.append(float((u[0] - cells(lambda x: torch.sin(x - 0.8), n)).abs().mean()))
    assert 2.7 < order(errors) < 3.5
    assert errors[-1] < 1e-6


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(1.0, 0.1, 0.0), (3.0, 0.2, 0.5)])
def test_it_agrees_with_etdrk4(alpha: float, beta: float, gamma: float) -> None:
    length, stop = 16.0, 2.0

    def first(x: Tensor) -> Tensor:
        k = 2 * math.pi / length
        return 0.7 * torch.sin(k * x) + 0.4 * torch.cos(2 * k * x + 1)

    spectral = PeriodicEvolution(
        Box(x=(0, length), t=(0, stop)),
        lambda dx: beta * dx**2 - gamma * dx**3,
        lambda x: first(x[:, 0]),
        {(0,): lambda u: -0.5 * alpha * u**2},
    ).solve(256, 512, 64)
    eq = CombinedEquation(length, numbers(alpha), numbers(beta), numbers(gamma), cfl=0.3)
    gaps = []
    for n in (80, 160):
        found = eq.advance(cells(first, n, length)[None], 0.0, stop)[0]
        exact = cells(lambda x: spectral(torch.stack([x, torch.full_like(x, stop)], 1))[:, 0], n, length)
        gaps.append(float((found - exact).norm() / exact.norm()))
    assert gaps[1] < 1e-4
    assert order(gaps) > 3.5  # they meet


def test_the_mean_is_kept_and_a_shock_moves_at_its_speed() -> None:
    n = 100
    u = torch.zeros(2, n, dtype=D)
    u[:, 10:40] = 1.0
    eq = CombinedEquation(1.0, numbers(1.0, 2.0), numbers(0.0, 1e-3), numbers(0.0, 0.0))
    after = eq.advance(u, 0.0, 0.2)
    assert float((after.mean(1) - u.mean(1)).abs().max()) < 1e-13
    front = float((after[0] > 0.5).nonzero().max() + 1) / n
    assert abs(front - (0.4 + 0.5 * 0.2)) <= 1 / n
    assert float(after[0].min()) > -1e-3
    assert float(after[0].max()) < 1 + 1e-3


def test_linear_terms_are_exact_in_one_step() -> None:
    n, t = 32, 5.0
    eq = CombinedEquation(L, numbers(0.0), numbers(0.03), numbers(0.7))
    found = eq.step(cells(lambda x: torch.sin(2 * x), n)[None], numbers(0.0), numbers(t))[0]
    # u = exp(-beta k^2 t) sin(k x + gamma k^3 t)
    exact = math.exp(-0.12 * t) * cells(lambda x: torch.sin(2 * x + 5.6 * t), n)
    assert float((found - exact).abs().max()) < 1e-13


def test_cases_do_not_see_each_other_and_gradients_flow() -> None:
    u = torch.randn(8, 30, dtype=D, generator=torch.Generator().manual_seed(0)).cumsum(1) / 5
    coefficients = torch.linspace(0.1, 1.0, 8, dtype=D)
    whole = CombinedEquation(4.0, coefficients, coefficients / 20, coefficients / 100)
    part = CombinedEquation(4.0, whole.alpha[3:6], whole.beta[3:6], whole.gamma[3:6])
    assert float((whole.advance(u, 0.0, 0.3)[3:6] - part.advance(u[3:6], 0.0, 0.3)).abs().max()) < 1e-12
    leaf = u[3:6].clone().requires_grad_()
    (slope,) = torch.autograd.grad(part.advance(leaf, 0.0, 0.1).square().sum(), leaf)
    assert bool(slope.isfinite().all())
    assert float(slope.abs().sum()) > 1.0


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="beta must not be negative"):
        CombinedEquation(1.0, numbers(1.0), numbers(-1.0), numbers(0.0))
    u = torch.zeros(2, 10, dtype=D)
    u[1, 4] = math.nan
    zero = numbers(0.0, 0.0)
    with pytest.raises(NotFinite, match=r"in case 6, cell \d"):
        CombinedEquation(1.0, zero, zero, zero).advance(u, 0.0, 1.0, first=5)
