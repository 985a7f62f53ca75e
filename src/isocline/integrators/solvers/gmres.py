r"""GMRES for one system or for many at once (Saad and Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856).

The orthonormal basis of the Krylov space is built by modified Gram-Schmidt, and the small least-squares problem is
solved by Givens rotations as the space grows. A system that is solved leaves the others alone: its basis vectors are
zero from then on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@torch.no_grad()
def gmres(product: Product, b: Tensor, tolerance: float, size: int, restarts: int = 1) -> Tensor:
    """Return ``x`` with ``|product(x) - b| <= tolerance |b|`` where that is reached within ``size * restarts`` products.

    Args:
        product: a linear map of rows, shape (*, n) to (*, n); acts on every row by itself.
        b: right-hand sides, real, shape (n,) or (B, n).
        tolerance: of the residual, relative to ``b``.
        size: dimension of the Krylov space.
        restarts: how many spaces are built one after the other.
    """
    x, goal = torch.zeros_like(b), tolerance * b.norm(dim=-1)
    residual = b
    for k in range(restarts):
        if k:
            residual = b - product(x)
        if bool((residual.norm(dim=-1) <= goal).all()):
            break
        x = x + _cycle(product, residual, goal, min(size, b.shape[-1]))
    return x


def _cycle(product: Product, residual: Tensor, goal: Tensor, size: int) -> Tensor:
    """Return the best correction in one Krylov space."""
    beta = residual.norm(dim=-1)
    basis = [_unit(residual, beta)]
    columns: list[list[Tensor]] = []
    rotations: list[tuple[Tensor, Tensor]] = []
    rhs = [torch.where(beta > goal, beta, 0.0)]
    for j in range(size):
        busy = rhs[j].abs() > goal
        v = product(torch.where(busy[..., None], basis[j], 0.0))
        column = []
        for u in basis:
            column.append((u * v).sum(-1))
            v = v - column[-1][..., None] * u
        length = v.norm(dim=-1)
        column = _rotated(column, rotations)
        diagonal = torch.hypot(column[j], length)
        usable = busy & (diagonal > 0)
        cosine = torch.where(usable, column[j] / torch.where(usable, diagonal, 1.0), 1.0)
        sine = torch.where(usable, length / torch.where(usable, diagonal, 1.0), 0.0)
        rotations.append((cosine, sine))
        columns.append([*(torch.where(usable, c, 0.0) for c in column[:j]), torch.where(usable, diagonal, 1.0)])
        rhs.append(torch.where(usable, -sine * rhs[j], 0.0))
        rhs[j] = torch.where(usable, cosine * rhs[j], 0.0)
        basis.append(_unit(v, torch.where(usable, length, 0.0)))
        if not bool((rhs[j + 1].abs() > goal).any()):
            break
    return _combined(columns, rhs, basis)


def _unit(v: Tensor, length: Tensor) -> Tensor:
    return torch.where((length > 0)[..., None], v / torch.where(length > 0, length, 1.0)[..., None], 0.0)


def _rotated(column: list[Tensor], rotations: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return a column of the Hessenberg matrix after all earlier rotations."""
    column = list(column)
    for i, (cosine, sine) in enumerate(rotations):
        column[i], column[i + 1] = (
            cosine * column[i] + sine * column[i + 1],
            cosine * column[i + 1] - sine * column[i],
        )
    return column


def _combined(columns: list[list[Tensor]], rhs: list[Tensor], basis: list[Tensor]) -> Tensor:
    """Return the combination of basis vectors whose coefficients solve the triangular system."""
    count = len(columns)
    found: list[Tensor] = [torch.zeros_like(rhs[0])] * count
    for i in reversed(range(count)):
        rest = rhs[i]
        for k in range(i + 1, count):
            rest = rest - columns[k][i] * found[k]
        found[i] = rest / columns[i][i]
    total = torch.zeros_like(basis[0])
    for weight, v in zip(found, basis, strict=False):
        total = total + weight[..., None] * v
    return total
