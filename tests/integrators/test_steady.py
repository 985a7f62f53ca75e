"""Steady states: found by three ways, with the gradient of the implicit function theorem."""

from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.integrators import Anderson, Implicit, Krylov, Newton, Relax, steady_state
from isocline.integrators.gradients.implicit import gmres

DOUBLE = {"dtype": torch.float64}
FINDERS = [Newton(), Newton(linear=Krylov(dense=0)), Anderson(), Relax()]


def contraction(t: Tensor, y: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
    weight, bias = args
    return torch.tanh(y @ weight.mT + bias) - y


def equilibrium(n: int = 6, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n, n, generator=generator, **DOUBLE)
    weight = 0.7 * weight / torch.linalg.matrix_norm(weight, 2)
    bias = torch.randn(batch, n, generator=generator, **DOUBLE)
    return weight.requires_grad_(), bias.requires_grad_(), torch.zeros(batch, n, **DOUBLE)


@pytest.mark.parametrize("solver", FINDERS, ids=lambda x: type(x).__name__)
def test_a_linear_equation_has_its_closed_form(solver: Any) -> None:
    weight = torch.tensor([[-2.0, 0.5], [0.3, -1.0]], **DOUBLE, requires_grad=True)
    bias = torch.tensor([1.0, -2.0], **DOUBLE, requires_grad=True)
    found = steady_state(lambda t, y, a: a[0] @ y + a[1], torch.zeros(2, **DOUBLE), args=(weight, bias), solver=solver)
    exact = -torch.linalg.solve(weight, bias)
    torch.testing.assert_close(found.y, exact, rtol=0, atol=1e-7)
    assert found.ok
    assert found.residual <= 1e-8
    assert found.nfe > 0
    for a, b in zip(
        torch.autograd.grad(found.y.sin().sum(), (weight, bias)),
        torch.autograd.grad(exact.sin().sum(), (weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", FINDERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("dense", [0, 64])
def test_the_gradient_is_that_of_the_iteration_run_to_the_end(solver: Any, dense: int) -> None:
    weight, bias, y0 = equilibrium()
    mode = Implicit(Krylov(dense=dense))
    found = steady_state(contraction, y0, args=(weight, bias), solver=solver, gradient=mode, tolerance=1e-10)
    y = y0
    for _ in range(150):
        y = torch.tanh(y @ weight.mT + bias)
    torch.testing.assert_close(found.y, y, rtol=0, atol=1e-9)
    expected = torch.autograd.grad((y**3).sum(), (weight, bias))
    torch.testing.assert_close(torch.autograd.grad((found.y**3).sum(), (weight, bias)), expected, rtol=1e-7, atol=1e-8)


def test_gradcheck_and_no_second_derivative() -> None:
    weight, bias, y0 = equilibrium(3, 2)

    def root(weight: Tensor, bias: Tensor) -> Tensor:
        return steady_state(contraction, y0, args=(weight, bias), tolerance=1e-13).y

    assert torch.autograd.gradcheck(root, (weight, bias), nondet_tol=1e-12)
    (first,) = torch.autograd.grad(root(weight, bias).sum(), bias, create_graph=True)
    with pytest.raises(InvalidInput, match="no second derivatives"):
        first.sum().backward()


def test_structures_modules_and_closures() -> None:
    net = torch.nn.Linear(2, 2).double()
    with torch.no_grad():
        net.weight.mul_(0.3)
    field = lambda t, y: {"a": torch.tanh(net(y["b"])) - y["a"], "b": y["a"] / 2 + t - y["b"]}  # noqa: E731
    y0 = {"a": torch.zeros(2, **DOUBLE), "b": torch.zeros(2, **DOUBLE)}
    found = steady_state(field, y0, t=0.25)
    a = y0["a"]
    for _ in range(100):
        a = torch.tanh(net(a / 2 + 0.25))
    torch.testing.assert_close(found.y["a"], a, rtol=0, atol=1e-8)
    mine = torch.autograd.grad(found.y["a"].sum(), list(net.parameters()))
    torch.testing.assert_close(mine, torch.autograd.grad(a.sum(), list(net.parameters())), rtol=1e-6, atol=1e-7)


def test_relaxing_finds_the_stable_state_and_newton_the_near_one() -> None:
    field = lambda t, y: y - y**3  # noqa: E731  # 0 is unstable, 1 and -1 are stable
    y0 = torch.tensor([0.2], **DOUBLE)
    assert steady_state(field, y0, solver=Relax()).y.item() == pytest.approx(1.0, abs=1e-7)
    assert steady_state(field, y0, solver=Newton()).y.item() == pytest.approx(0.0, abs=1e-7)


def test_newton_halves_steps_that_overshoot() -> None:
    found = steady_state(lambda t, y: torch.atan(y), torch.tensor([5.0], **DOUBLE))  # whole steps diverge from 1.4 on
    assert found.ok
    assert abs(found.y.item()) < 1e-8


@pytest.mark.parametrize("solver", [Newton(), Anderson(most=20), Relax(longest=10.0)], ids=lambda x: type(x).__name__)
def test_failure_is_a_value(solver: Any) -> None:
    found = steady_state(lambda t, y: 1 + y**2, torch.tensor([0.5], **DOUBLE), solver=solver)
    assert not found.ok
    with pytest.raises(NotFinite, match=r"no steady state was found.*Relax"):
        found.check()


def test_a_singular_jacobian_is_found_out() -> None:
    a = torch.tensor(0.0, **DOUBLE, requires_grad=True)
    found = steady_state(
        lambda t, y, a: torch.stack([y[0] - y[1] + a, y[1] - y[0] + a]), torch.ones(2, **DOUBLE), args=a
    )
    with pytest.raises(NotFinite, match="singular"):
        found.y.sum().backward()


@pytest.mark.parametrize("n", [5, 30])
def test_gmres_solves_in_as_many_products_as_unknowns(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    matrix = torch.randn(n, n, generator=generator, **DOUBLE) + 3 * torch.eye(n, **DOUBLE)
    b = torch.randn(n, generator=generator, **DOUBLE)
    products = 0

    def apply(x: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return matrix @ x

    torch.testing.assert_close(gmres(apply, b, n, 1e-12), torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-9)
    assert products <= n
    few = gmres(apply, b, 3, 0.0)
    basis = torch.stack([b, matrix @ b, matrix @ (matrix @ b)], 1)
    least = torch.linalg.lstsq(matrix @ basis, b[:, None]).solution
    torch.testing.assert_close(few, (basis @ least)[:, 0], rtol=1e-7, atol=1e-8)  # the smallest residual of the space


def test_restarts_go_on_where_they_stopped() -> None:
    matrix = torch.diag(torch.linspace(1, 3, 80, **DOUBLE))
    b = torch.ones(80, **DOUBLE)
    x, miss = Krylov(dense=0, restart=5, rounds=30).solve(lambda v: matrix @ v, b)
    assert miss <= 1e-10
    torch.testing.assert_close(x, b / matrix.diag(), rtol=0, atol=1e-8)
    assert Krylov(dense=0, restart=5, rounds=1).solve(lambda v: matrix @ v, b)[1] > 1e-6


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match="tolerance"):
        steady_state(lambda t, y: -y, torch.zeros(1), tolerance=0.0)
    with pytest.raises(InvalidInput, match="real state"):
        steady_state(lambda t, y: -y, torch.zeros(1, dtype=torch.complex64))
    with pytest.raises(InvalidInput, match="does not depend"):
        steady_state(lambda t, y: torch.ones(1), torch.zeros(1))
