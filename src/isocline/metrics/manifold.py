r"""How far samples are from the set on which the data lie.

For a set ``M`` with distance ``dist(x, M)`` the share of samples farther than a tolerance, and the mean distance. Both need a
set that is known: a formula, or a cloud of points dense in it. The nearest of finitely many points is farther than the set, on
a curve with points ``h`` apart by ``sqrt(dist^2 + (h/2)^2) - dist`` at most; samples on the set itself read up to ``h / 2``.

The share is what Lu, Wang and Bal (arXiv 2301.07882) call polluted samples; their tolerance is not known, 0.1 is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import Mismatch, NotFinite, require
from isocline._core.estimate import Estimate
from isocline.metrics.distances import CHUNK, _points
from isocline.metrics.mean import mean_estimate
from isocline.metrics.proportion import proportion


class OffManifold(NamedTuple):
    """How far samples are from a set.

    Attributes:
        share: of samples farther than the tolerance, with Wilson's interval.
        distance: mean distance with Student's interval, in the samples' unit.
    """

    share: Estimate
    distance: Estimate


def nearest_distance(cloud: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that gives the distance (N,) of samples (N, *) to the nearest point of `cloud` (M, *), float64.

    Examples:
        >>> nearest_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))(torch.tensor([[3.0, 0.0]]))
        tensor([3.], dtype=torch.float64)
    """

    def distance(samples: Tensor) -> Tensor:
        x, points = _points(samples, cloud)
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cat([torch.cdist(rows, points, compute_mode=exact).amin(1) for rows in x.split(CHUNK)])

    return distance


def off_manifold(
    samples: Tensor, distance: Callable[[Tensor], Tensor], tolerance: float = 0.1, level: float = 0.95
) -> OffManifold:
    """Return the share of samples farther than `tolerance` from a set, and their mean distance.

    Args:
        samples: (N, *) independent samples, at least two.
        distance: maps samples (N, *) to distances (N,), for example from `nearest_distance`.
        tolerance: in the samples' unit.
        level: coverage of both intervals.

    Raises:
        Mismatch: `distance` returns another shape.
        NotFinite: a distance is NaN or infinite, as those of diverged samples are.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.05], [2.0, 0.0], [0.6, 0.8]])
        >>> found = off_manifold(x, lambda x: (x.norm(dim=1) - 1).abs())  # the unit circle
        >>> found.share.value, round(found.distance.value, 4)
        (0.25, 0.2625)
    """
    require(0 <= tolerance < math.inf, f"the tolerance must be finite and not negative, got {tolerance}")
    found = distance(samples)
    if found.shape != samples.shape[:1]:
        raise Mismatch(f"the distance returned shape {tuple(found.shape)} for samples of shape {tuple(samples.shape)}")
    lost = int((~found.isfinite()).sum())
    if lost:
        raise NotFinite(
            f"{lost} of {len(found)} distances are NaN or infinite; count such samples apart and leave them out"
        )
    require(not bool((found < 0).any()), "a distance must not be negative; take its absolute value")
    share = proportion(int((found > tolerance).sum()), len(found), level)
    return OffManifold(share, mean_estimate(found, level))
