"""Neighbours in a ball, for several point sets laid one after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from isocline._core.errors import require


def within_radius(coordinates: Tensor, offsets: Tensor, radius: float, *, period: float | None = None) -> Tensor:
    """Return the pairs ``(2, E)`` of target and source at most `radius` apart in the same set, each point its own neighbour.

    Args:
        coordinates: all points, ``(sum N, D)``.
        offsets: where each set begins, and the end, ``(B + 1,)``.
        radius: of the ball.
        period: side of a periodic box that begins at zero; None for no periodicity.

    Raises:
        InvalidInput: a radius that is not positive, or offsets that do not cover the points.
    """
    require(radius > 0, f"radius must be positive, got {radius}")
    bounds = offsets.tolist()
    require(
        bounds[0] == 0 and bounds[-1] == len(coordinates), f"offsets must go from 0 to {len(coordinates)}, got {bounds}"
    )
    places = coordinates.detach().cpu().double().numpy()
    if period is not None:
        places = places % period
        places[places >= period] = 0  # a tiny negative number is rounded to the period itself
    found = [_pairs(places[a:b], radius, period) + a for a, b in pairwise(bounds) if b > a]
    edges = np.concatenate(found, axis=1) if found else np.zeros((2, 0), dtype=np.int64)
    return torch.from_numpy(edges).to(coordinates.device)


def _pairs(places: np.ndarray, radius: float, period: float | None) -> np.ndarray:
    near = cKDTree(places, boxsize=period).query_pairs(radius, output_type="ndarray").astype(np.int64).T
    own = np.arange(len(places), dtype=np.int64)
    return np.concatenate([np.stack([own, own]), near, near[::-1]], axis=1)
