r"""Steady flow through a channel past an obstacle.

    (u . grad) u - nu Laplacian u + grad p = 0 ,   div u = 0     in (0, L) x (0, H) without a polygon

The flow comes in at x = 0 as the parabola ``6 U y (H - y) / H^2``, sticks to the walls and the polygon, and leaves freely at x = L.
The mesh is Delaunay's triangulation of the boundary's points and two hexagonal lattices, a fine one around the polygon, with some
smoothing; no other program is needed. The flow is that of `steady_flow`.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from isocline._core.errors import require
from isocline.equations.classical.taylor_hood import Array, Flow, steady_flow

CLEARANCE = 0.6  # distance of lattice points to the boundary, in parts of the size there
BAND = 5.0  # width of the fine lattice around the polygon, in fine sizes
SMOOTHINGS = 4


def channel_flow(
    polygon: Array, nu: float, lengths: tuple[float, float], sizes: tuple[float, float], speed: float = 1.0
) -> Flow:
    """Return the steady flow.

    Args:
        polygon: the obstacle's vertices in order, (B, 2).
        nu: viscosity.
        lengths: L and H.
        sizes: of triangles near the polygon, whose edges are to be about as long, and far from it.
        speed: U, the mean velocity.

    Raises:
        ExtraMissing: scikit-fem is not installed.
        InvalidInput: there is no good mesh of these sizes.
        NotFinite: no steady flow was found.
    """
    points, triangles = channel_mesh(polygon, lengths, sizes)
    length, height = lengths

    def velocity(x: Array) -> Array:
        inflow = np.where(x[:, 0] < 1e-9 * length, 6 * speed * x[:, 1] * (height - x[:, 1]) / height**2, 0.0)
        return np.stack([inflow, np.zeros_like(inflow)], 1)

    return steady_flow(points, triangles, nu, velocity, outflow=lambda x: x[:, 0] > length * (1 - 1e-9))


def channel_mesh(polygon: Array, lengths: tuple[float, float], sizes: tuple[float, float]) -> tuple[Array, Array]:
    """Return the vertices (N, 2), the polygon's first, then those of the channel's sides, and the triangles (T, 3).

    Args:
        polygon: as in `channel_flow`.
        lengths: as in `channel_flow`.
        sizes: as in `channel_flow`.

    Raises:
        InvalidInput: the polygon leaves the channel, or the triangles do not follow it.
    """
    fine, coarse = sizes
    require(0 < fine <= coarse, f"triangles near the polygon are the smaller ones, got sizes {sizes}")
    high = np.asarray(lengths)
    gap = min(polygon.min(), (high - polygon).min())
    require(gap > coarse, f"the polygon must stay {coarse:g} away from the channel's sides, got {gap:g}")
    sides = _sides(lengths, coarse)
    parts = []
    for size in (fine, coarse):
        lattice = _lattice(lengths, size)
        distance = signed_distance(polygon, lattice)
        near = distance < BAND * fine
        wall = np.minimum(lattice, high - lattice).min(1)
        kept = (distance > CLEARANCE * size) & (wall > CLEARANCE * coarse) & (near if size == fine else ~near)
        parts.append(lattice[kept])
        if fine == coarse:
            parts = [lattice[(distance > CLEARANCE * size) & (wall > CLEARANCE * coarse)]]
            break
    points = np.concatenate([polygon, sides, *parts])
    fixed = len(polygon) + len(sides)
    triangles = _triangles(points, polygon)
    for _ in range(SMOOTHINGS):
        points = _smoothed(points, triangles, fixed)
        triangles = _triangles(points, polygon)
    wanted = {edge for start, n in ((0, len(polygon)), (len(polygon), len(sides))) for edge in _ring(start, n)}
    require(
        _boundary(triangles) == wanted,
        "the triangles do not follow the polygon; give it shorter edges, or smaller sizes",
    )
    return points, triangles


def signed_distance(polygon: Array, x: Array) -> Array:
    """Return distances (M,) of places (M, 2) to a polygon (B, 2), negative inside.

    Examples:
        >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> signed_distance(square, np.array([[0.5, 0.25], [4.0, 5.0]])).tolist()
        [-0.25, 5.0]
    """
    a, b = polygon, np.roll(polygon, -1, 0)
    edge, gap = b - a, x[:, None] - a
    along = np.clip((gap * edge).sum(-1) / (edge * edge).sum(-1), 0.0, 1.0)
    distance = np.sqrt(((gap - along[..., None] * edge) ** 2).sum(-1).min(1))
    crosses = (a[:, 1] > x[:, None, 1]) != (b[:, 1] > x[:, None, 1])
    side = gap[..., 0] * edge[:, 1] < gap[..., 1] * edge[:, 0]
    inside = (crosses & (side == (edge[:, 1] > 0))).sum(1) % 2 == 1
    return np.where(inside, -distance, distance)


def _sides(lengths: tuple[float, float], size: float) -> Array:
    """Return points of the channel's sides, counterclockwise from the origin."""
    length, height = lengths
    corners = np.array([[0.0, 0.0], [length, 0.0], [length, height], [0.0, height]])
    parts = []
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        n = max(1, round(float(np.hypot(*(b - a))) / size))
        parts.append(np.linspace(a, b, n, endpoint=False))
    return np.concatenate(parts)


def _lattice(lengths: tuple[float, float], size: float) -> Array:
    line, rows = np.arange(0.0, lengths[0], size), np.arange(0.0, lengths[1], size * 0.75**0.5)
    return np.concatenate([np.stack([line + (i % 2) * size / 2, np.full(len(line), y)], 1) for i, y in enumerate(rows)])


def _triangles(points: Array, polygon: Array) -> Array:
    """Return Delaunay's triangles outside of the polygon."""
    cells = Delaunay(points).simplices.astype(np.int64)
    a, b, c = (points[cells[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    flat = np.abs(area) < 1e-12 * np.ptp(points[:, 0]) ** 2  # three points of one side
    return np.asarray(cells[~flat & (signed_distance(polygon, points[cells].mean(1)) > 0)])


def _smoothed(points: Array, triangles: Array, fixed: int) -> Array:
    """Return points, those after the fixed ones moved to the mean of their neighbours."""
    total, count = np.zeros_like(points), np.zeros(len(points))
    for k in (1, 2):
        np.add.at(total, triangles, points[np.roll(triangles, k, 1)])
        np.add.at(count, triangles, 1)
    moved = points.copy()
    moved[fixed:] = total[fixed:] / count[fixed:, None]
    return moved


def _ring(start: int, n: int) -> set[tuple[int, int]]:
    return {(min(i, j), max(i, j)) for i, j in ((start + k, start + (k + 1) % n) for k in range(n))}


def _boundary(triangles: Array) -> set[tuple[int, int]]:
    """Return the edges of one triangle only."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)
    found, count = np.unique(edges, axis=0, return_counts=True)
    return {(int(i), int(j)) for i, j in found[count == 1]}
