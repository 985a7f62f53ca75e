r"""A mesh of a polygon: points of a hexagonal lattice, Delaunay's triangulation, a little smoothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import Delaunay, cKDTree
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.meshes.mesh import Array, Mesh, boundary_edges

Size = Callable[[Array], Array]
CLEARANCE = 0.6  # distance of lattice points to the boundary, in parts of the size wanted there
SMOOTHINGS = 4


def triangulate(polygon: Tensor, size: Size, sizes: tuple[float, float], rng: Stream | int = 0) -> Mesh:
    """Return a mesh of the inside of a polygon; the vertices of the polygon come first and are the boundary.

    Args:
        polygon: (B, 2), counterclockwise; its edges should be about as long as `size` there.
        size: wanted edge length at places (M, 2), as numpy arrays, (M,).
        sizes: the least and the greatest of them; where `size` lies nearer to the least, the fine lattice is taken.
        rng: shifts the lattices, so that meshes of one shape differ.

    Raises:
        InvalidInput: the triangles do not fill the polygon: its edges are too long for the sizes, or it crosses itself.
    """
    outline = polygon.double().numpy()
    shift = (rng if isinstance(rng, Stream) else Stream(rng)).uniform((1, 4), dtype=torch.float64).numpy().reshape(2, 2)
    middle = (sizes[0] * sizes[1]) ** 0.5
    parts = []
    for length, by, fine in zip(sizes, shift, (True, False), strict=True):
        lattice = _lattice(outline.min(0), outline.max(0), length, by)
        lattice = lattice[(size(lattice) < middle) == fine]
        lattice = lattice[inside(outline, lattice)]
        parts.append(lattice[_distance(outline, lattice) > CLEARANCE * length])
    points = np.concatenate([outline, *parts])
    cells = _cells(outline, points)
    for _ in range(SMOOTHINGS):
        points = _smoothed(points, cells, len(outline))
        cells = _cells(outline, points)
    start, end = boundary_edges(cells, len(points))  # Delaunay's triangles run counterclockwise
    whole = len(start) == len(outline) and bool(((start + 1) % len(outline) == end).all())
    require(whole, "the triangles do not follow the polygon; give it shorter edges, or a smaller size")
    return Mesh.oriented(torch.from_numpy(points), torch.from_numpy(cells))


def inside(polygon: Array, x: Array) -> Array:
    """Say which places (M, 2) lie inside a polygon (B, 2), by the number of edges that a ray crosses."""
    a, b = polygon, np.roll(polygon, -1, 0)
    crosses = (a[:, 1] > x[:, None, 1]) != (b[:, 1] > x[:, None, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = a[:, 0] + (x[:, None, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return np.asarray((crosses & (x[:, None, 0] < at)).sum(1) % 2 == 1)


def _lattice(low: Array, high: Array, length: float, shift: Array) -> Array:
    rows = np.arange(low[1] - length, high[1] + length, length * np.sqrt(0.75)) + shift[1] * length
    line = np.arange(low[0] - length, high[0] + length, length) + shift[0] * length
    return np.concatenate(
        [np.stack([line + (i % 2) * length / 2, np.full(len(line), y)], 1) for i, y in enumerate(rows)]
    )


def _distance(polygon: Array, x: Array) -> Array:
    """Return distances (M,) to a polygon, whose edges are taken as eight points each."""
    t = np.arange(8)[:, None, None] / 8
    dense = ((1 - t) * polygon + t * np.roll(polygon, -1, 0)).reshape(-1, 2)
    return np.asarray(cKDTree(dense).query(x)[0])


def _cells(outline: Array, points: Array) -> Array:
    cells = Delaunay(points).simplices.astype(np.int64)
    return cells[inside(outline, points[cells].mean(1))]


def _smoothed(points: Array, cells: Array, fixed: int) -> Array:
    """Return points, those after the fixed ones moved to the mean of their neighbours."""
    total, count = np.zeros_like(points), np.zeros(len(points))
    for k in (1, 2):
        np.add.at(total, cells, points[np.roll(cells, k, 1)])
        np.add.at(count, cells, 1)
    moved = points.copy()
    moved[fixed:] = total[fixed:] / count[fixed:, None]
    return moved
