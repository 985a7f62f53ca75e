r"""Quadrature weights of scattered points: the volumes of their Voronoi cells in a box.

    int f(x) dx  ~=  sum_i w_i f(x_i) ,     w_i = |{x in the box : |x - x_i| <= |x - x_j| for all j}|

Each point is mirrored at every wall. A wall is then the face between a point and its mirror image, so the cells of the points end
at the walls. The rule is exact for constants, whatever the density of the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.spatial import ConvexHull, Voronoi
from torch import Tensor

from isocline._core.errors import require

_APART = (
    1e-8  # of the side of the box: how far a point on a wall is moved inside, so that it differs from its mirror image
)


def voronoi_weights(coordinates: Tensor, offsets: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """Return the weights of all points, (sum N,); those of a case sum to the volume of the box.

    Points at the same place share their cell equally.

    Args:
        coordinates: points of all cases, ``(sum N, D)``.
        offsets: where each case begins, and the end, ``(B + 1,)``.
        low: lower corner of the box, D numbers in units of the coordinates.
        high: upper corner.

    Raises:
        InvalidInput: corners of another dimension or in the wrong order, points outside the box, or offsets that do not cover the
            points.

    Examples:
        >>> voronoi_weights(torch.tensor([[0.0], [0.5], [1.0]]), torch.tensor([0, 3]), [0.0], [1.0])
        tensor([0.2500, 0.5000, 0.2500])
    """
    bounds, count = offsets.tolist(), len(coordinates)
    require(bounds[0] == 0 and bounds[-1] == count, f"offsets must go from 0 to {count}, got {bounds}")
    places = coordinates.detach().cpu().double().numpy()
    first, last = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    shape = places.shape[1:]
    require(first.shape == last.shape == shape, f"the corners need {shape[0]} numbers each, got {low} and {high}")
    require(bool((first < last).all()), f"the lower corner must lie below the upper one, got {low} and {high}")
    inside = bool(((places >= first) & (places <= last)).all())
    require(inside, f"points must lie in the box from {low} to {high}; some lie outside or are not finite")
    unit = (places - first) / (last - first)
    volumes = [_shared(unit[a:b], last - first) for a, b in pairwise(bounds) if b > a]
    return torch.from_numpy(np.concatenate([np.zeros(0), *volumes])).to(coordinates)


def _shared(unit: np.ndarray, sides: np.ndarray) -> np.ndarray:
    places, own, count = np.unique(unit, axis=0, return_inverse=True, return_counts=True)
    cells = _lengths(places[:, 0]) * sides[0] if len(sides) == 1 else _volumes(places, sides)
    shared: np.ndarray = (cells / count)[own.reshape(-1)]
    return shared


def _lengths(places: np.ndarray) -> np.ndarray:
    return np.diff(np.concatenate([[0.0], (places[1:] + places[:-1]) / 2, [1.0]]))


def _volumes(unit: np.ndarray, sides: np.ndarray) -> np.ndarray:
    places = np.clip(unit, _APART, 1 - _APART)
    walls = [(axis, wall) for axis in range(len(sides)) for wall in (0.0, 1.0)]
    diagram = Voronoi(np.concatenate([places, *(_mirrored(places, *wall) for wall in walls)]) * sides)
    if len(sides) == 2:
        return _areas(diagram, len(places))
    cells = [diagram.regions[region] for region in diagram.point_region[: len(places)]]
    return np.array([ConvexHull(diagram.vertices[cell]).volume for cell in cells])


def _mirrored(places: np.ndarray, axis: int, wall: float) -> np.ndarray:
    image = places.copy()
    image[:, axis] = 2 * wall - image[:, axis]
    return image


def _areas(diagram: Voronoi, count: int) -> np.ndarray:
    """A cell is made of triangles from its point to its edges; an edge lies half-way between its two points."""
    ends = np.array(diagram.ridge_vertices)
    pairs = diagram.ridge_points
    finite = (ends >= 0).all(axis=1)  # the edges that go to infinity belong to mirror images
    ends, pairs = ends[finite], pairs[finite]
    length = np.linalg.norm(diagram.vertices[ends[:, 0]] - diagram.vertices[ends[:, 1]], axis=1)
    gap = np.linalg.norm(diagram.points[pairs[:, 0]] - diagram.points[pairs[:, 1]], axis=1)
    return np.bincount(pairs.reshape(-1), np.repeat(length * gap / 4, 2), len(diagram.points))[:count]
