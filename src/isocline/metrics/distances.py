r"""Distances between samples: root mean square, sliced Wasserstein, energy; and what a metric reads by chance.

For distributions ``P`` and ``Q`` of points in ``R^d``:

    rms(a, b)   = (1/d |a - b|^2)^{1/2}                                       sample by sample
    SW_1(P, Q)  = E_u int_0^1 |F^{-1}_{u.P}(q) - F^{-1}_{u.Q}(q)| dq          u uniform on the unit sphere
    E(P, Q)     = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

(Rabin, Peyré, Delon, Bernot, SSVM 2011; Székely and Rizzo, J. Stat. Plan. Inference 143, 2013). Both distances are
taken between the empirical distributions. They are zero only for equal samples, so two samples of one distribution lie
a positive distance apart; `two_sample_floor` measures it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Estimate
from isocline._core.stream import Stream, as_stream

CHUNK = 1024  # rows of a distance matrix held at a time


def rms(a: Tensor, b: Tensor) -> Tensor:
    """Return the root mean square difference (B,) of each pair of samples, in the samples' unit and dtype.

    Args:
        a: (B, *).
        b: (B, *), the same shape.

    Examples:
        >>> rms(torch.zeros(2, 2), torch.tensor([[3.0, 3.0], [1.0, 7.0]]))
        tensor([3., 5.])
    """
    require(a.shape == b.shape, f"rms compares sample by sample; the shapes are {tuple(a.shape)} and {tuple(b.shape)}")
    return (a - b).flatten(1).square().mean(1).sqrt()


def sliced_wasserstein(a: Tensor, b: Tensor, rng: Stream | int, directions: int = 256) -> float:
    """Return the mean 1-Wasserstein distance of the samples' projections on random directions, in their unit.

    Along each direction the distance is exact, for unequal numbers of samples too. In one dimension it is the
    1-Wasserstein distance itself.

    Args:
        a: (N, *); converted to float64.
        b: (M, *).
        rng: stream or seed of the directions; the same seed gives the same directions for every pair of samples.
        directions: how many.

    Examples:
        >>> sliced_wasserstein(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]]), rng=0)
        2.0
    """
    a, b = _points(a, b)
    u = as_stream(rng, "sliced-wasserstein").normal((directions, a.shape[1]), dtype=torch.float64)
    u = u / u.norm(dim=1, keepdim=True)
    return float(_wasserstein(a @ u.T, b @ u.T).mean())


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Return ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``, in the samples' unit; never negative, zero only for equal samples.

    Pairs of a sample with itself count (the V-statistic). Costs ``(N + M)^2`` distances, held in parts.

    Args:
        a: (N, *); converted to float64.
        b: (M, *).

    Examples:
        >>> energy_distance(torch.tensor([[0.0]]), torch.tensor([[2.0]]))
        4.0
    """
    a, b = _points(a, b)
    return max(0.0, 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b))


def two_sample_floor(
    metric: Callable[[Tensor, Tensor], float], sample: Tensor, rng: Stream | int, splits: int = 100
) -> Estimate:
    """Return what `metric` reads between two random halves of one sample: its median and central 95 % over the splits.

    A metric of two sets of ``N // 2`` that lies inside the interval is no evidence that their distributions differ.
    The interval describes the spread over splits; it is not a confidence interval of the median.

    Args:
        metric: compares two sets of samples.
        sample: (N, *), samples of one distribution.
        rng: stream or seed of the splits.
        splits: how many.

    Examples:
        >>> floor = two_sample_floor(energy_distance, Stream(0).normal((100, 2)), rng=0, splits=20)
        >>> floor.low > 0, floor.high < 0.2, floor.n
        (True, True, 50)
    """
    half = len(sample) // 2
    require(half >= 1 and splits >= 2, f"a floor needs two samples and two splits, got {len(sample)} and {splits}")
    rng = as_stream(rng, "two-sample-floor")
    orders = (rng.permutation(len(sample), step=i) for i in range(splits))
    values = [float(metric(sample[order[:half]], sample[order[half : 2 * half]])) for order in orders]
    levels = torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)
    low, middle, high = torch.quantile(torch.tensor(values, dtype=torch.float64), levels).tolist()
    return Estimate(middle, low, high, 0.95, half)


def _points(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    require(a.ndim >= 2 and b.ndim >= 2, f"samples are (N, *), got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    require(len(a) > 0 and len(b) > 0, "a distance needs at least one sample on each side")
    same = a.shape[1:] == b.shape[1:]
    require(same, f"the samples' shapes differ: {tuple(a.shape[1:])} and {tuple(b.shape[1:])}")
    return a.flatten(1).double(), b.flatten(1).double()


def _wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Integrate ``|F_a^{-1} - F_b^{-1}|`` column by column; both are constant between cuts ``i / n`` and ``j / m``."""
    n, m = len(a), len(b)
    cuts = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / (n m)
    widths = torch.diff(cuts, prepend=torch.zeros(1, dtype=cuts.dtype)).double() / (n * m)
    a, b = a.sort(dim=0).values, b.sort(dim=0).values
    return widths @ (a[(cuts - 1) // m] - b[(cuts - 1) // n]).abs()


def _mean_distance(a: Tensor, b: Tensor) -> float:
    exact = "donot_use_mm_for_euclid_dist"  # the faster form loses half the digits for near points
    total = sum(float(torch.cdist(rows, b, compute_mode=exact).sum()) for rows in a.split(CHUNK))
    return total / (len(a) * len(b))
