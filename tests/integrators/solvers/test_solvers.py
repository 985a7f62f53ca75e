from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    ODE,
    PID,
    TRBDF2,
    Chord,
    Dopri5,
    Each,
    Kvaerno3,
    Kvaerno5,
    NewtonKrylov,
    Reason,
    integrate,
)
from isocline.integrators.packing import Packing
from isocline.integrators.solvers.base import Rows, Stage, Work, jacobian
from isocline.integrators.terms import Counter, bound

SOLVERS = pytest.mark.parametrize("solver", [Chord(), NewtonKrylov()], ids=["chord", "krylov"])


def field(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack(
        [-30 * y[..., 0] ** 3 + y[..., 1] * torch.sin(t.reshape(t.shape[:1])), torch.cos(y[..., 0]) - 5 * y[..., 1]], -1
    )


def bound_terms(function: Callable[..., Any], y: Tensor, batched: bool = False) -> tuple[ODE, Counter]:
    counter = Counter()
    return bound(ODE(function), None, Packing.of(y, batched=batched), counter), counter


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_the_jacobian_is_the_closed_form_and_counts_n() -> None:
    y = torch.tensor([0.7, -0.2], dtype=torch.float64)
    terms, counter = bound_terms(field, y)
    work = Work(terms.vf, terms)
    found = jacobian(work, Rows.of(y, terms), number(0.4), y)
    expected = torch.tensor([[-90 * 0.49, np.sin(0.4)], [-np.sin(0.7), -5.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    assert work.evaluations == counter.evaluations == 2


def test_jacobians_of_samples_and_of_complex_states() -> None:
    y = torch.tensor([[0.7, -0.2], [0.1, 0.3]], dtype=torch.float64)
    terms, counter = bound_terms(field, y, batched=True)
    times = torch.tensor([[0.4], [0.9]], dtype=torch.float64)
    found = jacobian(Work(terms.vf, terms), Rows.of(y, terms), times, y)
    for k in range(2):
        expected = torch.func.jacrev(lambda x, k=k: field(times[k, 0], x))(y[k])  # type: ignore[misc]
        torch.testing.assert_close(found[k], expected, rtol=1e-14, atol=1e-14)
    assert counter.evaluations == 2
    z = torch.tensor([1.0 + 2.0j], dtype=torch.complex128)
    terms, _ = bound_terms(lambda t, y: y * y.conj() * y, z)
    rows = Rows.of(z, terms)
    found = jacobian(Work(terms.vf, terms), rows, number(0.0), z)

    def real(x: Tensor) -> Tensor:
        return x * x.square().sum()

    torch.testing.assert_close(found, torch.func.jacrev(real)(torch.view_as_real(z).flatten()), rtol=1e-13, atol=1e-13)


@SOLVERS
def test_a_stage_solves_its_equation(solver: Any) -> None:
    y = torch.tensor([0.7, -0.2], dtype=torch.float64)
    terms, _ = bound_terms(field, y)
    work, scale = Work(terms.vf, terms), number(0.02)
    ready = solver.prepare(work, Rows.of(y, terms), number(0.0), scale, y, ())
    found = ready.solve(Stage(number(0.5), y, scale, torch.zeros(2, dtype=torch.float64)), np.array(np.inf))
    assert not found.failed
    assert 0 < found.theta < 1
    torch.testing.assert_close(found.w, scale * field(number(0.5), y + found.w), rtol=1e-12, atol=1e-13)


@SOLVERS
def test_a_stage_without_a_solution_fails(solver: Any) -> None:
    y = torch.zeros(1, dtype=torch.float64)
    terms, _ = bound_terms(lambda t, y: 1 + y**2, y)
    ready = solver.prepare(Work(terms.vf, terms), Rows.of(y, terms), number(0.0), number(1.0), y, ())
    found = ready.solve(Stage(number(0.0), y, number(1.0), torch.zeros(1, dtype=torch.float64)), np.array(np.inf))
    assert found.failed  # w = 1 + w^2 has no real solution
    ended = integrate(lambda t, y: 1 + y**2, y, 0.0, 6.0, method=Kvaerno3(solver=solver), dt0=3.0)
    assert ended.status.reason is Reason.NOT_SOLVED


def test_a_blow_up_ends_where_it_is() -> None:
    y0 = torch.zeros(1, dtype=torch.float64)
    blow_up = integrate(lambda t, y: 1 + y**2, y0, 0.0, 2.0, method=Kvaerno3(), controller=PID(1e-2, 1e-2))
    assert not blow_up.status.ok
    assert blow_up.status.time == pytest.approx(np.pi / 2, abs=3e-2)


def test_a_field_that_is_not_finite_is_not_called_unsolved() -> None:
    found = integrate(lambda t, y: y / 0.0, torch.ones(1), 0.0, 1.0, method=Kvaerno3(), dt0=0.1)
    assert found.status.reason is Reason.NOT_FINITE


def test_krylov_is_chord() -> None:
    weights = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5
    y0 = torch.linspace(-1, 1, 12, dtype=torch.float64)

    def net(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ weights) - 200 * y + torch.sin(t)

    options: dict[str, Any] = {"controller": PID(1e-8, 1e-8)}
    dense = integrate(net, y0, 0.0, 0.05, method=Kvaerno5(), **options)
    krylov = integrate(net, y0, 0.0, 0.05, method=Kvaerno5(solver=NewtonKrylov()), **options)
    reference = integrate(net, y0, 0.0, 0.05, method=Dopri5(), controller=PID(1e-11, 1e-11))
    torch.testing.assert_close(krylov.y1, dense.y1, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(dense.y1, reference.y1, rtol=1e-8, atol=1e-8)
    filtered = integrate(net, y0, 0.0, 0.05, method=TRBDF2(solver=NewtonKrylov()), controller=PID(1e-5, 1e-5))
    torch.testing.assert_close(filtered.y1, dense.y1, rtol=1e-3, atol=1e-4)


def test_a_jacobian_is_kept_where_the_iteration_is_fast_and_after_rejections() -> None:
    y0 = torch.linspace(0.5, 1.0, 20, dtype=torch.float64)

    def mild(t: Tensor, y: Tensor) -> Tensor:
        return -100 * y + torch.cos(t)

    kept = integrate(mild, y0, 0.0, 1.0, method=Kvaerno3(), dt0=0.05)
    fresh = integrate(mild, y0, 0.0, 1.0, method=Kvaerno3(solver=Chord(keep=0.0)), dt0=0.05)
    assert kept.stats.nfe < fresh.stats.nfe - 15 * 20  # 20 steps: at most four Jacobians of 20 columns instead of 20
    torch.testing.assert_close(kept.y1, fresh.y1, rtol=1e-12, atol=1e-13)


def test_an_old_jacobian_that_does_not_do_is_replaced_before_the_step_is_given_up() -> None:
    y = torch.tensor([2.0], dtype=torch.float64)
    terms, _ = bound_terms(lambda t, y: -1e5 * (y - torch.cos(t)), y)
    slope, zero = terms.vf(number(0.0), y), torch.zeros(1, 1, dtype=torch.float64)
    fresh = Kvaerno3().step(terms, number(0.0), number(0.1), y, (slope,))
    old = Kvaerno3().step(terms, number(0.0), number(0.1), y, (slope, zero))
    assert old.failed is None
    assert old.evaluations > fresh.evaluations
    torch.testing.assert_close(old.y, fresh.y, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(old.again[1], torch.full((1, 1), -1e5, dtype=torch.float64))


@SOLVERS
def test_a_sample_does_not_see_its_batch_mates(solver: Any) -> None:
    def oscillator(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        return torch.stack([y[:, 1], mu[:, 0] * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)

    mu = torch.tensor([[1.0], [30.0], [1000.0]], dtype=torch.float64)
    y0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64).repeat(3, 1)
    options: dict[str, Any] = {
        "method": Kvaerno3(solver=solver),
        "batching": "per-sample",
        "controller": PID(1e-3, 1e-3),
    }
    together = integrate(oscillator, y0, 0.0, 2.0, args=Each(mu), **options)
    for k in range(3):
        alone = integrate(oscillator, y0[k : k + 1], 0.0, 2.0, args=Each(mu[k : k + 1]), **options)
        torch.testing.assert_close(together.y1[k], alone.y1[0], rtol=1e-12, atol=1e-12)
        assert together.stats.accepted[k] == alone.stats.accepted[0]


@SOLVERS
def test_gradients_are_those_of_the_implicit_function(solver: Any) -> None:
    y0 = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor([30.0, 5.0], dtype=torch.float64, requires_grad=True)

    def run(y0: Tensor, rate: Tensor) -> Tensor:
        def f(t: Tensor, y: Tensor) -> Tensor:
            return torch.stack([-rate[0] * y[0] ** 3 + y[1] * torch.sin(t), torch.cos(y[0]) - rate[1] * y[1]])

        return integrate(f, y0, 0.0, 0.2, method=Kvaerno3(solver=solver), dt0=0.1).y1

    assert torch.autograd.gradcheck(run, (y0, rate), atol=1e-7)
    with pytest.raises(InvalidInput, match="second derivatives"):
        torch.autograd.grad(run(y0, rate).sum(), y0, create_graph=True)


def unrolled(rate: Tensor, y0: Tensor, h: float, steps: int, iterations: int) -> Tensor:
    """Implicit Euler by fixed-point iteration whose every pass is recorded."""
    y = y0
    for _ in range(steps):
        z = y
        for _ in range(iterations):
            z = y + h * (torch.sin(rate * z) - z)
        y = z
    return y


def test_gradients_equal_those_through_many_iterations() -> None:
    from isocline.integrators import ImplicitEuler

    y0 = torch.tensor([0.7, -0.4, 1.3], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor([0.3, 0.9, -1.1], dtype=torch.float64, requires_grad=True)
    naive = unrolled(rate, y0, 0.1, 8, 60)
    found = integrate(lambda t, y: torch.sin(rate * y) - y, y0, 0.0, 0.8, method=ImplicitEuler(), dt0=0.1).y1
    torch.testing.assert_close(found, naive, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(found.sum(), (rate, y0)), torch.autograd.grad(naive.sum(), (rate, y0)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def saved_bytes(solver: Any) -> tuple[int, int]:
    """Bytes saved for the backward pass and evaluations of a run."""
    seen: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    y0 = torch.linspace(0.5, 1.5, 50, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        found = integrate(lambda t, y: -(y**3), y0, 0.0, 0.4, method=Kvaerno3(solver=solver), dt0=0.1)
    assert found.status.ok
    return sum(seen.values()), found.stats.nfe


def test_memory_does_not_grow_with_the_iterations() -> None:
    loose, few = saved_bytes(Chord(rtol=1e-2, atol=1e-2, keep=0.0))
    tight, many = saved_bytes(Chord(rtol=1e-12, atol=1e-12, keep=0.0))
    assert many > few + 40  # twelve stages, several iterations more in each
    assert tight < 1.1 * loose


def test_the_tolerance_of_the_controller_is_the_solvers() -> None:
    def costs(solver: Chord, tol: float) -> int:
        found = integrate(
            field,
            torch.tensor([0.7, -0.2], dtype=torch.float64),
            0.0,
            1.0,
            method=Kvaerno3(solver=solver),
            controller=PID(tol, tol),
        )
        assert found.status.ok
        return int(found.stats.nfe / found.stats.accepted)

    assert costs(Chord(), 1e-3) < costs(Chord(rtol=1e-12, atol=1e-12), 1e-3)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 2 iterations"):
        Chord(iterations=1)
    with pytest.raises(InvalidInput, match="kappa must be positive"):
        Chord(kappa=0.0)
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        NewtonKrylov(forcing=2.0)
