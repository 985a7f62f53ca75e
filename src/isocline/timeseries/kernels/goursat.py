r"""Goursat problems of signature kernels, for many pairs of paths at once.

For paths ``x, y`` that are straight between their points, ``a_ij = <dx_i, dy_j>``, and ``K`` given on both axes,

    d^2 K / ds dt  =  F(X(s), K, Y(t)) <x'(s), y'(t)>

where ``X`` and ``Y`` are known functions of one variable. Each cell of the grid ends in

    K_11 = K_10 + K_01 - K_00 + a (F_00 + F_10 + F_01 + F_11) / 4
    K_11 = (K_10 + K_01) (1 + a/2 + a^2/12) - K_00 (1 - a^2/12)            where F = K    (arXiv 2006.14794)

both of order 2. ``F_11`` is taken where ``(F_10 + F_01) / 2`` in place of the mean would lead. That alone has order 2 too, but it
leaves out the corners where two like paths are most alike: on rough ones that costs accuracy.

Cells of an anti-diagonal do not see each other: they are computed together, for all pairs. A dyadic refinement of order ``q`` cuts
every cell into ``4^q`` with ``a / 4^q`` each.

Where both paths are one, ``X = Y`` is the diagonal of ``K`` itself. Then rows are computed one after the other, each by Heun's
rule: a row of predictions from the last one, and the trapezoidal rule with both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Moment = Callable[[Tensor, Tensor, Tensor], Tensor]
Square = Callable[[Tensor], Tensor]
Cell = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Edge = Callable[[int, int], Tensor]


def inner_products(x: Tensor, y: Tensor) -> Tensor:
    """Return ``<dx_i, dy_j>`` (P, n, m) for paths (P, n + 1, C) and (P, m + 1, C)."""
    return x.diff(dim=1) @ y.diff(dim=1).mT


def wavefront(a: Tensor, edge: Edge, cell: Cell, refine: int) -> Tensor:
    """Return the values (P, v) at the far corner of a grid whose nodes hold ``v`` numbers, anti-diagonal by anti-diagonal.

    Args:
        a: inner products (P, n, m).
        edge: ``(i, j) -> values`` (P, 1, v) on the axes.
        cell: ``(a, values_10, values_01, values_00, i, j) -> values_11`` (P, k, v) of the cells of an anti-diagonal, with
            the fine indices (k,) of the new nodes.
        refine: dyadic order.
    """
    parts = 2**refine
    n, m, flat = a.shape[1] * parts, a.shape[2] * parts, a.flatten(1) / parts**2
    older, old = edge(0, 0), torch.cat([edge(0, 1), edge(1, 0)], 1)  # nodes (i, d - i) of the last two anti-diagonals
    lowest_older, lowest_old = 0, 0  # their smallest i
    for d in range(2, n + m + 1):
        first, last = max(1, d - m), min(d - 1, n)
        i = torch.arange(first, last + 1, device=a.device)
        at = ((i - 1) // parts) * a.shape[2] + (d - i - 1) // parts
        k10 = old[:, first - lowest_old : last + 1 - lowest_old]
        k01 = old[:, first - 1 - lowest_old : last - lowest_old]
        k00 = older[:, first - 1 - lowest_older : last - lowest_older]
        new = cell(flat[:, at], k10, k01, k00, i, d - i)
        older, lowest_older = old, lowest_old
        low, high = [edge(0, d)] if d <= m else [], [edge(d, 0)] if d <= n else []
        old, lowest_old = torch.cat([*low, new, *high], 1), 0 if low else first
    return old[:, -1]


def linear(a: Tensor, refine: int = 0) -> Tensor:
    """Return the signature kernel (P,): the solution of ``d^2 K / ds dt = K <x', y'>`` with 1 on the axes.

    Args:
        a: inner products of increments (P, n, m).
        refine: dyadic order.

    >>> round(linear(torch.full((1, 1, 1), 1.0, dtype=torch.float64), refine=7).item(), 4)  # Bessel's I_0(2)
    2.2796
    """
    one = a.new_ones(len(a), 1, 1)

    def cell(a: Tensor, k10: Tensor, k01: Tensor, k00: Tensor, i: Tensor, j: Tensor) -> Tensor:
        a = a[..., None]
        return (k10 + k01) * (1 + a / 2 + a**2 / 12) - k00 * (1 - a**2 / 12)

    return wavefront(a, lambda i, j: one, cell, refine)[:, 0]


def pairwise(a: Tensor, x: Tensor, y: Tensor, moment: Moment, refine: int = 0) -> Tensor:
    """Return ``K`` (P,) of two paths each, with ``F = moment(X(s), K, Y(t))``.

    Args:
        a: inner products of increments (P, n, m).
        x: ``X`` at the fine nodes, (P, n 2^refine + 1).
        y: ``Y`` at the fine nodes, (P, m 2^refine + 1).
        moment: ``F``.
        refine: dyadic order.
    """
    start = x[:, :1]

    def edge(i: int, j: int) -> Tensor:
        return torch.stack([start, moment(x[:, i, None], start, y[:, j, None])], 2)

    def cell(a: Tensor, v10: Tensor, v01: Tensor, v00: Tensor, i: Tensor, j: Tensor) -> Tensor:
        base, f = (v10 + v01 - v00)[..., 0], (v10 + v01)[..., 1]
        ahead = moment(x[:, i], base + a * f / 2, y[:, j])
        return torch.stack([base + a * (v00[..., 1] + f + ahead) / 4, ahead], 2)

    return wavefront(a, edge, cell, refine)[:, 0]


def diagonal(a: Tensor, start: Tensor, moment: Moment, square: Square, refine: int = 0) -> Tensor:
    """Return ``K(s, s)`` of single paths at the fine nodes, (P, n 2^refine + 1).

    Args:
        a: inner products of increments of each path with its own, (P, n, n).
        start: ``K`` on the axes, ().
        moment: ``F(K(s, s), K(s, t), K(t, t))``.
        square: ``F`` where ``s = t``, a function of ``K(s, s)``.
        refine: dyadic order.
    """
    parts = 2**refine
    row = start.to(a).expand(len(a), 1)  # K(s_k, t_j) for j = 0, ..., k
    known = row  # K(s_j, s_j) for j = 0, ..., k

    def slopes(row: Tensor, known: Tensor) -> Tensor:
        return torch.cat([moment(known[:, -1:], row[:, :-1], known[:, :-1]), square(known[:, -1:])], 1)

    f = slopes(row, known)
    for k in range(a.shape[1] * parts):
        cells = a[:, k // parts, torch.arange(k + 1, device=a.device) // parts] / parts**2
        guess = _next_row(row, cells, (f + torch.cat([f[:, 1:], f[:, -1:]], 1)) / 2)
        ahead = slopes(guess, torch.cat([known, guess[:, -1:]], 1))
        # in the last cell F(s_k, t_{k+1}) is F(s_{k+1}, t_k), by symmetry
        before = torch.cat([f[:, :-1] + f[:, 1:], f[:, -1:] + ahead[:, -2:-1]], 1)
        row = _next_row(row, cells, (before + ahead[:, :-1] + ahead[:, 1:]) / 4)
        known = torch.cat([known, row[:, -1:]], 1)
        f = slopes(row, known)
    return known


def _next_row(row: Tensor, cells: Tensor, f: Tensor) -> Tensor:
    """Return ``K(s_{k+1}, t_j)``, j = 0, ..., k + 1, given its slopes in the cells of row ``k``."""
    gain = cells * f
    inside = torch.cat([row[:, :1], row[:, 1:] + gain[:, :-1].cumsum(1)], 1)
    return torch.cat([inside, 2 * inside[:, -1:] - row[:, -1:] + gain[:, -1:]], 1)
