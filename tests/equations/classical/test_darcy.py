"""Finite volumes for Darcy flow: orders, closed forms, gradients, and a second assembly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.equations.classical.darcy import conductances, solve_darcy

SIDES = (1.0, 1.5)


def middles(n: int, m: int, lengths: tuple[float, float] = SIDES) -> tuple[Tensor, Tensor]:
    lines = [
        length * (torch.arange(k, dtype=torch.float64) + 0.5) / k for k, length in zip((n, m), lengths, strict=True)
    ]
    x, y = torch.meshgrid(*lines, indexing="ij")
    return x, y


def slope(v: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(v.sum(), z, create_graph=True)[0]


def manufactured(n: int, tensor: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, f and u on a rectangle of n x n cells; f by automatic differentiation of the smooth a and u."""
    x, y = (z.requires_grad_(True) for z in middles(n, n))
    u = torch.sin(math.pi * x) * torch.sin(2 * math.pi * y / SIDES[1]) * torch.exp(x + 0.5 * y)
    p = 2 + torch.sin(3 * x + y)
    q, r = (1.5 + torch.cos(2 * y - x), 0.9 * torch.sin(x + 2 * y)) if tensor else (p, 0 * x * y)
    ux, uy = slope(u, x), slope(u, y)
    f = -slope(p * ux + r * uy, x) - slope(r * ux + q * uy, y)
    a = torch.stack([p, r, r, q], -1).unflatten(-1, (2, 2)) if tensor else p
    return a[None].detach(), f[None].detach(), u[None].detach()


@pytest.mark.parametrize("tensor", [False, True])
def test_second_order_on_a_smooth_medium(tensor: bool) -> None:
    errors = []
    for n in (16, 32, 64):
        a, f, u = manufactured(n, tensor)
        errors.append(float((solve_darcy(a, f, SIDES) - u).norm() / u.norm()))
    orders = [math.log2(before / after) for before, after in itertools.pairwise(errors)]
    assert min(orders) > 1.9, (errors, orders)
    assert max(orders) < 2.2


def test_fluxes_through_layers_are_those_of_resistances_in_a_row() -> None:
    """A strip so wide that nothing leaves through it: the flow of a source splits as the resistances of both ways say."""
    layers = torch.tensor([1.0, 1.0, 50.0, 0.02, 3.0, 7.0], dtype=torch.float64)
    wide, h, place = (1.0, 1e9), 1 / 6, 1
    f = torch.zeros(6, 1, dtype=torch.float64)
    f[place] = 1 / h  # a total of 1 for each unit of width
    u = solve_darcy(layers[None, :, None], f, wide)[0, :, 0]
    parts = h / layers
    left = float(parts[:place].sum() + parts[place] / 2)
    right = float(parts[place] / 2 + parts[place + 1 :].sum())
    u0 = left * right / (left + right)
    assert abs(float(u[place]) - u0) < 1e-12
    below = torch.cumsum(parts.flip(0), 0).flip(0) - parts / 2  # resistance from a middle to the right side
    torch.testing.assert_close(u[place:], below[place:] / right * u0, rtol=1e-12, atol=0)
    kx, _, _ = conductances(layers[None, :, None], wide)
    flux = -kx[0, :, 0] * torch.nn.functional.pad(u, (1, 1)).diff() / wide[1]
    torch.testing.assert_close(flux[: place + 1], torch.full((2,), -u0 / left, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(flux[place + 1 :], torch.full((5,), u0 / right, dtype=torch.float64), rtol=1e-12, atol=0)


def test_what_flows_out_is_what_the_source_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 9, 7, generator=generator, dtype=torch.float64) * 9 + 1
    f = torch.randn(2, 9, 7, generator=generator, dtype=torch.float64)
    u = solve_darcy(a, f, SIDES)
    kx, ky, _ = conductances(a, SIDES)
    out = (kx[:, [0, -1]] * u[:, [0, -1]]).sum((1, 2)) + (ky[..., [0, -1]] * u[..., [0, -1]]).sum((1, 2))
    torch.testing.assert_close(out, f.sum((1, 2)) * SIDES[0] * SIDES[1] / 63)


def naive(a: Tensor) -> Tensor:
    """Return the matrix of a tensor's energy (N M, N M) on a unit square, quarter cell by quarter cell."""
    n, m = a.shape[:2]
    energy = np.zeros((n * m, n * m))

    def difference(i: int, j: int, axis: int, sign: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        row = np.zeros(n * m)
        size = (n, m)[axis]
        place = [i, j]
        place[axis] += sign
        inside = 0 <= place[axis] < size
        h = 1 / size if inside else 0.5 / size
        row[i * m + j] = -sign / h
        if inside:
            row[place[0] * m + place[1]] = sign / h
        return row

    for i in range(n):
        for j in range(m):
            for sx in (-1, 1):
                for sy in (-1, 1):
                    slopes = np.stack([difference(i, j, 0, sx), difference(i, j, 1, sy)])
                    energy += slopes.T @ a[i, j].numpy() @ slopes / (4 * n * m)
    return torch.from_numpy(energy)


def test_a_tensor_has_the_energy_of_its_quarter_cells() -> None:
    """A second assembly, with jumps of a and entries off the diagonal as large as they can be."""
    generator = torch.Generator().manual_seed(1)
    b = torch.randn(3, 5, 4, 2, 2, generator=generator, dtype=torch.float64)
    a = b @ b.mT + 1e-3 * torch.eye(2, dtype=torch.float64)
    f = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    found = solve_darcy(a, f)
    for one, u in zip(a, found, strict=True):
        matrix = naive(one)
        assert float(torch.linalg.eigvalsh(matrix)[0]) > 0
        torch.testing.assert_close(u.ravel(), torch.linalg.solve(matrix, f.ravel() / 20), rtol=1e-9, atol=1e-12)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    a = (torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) + 0.5).requires_grad_(True)
    f = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64).requires_grad_(True)
    b = torch.randn(2, 3, 2, 2, 2, generator=generator, dtype=torch.float64)
    b = (b @ b.mT + torch.eye(2, dtype=torch.float64)).requires_grad_(True)
    torch.autograd.gradcheck(lambda a, f: solve_darcy(a, f, SIDES), (a, f))
    torch.autograd.gradcheck(lambda b, f: solve_darcy((b + b.mT) / 2, f, SIDES), (b, f))


def test_a_case_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(8, 12, 12, generator=generator, dtype=torch.float64) + 0.1
    f = torch.ones(12, 12, dtype=torch.float64)
    torch.testing.assert_close(solve_darcy(a, f)[3:6], solve_darcy(a[3:6], f), rtol=1e-12, atol=0)


def test_bad_input_is_named() -> None:
    a = torch.ones(3, 4, 4, dtype=torch.float64)
    f = torch.ones(4, 4, dtype=torch.float64)
    for value in (0.0, -1.0, math.nan, math.inf):
        wrong = a.clone()
        wrong[1, 2, 2] = value
        with pytest.raises(InvalidInput, match="case 1 of the batch: a must be positive"):
            solve_darcy(wrong, f)
    tensor = torch.eye(2, dtype=torch.float64).repeat(3, 4, 4, 1, 1)
    tensor[2, 0, 0, 0, 1] = tensor[2, 0, 0, 1, 0] = 1.5
    with pytest.raises(InvalidInput, match="case 2 of the batch: a must be symmetric and positive definite"):
        solve_darcy(tensor, f)
    with pytest.raises(InvalidInput, match="f must be on the grid"):
        solve_darcy(a, torch.ones(5, 4))
    with pytest.raises(InvalidInput, match="3 coefficients and 2 right-hand sides"):
        solve_darcy(a, torch.ones(2, 4, 4))
    endless = torch.ones_like(a)
    endless[2, 0, 0] = math.nan
    with pytest.raises(NotFinite, match="case 2"):
        solve_darcy(a, endless)
