r"""Darcy flow by finite volumes: one sparse direct solve a case, and one more for all gradients.

    -div(a grad u) = f   on a rectangle,      u = 0 on its sides

u, a and f live in the middle of cells. Through a face between the cells P and E flows ``k (u_P - u_E)``, where the conductance k
is a mean of a times the length of the face over the distance of the middles; sides are half a cell away. For a scalar the mean
is harmonic, ``2 a_P a_E / (a_P + a_E)``, which makes fluxes through layers exact. For a symmetric tensor the energy of a cell is

    h_x h_y / 8 sum_{D_x, D_y} a_11 D_x^2 + 2 a_12 D_x D_y + a_22 D_y^2

over its two differences along each axis: nine points, means of a that are arithmetic, and a positive definite matrix wherever a is.
In matrices ``A = G_x' K_x G_x + G_y' K_y G_y + D_x' C D_y + D_y' C D_x``, with G the differences across faces and D their means in
cells, and ``A u = h_x h_y f``. With ``A l = g`` for a gradient g of u, those of f and of the conductances are ``h_x h_y l`` and
``-(G l) (G u)``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor
from torch.autograd.function import once_differentiable

from isocline._core.errors import InvalidInput, NotFinite, require

Matrix = Any  # scipy's sparse matrices have no types


def solve_darcy(a: Tensor, f: Tensor, lengths: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Return u in the middle of the cells, (n, N, M) float64.

    It can be differentiated once, by a and by f.

    Args:
        a: of each cell, (n, N, M), or symmetric tensors (n, N, M, 2, 2).
        f: (n, N, M), or (N, M) for all cases.
        lengths: of the sides.

    Raises:
        InvalidInput: shapes do not fit, or a is not positive (definite) somewhere; names the case.
        NotFinite: u is not finite; names the case.
    """
    kx, ky, c = conductances(a, lengths)
    sizes = a.shape[1:3]
    require(f.shape[-2:] == sizes and f.ndim in (2, 3), f"f must be on the grid {tuple(sizes)}, got {tuple(f.shape)}")
    require(f.ndim == 2 or len(f) == len(a), f"there are {len(a)} coefficients and {len(f)} right-hand sides")
    area = lengths[0] / sizes[0] * lengths[1] / sizes[1]
    right = f.double().cpu().expand(len(a), *sizes) * area
    u: Tensor = _Solve.apply(kx, ky, c, right)
    bad = ~u.detach().isfinite().flatten(1).all(1)
    if bool(bad.any()):
        raise NotFinite(f"case {int(bad.int().argmax())} of the batch has no finite solution; look at its f")
    return u.to(a.device)


def conductances(a: Tensor, lengths: tuple[float, float] = (1.0, 1.0)) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return those of the faces across x (n, N + 1, M) and y (n, N, M + 1), and ``a_12`` (n, N, M), None for a scalar a.

    The flux through a face is the conductance times what u falls across it; the sides of the rectangle come first and last.

    Args:
        a: as in `solve_darcy`.
        lengths: of the sides.
    """
    require(a.ndim == 3 or (a.ndim == 5 and a.shape[3:] == (2, 2)), f"a is (n, N, M) or (n, N, M, 2, 2), got {a.shape}")
    _require_definite(a.detach())
    a = a.double().cpu()
    ratio = (lengths[1] / a.shape[2]) / (lengths[0] / a.shape[1])
    if a.ndim == 3:
        return _faces(a, True) * ratio, _faces(a.mT, True).mT / ratio, None
    kx, ky = _faces(a[..., 0, 0], False) * ratio, _faces(a[..., 1, 1].mT, False).mT / ratio
    return kx, ky, (a[..., 0, 1] + a[..., 1, 0]) / 2


def _faces(a: Tensor, harmonic: bool) -> Tensor:
    """Return means of neighbours along the second axis, and twice the values at its ends, (n, N + 1, M)."""
    before, after = a[:, :-1], a[:, 1:]
    inner = 2 * before * after / (before + after) if harmonic else (before + after) / 2
    return torch.cat([2 * a[:, :1], inner, 2 * a[:, -1:]], 1)


def _require_definite(a: Tensor) -> None:
    good = a.isfinite() & (a > 0) if a.ndim == 3 else _definite(a)
    bad = ~good.flatten(1).all(1)
    if bool(bad.any()):
        kind = "positive" if a.ndim == 3 else "symmetric and positive definite"
        raise InvalidInput(f"case {int(bad.int().argmax())} of the batch: a must be {kind} in every cell")


def _definite(a: Tensor) -> Tensor:
    p, q, r, s = a.flatten(-2).unbind(-1)
    even = (q - r).abs() <= 1e-6 * (p.abs() + s.abs())
    return a.isfinite().all(-1).all(-1) & even & (p > 0) & (p * s > q * r)


class _Solve(torch.autograd.Function):
    """u (n, N, M) of conductances and a right-hand side."""

    @staticmethod
    def forward(ctx: Any, kx: Tensor, ky: Tensor, c: Tensor | None, right: Tensor) -> Tensor:
        factors = []
        u = torch.empty_like(right)
        for i in range(len(right)):
            factor = _factor(kx[i], ky[i], None if c is None else c[i])
            u[i] = _solved(factor, right[i])
            if any(ctx.needs_input_grad):
                factors.append(factor)
        ctx.factors, ctx.crossed = factors, c is not None
        ctx.save_for_backward(u)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        (u,) = ctx.saved_tensors
        adjoint = torch.stack([_solved(factor, one) for factor, one in zip(ctx.factors, g, strict=True)])
        (ux, uy), (lx, ly) = ([_across(v), _across(v.mT).mT] for v in (u, adjoint))
        crossed = None
        if ctx.crossed:
            (vx, vy), (mx, my) = ([_inside(v), _inside(v.mT).mT] for v in (u, adjoint))
            crossed = -(mx * vy + my * vx)
        return -lx * ux, -ly * uy, crossed, adjoint


def _solved(factor: SuperLU, right: Tensor) -> Tensor:
    return torch.from_numpy(factor.solve(right.numpy().ravel())).reshape(right.shape)


def _factor(kx: Tensor, ky: Tensor, c: Tensor | None) -> SuperLU:
    gx, gy, dx, dy = _differences(kx.shape[0] - 1, kx.shape[1])
    matrix = gx.T @ _diagonal(kx) @ gx + gy.T @ _diagonal(ky) @ gy
    if c is not None:
        half = dx.T @ _diagonal(c) @ dy
        matrix = matrix + half + half.T
    return splu(
        matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )  # no pivots are needed: it is positive definite


def _diagonal(values: Tensor) -> Matrix:
    return sparse.diags_array(values.detach().numpy().ravel())


@lru_cache(8)
def _differences(n: int, m: int) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Return the matrices ``G_x, G_y, D_x, D_y`` of `_across` and `_inside`."""

    def lines(size: int) -> tuple[Matrix, Matrix]:
        across = sparse.diags_array([np.ones(size), -np.ones(size)], offsets=[0, -1], shape=(size + 1, size))
        ends = np.full(size + 1, 0.5)
        ends[[0, -1]] = 1.0
        pair = sparse.diags_array([np.ones(size), np.ones(size)], offsets=[0, 1], shape=(size, size + 1))
        return across, pair @ sparse.diags_array(ends) @ across

    (gx, dx), (gy, dy) = lines(n), lines(m)
    one, other = sparse.eye_array(n), sparse.eye_array(m)
    pairs = [(gx, other), (one, gy), (dx, other), (one, dy)]
    found = [sparse.kron(left, right, "csr") for left, right in pairs]
    return found[0], found[1], found[2], found[3]


def _across(u: Tensor) -> Tensor:
    """Return differences across faces along the second axis, sides included, where u is 0: (n, N + 1, M)."""
    return torch.nn.functional.pad(u, (0, 0, 1, 1)).diff(dim=1)


def _inside(u: Tensor) -> Tensor:
    """Return the mean slope in every cell along the second axis, per cell width: (n, N, M)."""
    found = _across(u) / 2
    found = torch.cat([2 * found[:, :1], found[:, 1:-1], 2 * found[:, -1:]], 1)
    return found[:, 1:] + found[:, :-1]
