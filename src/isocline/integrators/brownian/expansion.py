r"""A Brownian path on a cell as a linear function of independent normals.

With theta the place in a cell of length L, and x_j = frac(2^j theta) the place in the interval of length l_j = 2^-j L around it,
the path is the sum of functions that belong to the cell and to one node, the middle of that interval, for each j >= 0.

Without area (Levy and Ciesielski):

    P = L^(1/2) theta n + sum_j l_j^(1/2) / 2 (1 - |2 x_j - 1|) n_j

With area an interval is known by its increment W ~ N(0, l) and its space-time area H ~ N(0, l / 12), H = J / l - W / 2 where J
is the integral of the path from its value at the left end. Halving it gives (Foster, Lyons and Oberhauser, arXiv 1905.06119)

    W_left  = W / 2 + 3 H / 2 + Z ,    H_left  = H / 4 - Z / 2 + N / 2 ,          Z = l^(1/2) / 4 n ~ N(0, l / 16)
    W_right = W / 2 - 3 H / 2 - Z ,    H_right = H / 4 - Z / 2 - N / 2 ,          N = (l / 12)^(1/2) n' ~ N(0, l / 12)

and given W and H the path is expected at x W + 6 x (1 - x) H, so that with u = frac(2 x) each node adds

    Z u (3 u - 2) + 3 N u (1 - u)           in the left half,          Z (1 - u) (1 - 3 u) - 3 N u (1 - u)          in the right one

to the path P, and the integrals of these to its integral Q. Sums end where the digits of theta do, or after `depth` terms; the
rest is then drawn from its law given the last interval.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DEPTH = 30  # times are resolved to 2^-30 of a cell
ROOT = 0
NEAR = 1e-9  # of a cell: times that are nearer to a node than that are at the node
SPREAD = 1 / np.sqrt(12.0)
Reals = NDArray[np.float64]

POWERS = 2.0 ** np.arange(DEPTH + 1)
HEAPS = 1 << np.arange(DEPTH + 1)


class Expansion(NamedTuple):
    """Coefficients of P, and of Q where there is area.

    Args:
        nodes: numbers of nodes in the tree of a cell, shape (*, n); `ROOT` is the cell itself, 1 its middle, 2 and 3 those of
            its halves.
        weights: coefficients in the normals of each node, shape (*, 1, n, 1); or of P and Q in two normals, (*, 2, n, 2).
    """

    nodes: NDArray[np.int64]
    weights: Reals


def expansion(theta: Any, length: Any, depth: int, area: bool) -> Expansion:
    """Return P and Q at places in cells.

    Args:
        theta: places in [0, 1], shape (*).
        length: lengths of the cells, shape (*).
        depth: how many terms the sum has; beyond them times have the right law one by one, but not together.
        area: whether the path has area.
    """
    theta, length = np.asarray(theta, np.float64)[..., None], np.asarray(length, np.float64)[..., None]
    exact = np.rint(theta * POWERS[DEPTH]) / POWERS[DEPTH]
    scaled = exact * POWERS[: depth + 1]
    whole = np.floor(scaled)
    x = scaled - whole
    nodes = np.concatenate([np.zeros_like(whole[..., :1], np.int64), HEAPS[: depth + 1] + whole.astype(np.int64)], -1)
    size = length / POWERS[: depth + 1]
    weights = _with_area(exact, length, x, size) if area else _plain(exact, length, x, size)
    return Expansion(nodes, weights) if theta.ndim > 1 else _trimmed(nodes, weights)


def _plain(theta: Reals, length: Reals, x: Reals, size: Reals) -> Reals:
    root, x, rest = np.sqrt(length) * theta, x[..., :-1], x[..., -1:]
    inner = np.sqrt(size[..., :-1]) * (0.5 - np.abs(x - 0.5))
    last = np.sqrt(size[..., -1:] * rest * (1 - rest))
    return np.concatenate([root, inner, last], -1)[..., None, :, None]


def _with_area(theta: Reals, length: Reals, x: Reals, size: Reals) -> Reals:
    x, rest, size, leaf = x[..., :-1], x[..., -1:], size[..., :-1], size[..., -1:]
    left, u = x < 0.5, 2 * x - (x >= 0.5)
    z, n = np.sqrt(size) / 4, np.sqrt(size) * SPREAD
    hump = 3 * u * (1 - u)
    area = size / 2 * (1.5 * u**2 - u**3)
    inner = (
        z * np.where(left, u * (3 * u - 2), (1 - u) * (1 - 3 * u)),
        n * np.where(left, hump, -hump),
        z * size / 2 * np.where(left, -(u**2) * (1 - u), u * (1 - u) ** 2),
        n * np.where(left, area, size / 4 - area),
    )
    t, root = theta, np.sqrt(length)
    outer = (
        root * t,
        root * SPREAD * 6 * t * (1 - t),
        root * length * t**2 / 2,
        root * length * SPREAD * t**2 * (3 - 2 * t),
    )
    rows = [np.concatenate(parts, -1) for parts in zip(outer, inner, _bridge(rest, leaf), strict=True)]
    return np.stack([np.stack(rows[:2], -1), np.stack(rows[2:], -1)], -3)


def _bridge(x: Reals, size: Reals) -> tuple[Reals, Reals, Reals, Reals]:
    """Return what is left of P and of Q at a place in an interval, given its W and H, in two normals."""
    y = x * (1 - x)
    variance, covariance = y * (1 - 3 * y), y**2 * (0.5 - x)
    integral = x**3 / 3 - x**4 / 4 - 3 * (x**2 / 2 - x**3 / 3) ** 2
    first = np.sqrt(variance)
    mixed = covariance / np.where(first > 0, first, 1.0)
    root = np.sqrt(size)
    return root * first, 0 * x, root * size * mixed, root * size * np.sqrt(np.maximum(integral - mixed**2, 0.0))


def _trimmed(nodes: NDArray[np.int64], weights: Reals) -> Expansion:
    """Return the expansion without the nodes behind the last digit, which have no weight."""
    used = np.flatnonzero(weights.any((0, 2)))
    last = int(used[-1]) + 1 if len(used) else 1
    return Expansion(nodes[:last], weights[:, :last])
