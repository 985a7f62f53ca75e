"""Deep equilibrium: the fixed point, its gradient, and the penalty on its Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, NotFinite
from isocline.integrators import Implicit, Krylov, Newton
from isocline.networks import DeepEquilibrium
from isocline.objectives import jacobian_penalty

DOUBLE = {"dtype": torch.float64}


class Cell(nn.Module):
    """``tanh(g A z + B x)``; contracts where ``g |A| < 1``."""

    def __init__(self, size: int = 4, inputs: int = 3, gain: float = 0.8, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(size, size, generator=generator, **DOUBLE)
        self.a = nn.Parameter(gain * a / torch.linalg.matrix_norm(a, 2))
        self.b = nn.Parameter(torch.randn(size, inputs, generator=generator, **DOUBLE))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.a.mT + x @ self.b.mT)


def data(batch: int = 5, inputs: int = 3) -> Tensor:
    return torch.randn(batch, inputs, generator=torch.Generator().manual_seed(1), **DOUBLE)


def test_a_linear_cell_has_its_closed_form() -> None:
    matrix = torch.tensor([[0.2, -0.5], [0.4, 0.1]], **DOUBLE)
    layer = DeepEquilibrium(lambda z, x: z @ matrix.mT + x, (2,), tolerance=1e-12)
    x = data(4, 2)
    exact = torch.linalg.solve(torch.eye(2, **DOUBLE) - matrix, x.mT).mT
    torch.testing.assert_close(layer(x), exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dense", [0, 64])
def test_the_implicit_gradient_is_that_of_the_block_applied_many_times(dense: int) -> None:
    cell, x = Cell(), data().requires_grad_()
    layer = DeepEquilibrium(cell, (4,), tolerance=1e-11, gradient=Implicit(Krylov(dense=dense)))
    z = torch.zeros(5, 4, **DOUBLE)
    for _ in range(250):
        z = cell(z, x)
    weights = torch.linspace(-1, 1, 20, **DOUBLE).reshape(5, 4)
    inputs = [x, *cell.parameters()]
    expected = torch.autograd.grad((weights * z).sum(), inputs)
    found = torch.autograd.grad((weights * layer(x)).sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_the_implicit_gradient_is_a_finite_difference() -> None:
    cell, x = Cell(), data()
    layer = DeepEquilibrium(cell, (4,), tolerance=1e-13)
    (found,) = torch.autograd.grad(layer(x).square().sum(), cell.a)
    eps = 1e-5
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            cell.a[1, 2] += sign * eps
            values.append(float(layer(x).square().sum()))
            cell.a[1, 2] -= sign * eps
    assert float(found[1, 2]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-6)


def test_single_precision_has_gradients_for_large_states() -> None:
    """More than 64 unknowns, so that the equation of the gradient is solved by GMRES."""
    cell, x = Cell(32), data(16)
    exact = torch.autograd.grad(DeepEquilibrium(cell, (32,), tolerance=1e-10)(x).sum(), cell.b)[0]
    single = Cell(32).float()
    found = torch.autograd.grad(DeepEquilibrium(single, (32,))(x.float()).sum(), single.b)[0]
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


def test_the_search_may_start_elsewhere_and_stores_nothing() -> None:
    layer, x = DeepEquilibrium(Cell(), (4,), tolerance=1e-10), data()
    cold = layer.solve(x)
    warm = layer.solve(x, cold.y.detach())
    assert warm.iterations == 0
    assert cold.iterations > 3
    torch.testing.assert_close(
        DeepEquilibrium(Cell(), (4,), tolerance=1e-10, solver=Newton())(x), cold.y, rtol=0, atol=1e-8
    )


def test_a_cell_without_fixed_point_is_said() -> None:
    layer = DeepEquilibrium(lambda z, x: z + 1 + x, (2,))
    assert not layer.solve(torch.zeros(1, 2)).ok
    with pytest.raises(NotFinite, match="no steady state was found"):
        layer(torch.zeros(1, 2))
    with pytest.raises(InvalidInput, match="must be positive"):
        DeepEquilibrium(lambda z, x: z, (2,), tolerance=0.0)


# ---------------------------------------------------------------------------------------------------- penalty


def exact_penalty(cell: Cell, z: Tensor, x: Tensor) -> Tensor:
    """Return the squared Frobenius norm of the Jacobian of each sample over d, averaged: here ``diag(1 - f^2) A``."""
    slope = 1 - cell(z, x).square()
    return (slope[:, :, None] * cell.a).square().sum((1, 2)).mean() / z.shape[1]


def test_the_penalty_is_unbiased_and_so_is_its_gradient() -> None:
    cell, x = Cell(), data()
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), **DOUBLE)
    exact = exact_penalty(cell, z, x)
    (slope,) = torch.autograd.grad(exact, cell.a, retain_graph=True)
    draws = torch.stack([jacobian_penalty(lambda z: cell(z, x), z, rng=3, step=step) for step in range(600)])
    values = draws.detach()
    error = float(values.std()) / 600**0.5
    assert 0 < error < 0.02 * float(exact.detach())
    assert abs(float(values.mean() - exact.detach())) < 4 * error
    (found,) = torch.autograd.grad(draws.mean(), cell.a)
    torch.testing.assert_close(found, slope, rtol=0, atol=0.08 * float(slope.abs().max()))


def test_probes_are_averaged_and_repeat() -> None:
    cell, x, z = Cell(), data(), torch.zeros(5, 4, **DOUBLE)

    def drawn(step: int, probes: int) -> float:
        return float(jacobian_penalty(lambda z: cell(z, x), z, rng=0, step=step, probes=probes).detach())

    assert drawn(1, 1) == drawn(1, 1) != drawn(2, 1)
    single, many = ([drawn(step, n) for step in range(40)] for n in (1, 16))
    assert float(torch.tensor(many).std()) < 0.5 * float(torch.tensor(single).std())


def test_the_gradient_goes_through_the_equilibrium_where_it_is_attached() -> None:
    """For a diagonal A random signs are exact, so that the whole derivative can be had by finite differences."""
    cell, x = Cell(), data()
    with torch.no_grad():
        cell.a.copy_(torch.diag(torch.tensor([0.9, 0.5, -0.7, 0.3], **DOUBLE)))
    layer = DeepEquilibrium(cell, (4,), tolerance=1e-13)

    def value(attached: bool = True) -> Tensor:
        z = layer(x)
        return jacobian_penalty(lambda z: cell(z, x), z if attached else z.detach(), rng=0, step=0)

    (whole,) = torch.autograd.grad(value(), cell.a)
    (part,) = torch.autograd.grad(value(attached=False), cell.a)
    eps, values = 1e-5, []
    with torch.no_grad():
        for sign in (1, -1):
            cell.a[0, 0] += sign * eps
            values.append(float(value()))
            cell.a[0, 0] -= sign * eps
    difference = (values[0] - values[1]) / (2 * eps)
    assert float(whole[0, 0]) == pytest.approx(difference, rel=1e-6)
    assert abs(float(part[0, 0]) - difference) > 0.05 * abs(difference)


@pytest.mark.parametrize("seed", range(5))
def test_a_smaller_penalty_takes_fewer_iterations(seed: int) -> None:
    cell, x = Cell(size=8, gain=1.5, seed=seed), data(20)
    layer = DeepEquilibrium(cell, (8,), tolerance=1e-8)
    optimiser = torch.optim.Adam([cell.a], lr=0.02)
    before = layer.solve(x)
    for step in range(25):
        optimiser.zero_grad()
        z = layer.solve(x).y.detach()
        jacobian_penalty(lambda z: cell(z, x), z, rng=seed, step=step).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    after = layer.solve(x)
    assert after.ok
    assert after.iterations < before.iterations


def test_a_map_must_keep_the_shape() -> None:
    with pytest.raises(InvalidInput, match="must keep the shape"):
        jacobian_penalty(lambda z: z[:, :1], torch.zeros(3, 2), rng=0, step=0)
    with pytest.raises(InvalidInput, match="at least one probe"):
        jacobian_penalty(lambda z: z, torch.zeros(3, 2), rng=0, step=0, probes=0)
