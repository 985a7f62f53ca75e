r"""Maximum mean discrepancy (Gretton, Borgwardt, Rasch, Schölkopf and Smola, JMLR 13, 2012; arXiv 0805.2368).

For a kernel ``k`` and distributions ``P`` and ``Q``

    MMD^2(P, Q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y) ,

estimated without bias by leaving out the pairs of a sample with itself; the estimate can be negative where ``P`` and ``Q`` are
nearly equal. It vanishes only for ``P = Q`` if the kernel is characteristic, as the Gaussian one is; a polynomial of degree 3
compares the first three moments, and on features of an image network it is the kernel Inception distance (Bińkowski et al., arXiv
1801.01401).

The interval is the delete-one jackknife's over both samples. A deletion changes the sums of the kernel matrix by one of its row
sums, so all of them cost no more than the matrix. A bandwidth taken from the data is held fixed. On Gaussians with known
``MMD^2`` (2 to 16 dimensions, 60 to 300 samples, 400 trials each) the nominal 95 % interval held the truth in 90 to 95 % of the
trials; for equal distributions it was a third wider than needed. There `two_sample_floor` is the sharper judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Estimate
from isocline._core.registry import Method
from isocline.metrics.distances import CHUNK, _points
from isocline.metrics.mean import student

Kernel = Callable[[Tensor, Tensor], Tensor]

MMD = Method(
    "mmd",
    "Maximum mean discrepancy",
    "A Kernel Two-Sample Test",
    "Arthur Gretton, Karsten M. Borgwardt, Malte J. Rasch, Bernhard Schölkopf, Alexander Smola",
    2012,
    "0805.2368",
    room="metrics",
    when="Few samples: unbiased at every size, unlike the Fréchet distance; the kernel decides what is seen.",
)
KID = Method(
    "kid",
    "Kernel Inception distance",
    "Demystifying MMD GANs",
    "Mikołaj Bińkowski, Danica J. Sutherland, Michael Arbel, Arthur Gretton",
    2018,
    "1801.01401",
    room="metrics",
    when="Sets of images with fewer samples than features, where the Fréchet distance is not defined.",
)


def gaussian_kernel(bandwidth: float) -> Kernel:
    """Return ``k(x, y) = exp(-|x - y|^2 / (2 h^2))`` for points (N, d) and (M, d); `bandwidth` ``h`` is in their unit.

    Examples:
        >>> round(float(gaussian_kernel(2.0)(torch.zeros(1, 1), torch.full((1, 1), 2.0))), 4)
        0.6065
    """
    require(0 < bandwidth < math.inf, f"the bandwidth must be positive, got {bandwidth}")
    exact = "donot_use_mm_for_euclid_dist"
    return lambda x, y: torch.cdist(x, y, compute_mode=exact).square().mul_(-0.5 / bandwidth**2).exp_()


@KID.variant()
def polynomial_kernel(degree: int = 3, offset: float = 1.0) -> Kernel:
    """Return ``k(x, y) = (x . y / d + offset)^degree``; degree 3 and offset 1 are those of the kernel Inception distance.

    Examples:
        >>> float(polynomial_kernel()(torch.ones(1, 5), torch.ones(1, 5)))
        8.0
    """
    require(degree >= 1, f"the degree must be at least 1, got {degree}")
    return lambda x, y: (x @ y.T / x.shape[1] + offset) ** degree


def median_distance(a: Tensor, b: Tensor, most: int = 2000) -> float:
    """Return the median distance between two points of both samples together, the usual bandwidth, in their unit.

    Args:
        a: (N, *).
        b: (M, *).
        most: points that are looked at; of more, evenly spaced ones.

    Raises:
        InvalidInput: the shapes differ, or more than half of the distances are zero.
    """
    pooled = torch.cat(_points(a, b))
    pooled = pooled[:: -(-len(pooled) // most)]
    median = float(torch.pdist(pooled).median())
    require(median > 0, "more than half of the points are equal; choose the bandwidth yourself")
    return median


@MMD.variant()
def squared_mmd(a: Tensor, b: Tensor, kernel: Kernel) -> float:
    """Return the unbiased estimate of ``MMD^2``, in the kernel's unit; negative values are chance.

    Costs ``(N + M)^2`` values of the kernel, held in parts. Give `two_sample_floor` the same kernel, made beforehand.

    Args:
        a: (N, *), at least two; converted to float64.
        b: (M, *), at least two.
        kernel: maps points (N, d) and (M, d) to (N, M), symmetric.

    Examples:
        >>> a = torch.tensor([[0.0], [2.0]])
        >>> squared_mmd(a, a + 1, lambda x, y: x @ y.T)  # the squared distance of the means, but for chance
        -1.0
    """
    return _Sums(a, b, kernel, 2).whole()


def squared_mmd_estimate(a: Tensor, b: Tensor, kernel: Kernel, level: float = 0.95) -> Estimate:
    """Return the unbiased estimate of ``MMD^2`` with its jackknife interval.

    Args:
        a: (N, *) independent samples, at least three; converted to float64.
        b: (M, *) independent samples, at least three.
        kernel: maps points (N, d) and (M, d) to (N, M), symmetric; a bandwidth is not varied by the interval.
        level: coverage of the interval.
    """
    sums = _Sums(a, b, kernel, 3)
    value, left_out = sums.whole(), sums.without_one()
    variance = sum((len(x) - 1) * float(x.var(correction=0)) for x in left_out)
    smallest = min(len(a), len(b))
    half = student(level, smallest - 1) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, level, smallest)


class _Sums:
    """Row sums of the kernel matrices of two samples, without pairs of a sample with itself."""

    def __init__(self, a: Tensor, b: Tensor, kernel: Kernel, least: int) -> None:
        a, b = _points(a, b)
        self.n, self.m = len(a), len(b)
        enough = min(self.n, self.m) >= least
        require(enough, f"MMD needs at least {least} samples on each side, got {self.n} and {self.m}")
        self.a, self.b = _rows(a, a, kernel, own=True), _rows(b, b, kernel, own=True)
        self.ab, self.ba = _rows(a, b, kernel), _rows(b, a, kernel)

    def whole(self) -> float:
        """Return the estimate."""
        return float(
            _pairs(self.a.sum(), self.n) + _pairs(self.b.sum(), self.m) - 2 * self.ab.sum() / (self.n * self.m)
        )

    def without_one(self) -> tuple[Tensor, Tensor]:
        """Return the estimates (N,) and (M,) without each sample of the first and of the second."""
        n, m = self.n, self.m
        own_a, own_b, cross = self.a.sum(), self.b.sum(), self.ab.sum()
        left_a = _pairs(own_a - 2 * self.a, n - 1) + _pairs(own_b, m) - 2 * (cross - self.ab) / ((n - 1) * m)
        left_b = _pairs(own_a, n) + _pairs(own_b - 2 * self.b, m - 1) - 2 * (cross - self.ba) / (n * (m - 1))
        return left_a, left_b


def _pairs(total: Tensor, n: int) -> Tensor:
    return total / (n * (n - 1))


def _rows(x: Tensor, y: Tensor, kernel: Kernel, own: bool = False) -> Tensor:
    """Return the row sums of the kernel matrix; `own` leaves out its diagonal."""
    sums = []
    for i, rows in enumerate(x.split(CHUNK)):
        block = kernel(rows, y)
        sums.append(block.sum(1) - block.diagonal(i * CHUNK) if own else block.sum(1))
    return torch.cat(sums)
