r"""Signatures and log-signatures of piecewise linear paths, up to depth 3.

The signature of X: [a, b] -> R^C is the series of its iterated integrals, S^k the integral of dX_{t_1} (x) ... (x) dX_{t_k}
over a < t_1 < ... < t_k < b. A straight segment d has the signature exp(d) = (d, d (x) d / 2, d (x) d (x) d / 6, ...), and by
Chen's identity that of a path that is continued by d is the product S (x) exp(d),

    S^1 <- S^1 + d
    S^2 <- S^2 + (S^1 + d / 2) (x) d
    S^3 <- S^3 + (S^2 + (S^1 / 2 + d / 6) (x) d) (x) d

where each right-hand side has values from before the segment: sums over segments of what running sums have so far. The logarithm

    L^1 = S^1 ,     L^2 = S^2 - S^1 (x) S^1 / 2 ,     L^3 = S^3 - (S^1 (x) S^2 + S^2 (x) S^1) / 2 + (S^1)^(x)3 / 3

is a Lie series: a combination of brackets. Its coordinates in the Lyndon basis, one for each Lyndon word w with its standard
bracketing P_w, are read off by triangularity: P_w is w plus larger words. Up to length 3 only P_acb = [[a, c], b], a < b < c,
needs a correction, as P_abc = [a, [b, c]] has the word acb with coefficient -1.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from isocline._core.errors import require

DEPTHS = (1, 2, 3)


def signature(points: Tensor, depth: int) -> tuple[Tensor, ...]:
    """Return the signature of the path through points in straight lines.

    Args:
        points: (*, T, C), at least one; nothing missing.
        depth: 1, 2 or 3.

    Returns:
        The levels: (*, C), (*, C, C), (*, C, C, C), as many as `depth`.

    Examples:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> signature(corner, 2)[1]  # dX_1 comes first, then dX_2
        tensor([[0.5000, 1.0000], [0.0000, 0.5000]])
    """
    _check(points, depth)
    d, before = points.diff(dim=-2), points[..., :-1, :] - points[..., :1, :]
    levels = [points[..., -1, :] - points[..., 0, :]]
    if depth > 1:
        levels.append(torch.einsum("...ti,...tj->...ij", before + d / 2, d))
    if depth > 2:
        pairs = ((before + d / 2)[..., None] * d[..., None, :]).cumsum(-3)
        earlier = torch.cat([torch.zeros_like(pairs[..., :1, :, :]), pairs], -3)[..., :-1, :, :]
        inner = earlier + (before / 2 + d / 6)[..., None] * d[..., None, :]
        levels.append(torch.einsum("...tij,...tk->...ijk", inner, d))
    return tuple(levels)


def tensor_log(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the logarithm of a signature, levels (*, C), (*, C, C), (*, C, C, C); as many as are given."""
    s1 = levels[0]
    found = [s1]
    if len(levels) > 1:
        square = _times(s1, s1, 1)
        found.append(levels[1] - square / 2)
    if len(levels) > 2:
        mixed = _times(s1, levels[1], 1) + _times(levels[1], s1, 2)
        found.append(levels[2] - mixed / 2 + _times(square, s1, 2) / 3)
    return tuple(found)


def _times(a: Tensor, b: Tensor, rank: int) -> Tensor:
    """Return the tensor product of `a`, of that rank behind the batch axes, and `b`."""
    lead = a.shape[: a.ndim - rank]
    rest = b.shape[len(lead) :]
    return a.reshape(*a.shape, *[1] * len(rest)) * b.reshape(*lead, *[1] * rank, *rest)


def logsignature(points: Tensor, depth: int) -> Tensor:
    """Return the coordinates of the log-signature in the Lyndon basis.

    Args:
        points: (*, T, C), at least one; nothing missing.
        depth: 1, 2 or 3.

    Returns:
        (*, n), one coordinate for each of ``lyndon_words(C, depth)``: first the increments, then the areas of pairs.

    Examples:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> logsignature(corner, 2)  # the increment, and the area between the path and its chord
        tensor([1.0000, 1.0000, 0.5000])
    """
    return lyndon_coordinates(tensor_log(signature(points, depth)))


def lyndon_coordinates(levels: tuple[Tensor, ...]) -> Tensor:
    """Return coordinates (*, n) of a Lie series, given as tensors (*, C), (*, C, C), (*, C, C, C)."""
    channels, lead = levels[0].shape[-1], levels[0].shape[:-1]
    found = []
    for k, (level, (index, swapped)) in enumerate(zip(levels, _places(channels, len(levels)), strict=True)):
        flat = level.reshape(*lead, channels ** (k + 1))
        words = flat[..., index.to(flat.device)]
        if k == 2:
            words = words + torch.where(
                (swapped >= 0).to(flat.device), flat[..., swapped.clamp(min=0).to(flat.device)], 0.0
            )
        found.append(words)
    return torch.cat(found, -1)


def lyndon_words(channels: int, depth: int) -> list[tuple[int, ...]]:
    """Return the Lyndon words, those smaller than all their rotations, by length and then in order of the alphabet.

    >>> lyndon_words(2, 3)
    [(0,), (1,), (0, 1), (0, 0, 1), (0, 1, 1)]
    """
    words = (w for k in range(1, depth + 1) for w in product(range(channels), repeat=k))
    return [w for w in words if all(w < w[i:] + w[:i] for i in range(1, len(w)))]


@lru_cache(maxsize=64)
def _places(channels: int, depth: int) -> list[tuple[Tensor, Tensor]]:
    """Return for each length where the Lyndon words are in a flat tensor, and where abc is for a word acb; -1 for others."""
    found = []
    for k in range(1, depth + 1):
        words = [w for w in lyndon_words(channels, k) if len(w) == k]
        pairs = [(w, (w[0], w[2], w[1])) if k == 3 and w[1] > w[2] else (w, None) for w in words]
        places = [[-1 if w is None else _place(w, channels) for w in pair] for pair in pairs]
        index = torch.tensor(places, dtype=torch.int64).reshape(-1, 2)
        found.append((index[:, 0], index[:, 1]))
    return found


def _place(word: tuple[int, ...], channels: int) -> int:
    return sum(letter * channels**i for i, letter in enumerate(reversed(word)))


def _check(points: Tensor, depth: int) -> None:
    require(depth in DEPTHS, f"depth is 1, 2 or 3, got {depth!r}")
    require(points.ndim >= 2 and points.shape[-2] >= 1, f"points must have shape (*, T, C), got {tuple(points.shape)}")
