r"""Maps of a mesh to another shape: Floater's mean-value parametrisation, and radial basis functions.

Mean-value parametrisation: the boundary is put on a convex line, and every inner vertex i into the weighted mean of its
neighbours,

    sum_j w_ij (u_j - u_i) = 0 ,        w_ij = (tan(a / 2) + tan(b / 2)) / |x_j - x_i| ,

with the angles a and b at i on both sides of the edge ij. All weights are positive, so the map is one to one (Tutte), and a
map that is affine on the boundary is affine inside.
Sources: Floater, "Mean value coordinates", Computer Aided Geometric Design 2003; the use for meshes of a family, Casenave et al.
2023 (arXiv 2305.12871).

Radial basis functions: ``u(x) = sum_c k_c |x - x_c|^2 log |x - x_c| + A x + b`` through control points; affine maps are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from scipy.interpolate import RBFInterpolator
from scipy.sparse.linalg import splu
from torch import Tensor

from isocline._core.errors import require
from isocline.meshes.mesh import Array, Mesh


def to_disc(mesh: Mesh, at: Sequence[float] | None = None) -> Mesh:
    """Return the mesh on the unit disc.

    Args:
        mesh: a deformed disc.
        at: where its corners go, parts of the full turn in [0, 1), increasing from 0; by length along the boundary without it.

    Raises:
        InvalidInput: the mesh has holes, or `at` does not fit its corners.
    """
    turn = 2 * torch.pi * fractions(mesh, at)
    return mean_value_map(mesh, torch.stack([turn.cos(), turn.sin()], 1))


def to_square(mesh: Mesh) -> Mesh:
    """Return the mesh on the unit square; its four corners become those of the square.

    Raises:
        InvalidInput: there are not four corners, or a triangle has all its vertices on one side, where it would vanish.
    """
    require(len(mesh.corners) == 4, f"a square has four corners, the mesh names {len(mesh.corners)}")
    walk = 4 * fractions(mesh, (0, 0.25, 0.5, 0.75))
    along = walk % 1
    zero, one = torch.zeros_like(walk), torch.ones_like(walk)
    sides = ((along, zero), (one, along), (1 - along, one), (zero, 1 - along))
    square = torch.stack([torch.stack(side, 1) for side in sides])
    return mean_value_map(mesh, square[walk.long().clamp(max=3), torch.arange(len(walk))])


def mean_value_map(mesh: Mesh, boundary: Tensor) -> Mesh:
    """Return the mesh with its boundary at the given places and the mean-value map inside.

    Args:
        mesh: a deformed disc.
        boundary: new places of ``mesh.loop``, (B, 2), on a convex line.

    Raises:
        InvalidInput: another shape, or triangles are turned over or vanish, as they may where the line is not convex.
    """
    loop = mesh.loop.numpy()
    require(tuple(boundary.shape) == (len(loop), 2), f"the boundary has {len(loop)} vertices, not {len(boundary)}")
    inner = np.setdiff1d(np.arange(len(mesh)), loop)
    found = np.empty((len(mesh), 2))
    found[loop] = boundary.numpy()
    if len(inner):
        weights = mean_value_weights(mesh)
        system = sparse.diags(np.asarray(weights.sum(1)).ravel()) - weights
        found[inner] = splu(system[inner][:, inner].tocsc()).solve(-(system[inner][:, loop] @ found[loop]))
    return mesh.moved(torch.from_numpy(found))


def mean_value_weights(mesh: Mesh) -> sparse.csr_matrix:
    """Return the weights w_ij, (N, N); rows of the boundary know its inner side only."""
    points, cells = mesh.points.numpy(), mesh.triangles.numpy()
    rows, columns, values = [], [], []
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        first, second = points[cells[:, j]] - points[cells[:, i]], points[cells[:, k]] - points[cells[:, i]]
        long, short = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
        half = (long * short - (first * second).sum(1)) / (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
        rows += [cells[:, i], cells[:, i]]
        columns += [cells[:, j], cells[:, k]]
        values += [half / long, half / short]  # tan(a / 2) = (1 - cos a) / sin a
    pairs = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(sparse.coo_matrix((np.concatenate(values), pairs), shape=(len(mesh),) * 2))


def fractions(mesh: Mesh, at: Sequence[float] | None = None) -> Tensor:
    """Return where the vertices of the boundary go on a line of length 1, (B,) increasing from 0.

    Args:
        mesh: a deformed disc.
        at: the places of its corners; between two of them places go by length. By length everywhere without it.
    """
    x = mesh.points[mesh.loop]
    length = torch.cat([torch.zeros(1, dtype=torch.float64), (x.roll(-1, 0) - x).norm(dim=1).cumsum(0)])
    if at is None:
        return length[:-1] / length[-1]
    places = [float(a) for a in at]
    require(len(places) == len(mesh.corners), f"the mesh has {len(mesh.corners)} corners, but {len(places)} places")
    whole = [*places, 1.0]
    increasing = whole[0] == 0 and all(a < b for a, b in pairwise(whole))
    require(increasing, "places of corners increase from 0 and stay below 1")
    known = length[[*_places_of_corners(mesh), len(x)]].numpy()
    return torch.from_numpy(np.interp(length[:-1].numpy(), known, [*places, 1.0]))


def corner_fractions(mesh: Mesh) -> Tensor:
    """Return where the corners lie along the boundary, as parts of its length, (K,) from 0."""
    return fractions(mesh)[_places_of_corners(mesh)]


def rbf_morph(points: Tensor, control: Tensor, target: Tensor) -> Tensor:
    """Return points (N, 2), moved by the thin-plate map that brings control points (C, 2) to targets (C, 2).

    Raises:
        InvalidInput: fewer than three control points, or numbers that differ.
    """
    require(control.shape == target.shape and len(control) >= 3, "at least three control points need as many targets")
    found: Array = RBFInterpolator(control.numpy(), target.numpy(), kernel="thin_plate_spline", degree=1)(
        points.numpy()
    )
    return torch.from_numpy(found)


def _places_of_corners(mesh: Mesh) -> list[int]:
    place = {int(vertex): i for i, vertex in enumerate(mesh.loop)}
    return [place[c] for c in mesh.corners]
