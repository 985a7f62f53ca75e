r"""The shape of a data set near each point: intrinsic dimension and thickness.

**TwoNN** (Facco, d'Errico, Rodriguez and Laio, arXiv 1803.06992). With ``r1`` and ``r2`` the distances from a point to its two
nearest neighbours, ``mu = r2 / r1`` has the law ``P(mu > x) = x^-m`` wherever the density does not change over ``r2``. The estimate
is the one of maximum likelihood, ``m = N / sum log mu``.

**Thickness.** The ``k`` nearest neighbours of a point are an ``m``-dimensional disc of radius ``r``, bent and thickened. Normal to
it their variance is ``w^2 + c r^4``: the thickness ``w`` and a bend that grows with the disc. Least squares over several ``k``
separates the two. Only discs three times as wide as thick count: smaller ones are balls, cut out of the thickness.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Estimate, bootstrap
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream

TWO_NN = Method(
    "two-nn",
    "TwoNN intrinsic dimension",
    "Estimating the intrinsic dimension of datasets by a minimal neighborhood information",
    "Elena Facco, Maria d'Errico, Alex Rodriguez, Alessandro Laio",
    2018,
    "1803.06992",
    room="metrics",
    when="A few thousand points without noise; thickness above the spacing of the points adds dimensions.",
)


FLAT = 3.0  # how much wider than thick a neighbourhood must be


@TWO_NN.variant()
def two_nn(points: Tensor, rng: Stream | int) -> Estimate:
    """Return the intrinsic dimension of `points` (N, *) with a bootstrap interval over points.

    Args:
        points: distinct points, at least 20.
        rng: stream or seed of the bootstrap.

    Examples:
        >>> angle = 6.2832 * Stream(0).uniform((500, 1), dtype=torch.float64)
        >>> round(two_nn(torch.cat([angle.cos(), angle.sin()], 1), 0).value, 1)
        1.0
    """
    flat = points.flatten(1).double()
    require(len(flat) >= 20, f"an intrinsic dimension needs at least 20 points, got {len(flat)}")
    near = torch.cat([_sorted_distances(flat, block, 3)[:, 1:] for block in torch.arange(len(flat)).split(512)])
    require(
        bool((near[:, 0] > 0).all()),
        f"{int((near[:, 0] == 0).sum())} of {len(flat)} points occur more than once; remove the copies",
    )
    return bootstrap(lambda log_mu: 1 / log_mu.mean(-1), torch.log(near[:, 1] / near[:, 0]), rng=rng)


def thickness(points: Tensor, dimension: int, rng: Stream | int, *, anchors: int = 256) -> Estimate:
    """Return the standard deviation of `points` (N, *) normal to the set of `dimension` on which they lie, in their units.

    An interval that begins at 0 says that no thickness was resolved; its upper end is then a bound. The interval is that of
    sampling alone. Bends of higher order add a few percent, and 0.007 where 2000 points on a unit sphere of dimension 4 have none.

    Raises:
        InvalidInput: no neighbourhood is at least three times as wide as thick.

    Args:
        points: at least 50 points.
        dimension: of the set; below the number of entries.
        rng: stream or seed.
        anchors: number of points whose neighbourhoods are looked at.
    """
    flat = points.flatten(1).double()
    n, d = flat.shape
    require(1 <= dimension < d, f"thickness needs 1 <= dimension < {d} entries, got {dimension}")
    require(n >= 50, f"a thickness needs at least 50 points, got {n}")
    stream = as_stream(rng, "thickness")
    chosen = stream.permutation(n)[:anchors]
    discs = [_local(flat, chosen, k, dimension) for k in _sizes(dimension, n)]
    flats = [(v, along) for v, along in discs if float(v.mean()) < (float(along.mean()) / dimension) / FLAT**2]
    require(
        len(flats) >= 2,
        f"no neighbourhood of these {n} points looks {dimension}-dimensional: they are as thick as they are far apart. "
        "Give more points, or another dimension",
    )
    variances = torch.stack([v for v, _ in flats])  # (sizes, anchors)
    bends = torch.stack([along.square() for _, along in flats])
    index = stream.child("bootstrap").integers(len(chosen), (500, len(chosen)))
    value = _intercept(variances.mean(1), bends.mean(1))
    draws = torch.stack([_intercept(variances[:, i].mean(1), bends[:, i].mean(1)) for i in index])
    tails = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64))
    low, root, high = (math.sqrt(max(float(v), 0.0)) for v in (tails[0], value, tails[1]))
    return Estimate(root, min(low, root), max(high, root), 0.95, len(chosen))


def _sizes(dimension: int, n: int) -> list[int]:
    sizes = (round((2 * dimension + 4) * 1.4**j) for j in range(40))
    return [k for k in sizes if k <= n // 4]


def _sorted_distances(flat: Tensor, rows: Tensor, k: int) -> Tensor:
    return torch.cdist(flat[rows], flat).topk(k, largest=False).values


def _local(flat: Tensor, chosen: Tensor, k: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Return the variances normal to and, in sum, along each neighbourhood of `k` points, (anchors,) each."""
    index = torch.cdist(flat[chosen], flat).topk(k, largest=False).indices
    near = flat[index]
    spread = torch.linalg.svdvals(near - near.mean(1, keepdim=True)).square()
    spread = torch.nn.functional.pad(spread, (0, max(flat.shape[1] - spread.shape[1], 0)))
    free = (k - 1 - dimension) * (flat.shape[1] - dimension)  # what a fit of `dimension` directions leaves
    along = spread[:, :dimension].sum(1) / (k - 1)
    return spread[:, dimension:].sum(1) / free, along


def _intercept(variance: Tensor, bend: Tensor) -> Tensor:
    """Return the intercept of the line through (bend, variance), fitted to relative errors."""
    weight = 1 / variance.clamp(min=1e-300)
    design = torch.stack([torch.ones_like(bend), bend / bend.max()], dim=1) * weight[:, None]
    solution: Tensor = torch.linalg.lstsq(design, (variance * weight)[:, None]).solution
    return solution[0, 0]
