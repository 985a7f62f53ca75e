r"""Fields from one mesh to another: matrices of linear interpolation.

The value at a place x in a triangle is ``sum_i b_i(x) u_i`` with the barycentric coordinates b of x. Outside the mesh, where two
polygons of the same curve differ by slivers, the value is that of the nearest place of the boundary.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from torch import Tensor

from isocline._core.errors import require
from isocline.meshes.mesh import Array, Mesh, boundary_edges


def interpolation(mesh: Mesh, points: Tensor) -> sparse.csr_matrix:
    """Return the matrix (M, N) that takes values at vertices to values at places (M, 2).

    Args:
        mesh: where fields are known.
        points: where they are wanted; outside, the nearest place of the boundary counts.

    Raises:
        InvalidInput: places are not (M, 2).
    """
    require(points.ndim == 2 and points.shape[1] == 2, f"places are (M, 2), got {tuple(points.shape)}")
    wanted = points.detach().double().numpy()
    cells, weights = located(mesh, wanted)
    vertices = mesh.triangles.numpy()[np.maximum(cells, 0)]
    outside = cells < 0
    if outside.any():
        ends, parts = nearest_on_boundary(mesh, wanted[outside])
        vertices[outside, :2], weights[outside, :2] = ends, parts
        weights[outside, 2] = 0
    rows = np.repeat(np.arange(len(wanted)), 3)
    table = sparse.coo_matrix((weights.ravel(), (rows, vertices.ravel())), shape=(len(wanted), len(mesh)))
    return sparse.csr_matrix(table)


def located(mesh: Mesh, wanted: Array) -> tuple[Array, Array]:
    """Return the triangle of each place (M, 2), -1 outside, and its barycentric coordinates (M, 3), zero outside."""
    from matplotlib.tri import Triangulation  # a trapezoidal map; slow to import

    points, triangles = mesh.points.numpy(), mesh.triangles.numpy()
    finder = Triangulation(points[:, 0], points[:, 1], triangles).get_trifinder()
    cells = np.asarray(finder(wanted[:, 0], wanted[:, 1]), dtype=np.int64)
    weights = barycentric(points[triangles[np.maximum(cells, 0)]], wanted)
    return cells, np.where(cells[:, None] >= 0, weights, 0.0)


def barycentric(corners: Array, x: Array) -> Array:
    """Return barycentric coordinates (..., 3) of places (..., 2) in triangles (..., 3, 2)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    whole = _cross(b - a, c - a)
    second, third = _cross(x - a, c - a) / whole, _cross(b - a, x - a) / whole
    return np.stack([1 - second - third, second, third], -1)


def nearest_on_boundary(mesh: Mesh, wanted: Array) -> tuple[Array, Array]:
    """Return the ends (M, 2) of the edge of the boundary nearest to each place, and weights (M, 2) of the place on it."""
    start, end = boundary_edges(mesh.triangles.numpy(), len(mesh))
    points = mesh.points.numpy()
    a, along = points[start], points[end] - points[start]
    gap = wanted[:, None] - a
    part = np.clip((gap * along).sum(2) / (along * along).sum(1), 0, 1)
    nearest = np.square(gap - part[:, :, None] * along).sum(2).argmin(1)
    t = part[np.arange(len(wanted)), nearest]
    return np.stack([start[nearest], end[nearest]], 1), np.stack([1 - t, t], 1)


def _cross(u: Array, v: Array) -> Array:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
