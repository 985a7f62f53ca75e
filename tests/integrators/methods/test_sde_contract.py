"""What every method for SDEs must do: converge at its strong order, batch by batch alike, with gradients; see
tests/contracts/sde_methods.py."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline.integrators import (
    SDE,
    BrownianPath,
    Checkpointed,
    EulerMaruyama,
    Heun,
    Milstein,
    ReversibleHeun,
    integrate,
)
from tests.contracts.sde_methods import DIAGONAL, GENERAL, METHODS, PROBLEMS, Driven, Entry

F64 = torch.float64
CASES = [pytest.param(e, p, id=f"{e.name}-{p.noise}-{p.calculus}") for e in METHODS for p in e.problems]
EVERY = pytest.mark.parametrize("entry", METHODS, ids=lambda e: e.name)


@lru_cache(maxsize=4)
def reference(problem: Driven) -> tuple[BrownianPath, Tensor]:
    path = problem.path(seed=3)
    return path, problem.exact(path, problem)


def run(entry: Entry, problem: Driven, path: Any, steps: int, **settings: Any) -> Tensor:
    solution = integrate(problem.terms(path), problem.start(), 0.0, 1.0, method=entry.method, dt0=1 / steps, **settings)
    solution.check()
    return solution.y1


def easy(entry: Entry) -> Driven:
    return next(p for p in PROBLEMS if p in entry.problems and p.noise in ("diagonal", "additive"))


@pytest.mark.parametrize(("entry", "problem"), sorted(CASES, key=lambda c: str(c.id).split("-", 1)[1]))
def test_strong_order(entry: Entry, problem: Driven) -> None:
    path, exact = reference(problem)
    sizes = (16, 32, 64, 128)
    errors = [float((run(entry, problem, path, n) - exact).square().sum(-1).mean().sqrt()) for n in sizes]
    order = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(order - entry.method.strong[problem.noise]) < 0.15, errors


@EVERY
def test_samples_do_not_depend_on_each_other(entry: Entry) -> None:
    problem = easy(entry)
    settings: Any = {"method": entry.method, "dt0": 0.125, "batching": "per-sample"}
    start = problem.start()[:6]
    whole = integrate(problem.terms(7), start, 0.0, 1.0, **settings).y1
    joint = integrate(problem.terms(7), start, 0.0, 1.0, method=entry.method, dt0=0.125).y1
    part = integrate(problem.terms(7), start[:2], 0.0, 1.0, **settings).y1
    assert torch.allclose(whole, joint, rtol=0, atol=1e-12)
    assert torch.allclose(whole[:2], part, rtol=0, atol=1e-12)


@EVERY
def test_dtype_and_batch_shape(entry: Entry) -> None:
    problem = easy(entry)
    start = problem.start()[:12].float()
    y = integrate(problem.terms(0), start.reshape(3, 4, -1), 0.0, 1.0, method=entry.method, dt0=0.25).y1
    assert y.dtype == torch.float32
    assert y.shape == (3, 4, 2)


@EVERY
def test_gradients_of_replayed_steps_equal_direct_ones(entry: Entry) -> None:
    found = []
    for gradient in (None, Checkpointed()):
        weight = torch.tensor([0.3, -0.5], dtype=F64, requires_grad=True)
        problem = easy(entry)

        def drift(t: Tensor, y: Tensor, problem: Driven = problem, weight: Tensor = weight) -> Tensor:
            return problem.drift(t, y) + weight * y.sin()

        terms = SDE(drift, problem.diffusion, 5, noise=problem.noise, calculus=problem.calculus)  # type: ignore[arg-type]
        y0 = problem.start()[:5].requires_grad_()
        y1 = integrate(terms, y0, 0.0, 1.0, method=entry.method, dt0=0.02, gradient=gradient).y1
        found.append(torch.autograd.grad(y1.square().sum(), [weight, y0]))
    for direct, replayed in zip(*found, strict=True):
        assert torch.allclose(direct, replayed, rtol=1e-10, atol=0)


@EVERY
def test_without_noise_it_is_a_method_for_odes(entry: Entry) -> None:
    decay = SDE(lambda t, y: -y, lambda t, y: torch.zeros_like(y), 0, noise="additive")
    errors = [
        float(
            (
                integrate(decay, torch.ones(1, 1, dtype=F64), 0.0, 1.0, method=entry.method, dt0=1 / n).y1 - np.exp(-1)
            ).abs()
        )
        for n in (20, 40)
    ]
    assert np.log2(errors[0] / errors[1]) > 0.9


def test_wrong_pairings_are_refused_with_a_way_out() -> None:
    ito, stratonovich = DIAGONAL[1].terms(0), DIAGONAL[0].terms(0)
    y = torch.ones(2, 2, dtype=F64)
    cases: list[tuple[Any, Any, str]] = [
        (ito, ReversibleHeun(), "in the sense of stratonovich, and this SDE is ito; take Milstein"),
        (stratonovich, EulerMaruyama(), "take StochasticHeun"),
        (GENERAL[0].terms(0), Milstein(), "needs additive or diagonal or commutative noise, and this is general"),
        (ito, Heun(), "integrates equations without noise; for an SDE take Milstein"),
        (stratonovich, next(e.method for e in METHODS if e.name == "ShARK"), "needs additive noise"),
        (lambda t, y: -y, EulerMaruyama(), "integrates SDE terms, got ODE"),
    ]
    for terms, method, message in cases:
        with pytest.raises(ValueError, match=message):
            integrate(
                terms, torch.ones(2, 3, dtype=F64) if terms is cases[2][0] else y, 0.0, 1.0, method=method, dt0=0.1
            )
