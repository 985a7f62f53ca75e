r"""The Fréchet distance between Gaussians fitted to two sets of features, and an interval that accounts for its bias.

For means ``mu_1, mu_2`` and covariances ``S_1, S_2``

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2})

(Heusel et al., arXiv 1706.08500, with Inception features; here the features are the caller's). The symmetric roots
``R_i = S_i^{1/2}`` come from eigen-decompositions, and because ``S_1^{1/2} S_2 S_1^{1/2} = (R_2 R_1)^T (R_2 R_1)``,
the trace of its root is the sum of the singular values of ``R_2 R_1``: nothing complex appears and no precision is
lost to squaring.

Fitted to ``N`` samples, ``d^2`` is too large by about ``c / N``, also between two samples of one distribution; only
values of equal ``N`` compare. Resampling with replacement adds the same bias once more, so that a percentile bootstrap
interval lies above the truth altogether (for 16 features and 400 samples in 20 of 20 trials). `frechet_estimate` uses
the delete-a-group jackknife instead: with ``d_(j)`` the distance without group ``j`` of ``g``, the pseudo-values

    p_j = g d^2 - (g - 1) d^2_(j)

have a mean free of the ``1 / N`` term and their spread gives a Student interval with ``g - 1`` degrees of freedom. On
Gaussians of known distance (4 to 64 features, 200 to 1000 samples, 60 to 150 trials each) the nominal 95 % interval
held the truth in 95 to 99 % of the trials, and in all of them where the two distributions were equal.

`frechet_infinite` extrapolates instead (Chong and Forsyth, arXiv 1911.07023): distances of smaller sets lie on a line in ``1 / N``
whose value at 0 is that of infinite samples. They fit one random subset of each size against a fixed reference. Here both sets
are cut into ``k = 1..K`` blocks, and the mean ``e_k`` of the ``k`` distances between corresponding blocks uses all samples:

    e_k = d_inf^2 + c k ,      d_inf^2 = value at 0 of the line through (k, e_k) by least squares.

With ``K = 2`` it is ``2 e_1 - e_2``. On the same kind of Gaussians (20 to 100 trials) the intervals held the truth in 97 to 100 %
of the trials and were 9 to 33 % wider with ``K = 4`` than those of `frechet_estimate`.
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Estimate
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.metrics.mean import student

FRECHET = Method(
    "frechet-distance",
    "Fréchet distance (FID)",
    "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    "Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter",
    2017,
    "1706.08500",
    room="metrics",
    when="compare sets of generated images with real ones in a feature space; needs many more samples than features",
)

FRECHET_INFINITE = Method(
    "frechet-infinite",
    "Fréchet distance at infinite samples",
    "Effectively Unbiased FID and Inception Score and where to find them",
    "Min Jin Chong, David Forsyth",
    2020,
    "1911.07023",
    room="metrics",
    when="Beside published values extrapolated to infinite samples; `frechet_estimate` removes the same bias more cheaply.",
)


@FRECHET.variant()
def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return ``d^2`` between the Gaussians fitted to two sets of features, in their squared unit.

    Args:
        a: features (N, F); float32 features are converted, all arithmetic is float64.
        b: features (M, F).

    Raises:
        InvalidInput: the widths differ, or a set has no more samples than features.
        NotFinite: a feature is NaN or infinite.

    Examples:
        >>> x = Stream(0).normal((100, 2), dtype=torch.float64)
        >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0])), 9)
        25.0
    """
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    require(mean_a.shape == mean_b.shape, f"features differ in width: {tuple(a.shape)} and {tuple(b.shape)}")
    overlap = torch.linalg.svdvals(_root(cov_b) @ _root(cov_a)).sum()
    squared = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(0.0, float(squared))


def frechet_estimate(a: Tensor, b: Tensor, rng: Stream | int, resamples: int = 40, *, level: float = 0.95) -> Estimate:
    """Return ``d^2`` between the two distributions, freed of its ``1 / N`` bias, with a jackknife interval.

    The value is therefore smaller than `frechet_distance` of the same sets. Negative ends, which occur where the
    distributions are nearly equal, are set to zero.

    Args:
        a: features (N, F) of independent samples.
        b: features (M, F) of independent samples.
        rng: stream or seed; decides which samples form a group.
        resamples: number of groups ``g``.
        level: coverage of the interval.

    Raises:
        InvalidInput: fewer than two groups, or a set without one group has no more samples than features.
    """
    require(
        2 <= resamples <= min(len(a), len(b)), f"the jackknife needs 2 to {min(len(a), len(b))} groups, got {resamples}"
    )
    rng = as_stream(rng, "frechet")
    group_a, group_b = (rng.child(name).permutation(len(x)) % resamples for name, x in (("a", a), ("b", b)))
    whole = frechet_distance(a, b)
    without = [frechet_distance(a[group_a != j], b[group_b != j]) for j in range(resamples)]
    pseudo = resamples * whole - (resamples - 1) * torch.tensor(without, dtype=torch.float64)
    value = float(pseudo.mean())
    half = student(level, resamples - 1) * float(pseudo.std()) / math.sqrt(resamples)
    low, value, high = (max(0.0, end) for end in (value - half, value, value + half))
    return Estimate(value, low, high, level, min(len(a), len(b)))


@FRECHET_INFINITE.variant()
def frechet_infinite(
    a: Tensor, b: Tensor, rng: Stream | int, blocks: int = 4, *, groups: int = 20, level: float = 0.95
) -> Estimate:
    """Return ``d^2`` between the two distributions, extrapolated to infinite samples, with a jackknife interval.

    Costs ``blocks (blocks + 1) / 2`` distances for the value and as many for each group. Negative ends are set to zero.

    Args:
        a: features (N, F) of independent samples.
        b: features (M, F) of independent samples.
        rng: stream or seed; decides the blocks and groups.
        blocks: largest number of blocks ``K``, at least 2.
        groups: number of groups that the interval leaves out in turn.
        level: coverage of the interval.

    Raises:
        InvalidInput: fewer than two blocks or groups, or a block that has no more samples than features.
    """
    smallest = min(len(a), len(b))
    require(blocks >= 2, f"an extrapolation needs at least two numbers of blocks, got {blocks}")
    require(2 <= groups <= smallest, f"the jackknife needs 2 to {smallest} groups, got {groups}")
    rng = as_stream(rng, "frechet-infinite")
    a, b = (x[rng.child(name).permutation(len(x))] for name, x in (("a", a), ("b", b)))
    value = _extrapolated(a, b, blocks)
    groups_of = [torch.arange(len(x)) % groups for x in (a, b)]
    without = [_extrapolated(a[groups_of[0] != j], b[groups_of[1] != j], blocks) for j in range(groups)]
    spread = float(torch.tensor(without, dtype=torch.float64).std(correction=0)) * math.sqrt(groups - 1)
    half = student(level, groups - 1) * spread
    low, value, high = (max(0.0, end) for end in (value - half, value, value + half))
    return Estimate(value, low, high, level, smallest)


def _extrapolated(a: Tensor, b: Tensor, blocks: int) -> float:
    """Return the value at ``k = 0`` of the line through the mean distances of ``k`` blocks."""
    k = torch.arange(1, blocks + 1, dtype=torch.float64)
    pairs = [zip(a.tensor_split(n), b.tensor_split(n), strict=True) for n in range(1, blocks + 1)]
    e = torch.tensor([statistics.fmean(frechet_distance(x, y) for x, y in pair) for pair in pairs], dtype=torch.float64)
    line = torch.linalg.lstsq(torch.stack([torch.ones_like(k), k], 1), e[:, None]).solution
    return float(line[0, 0])


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    require(x.ndim == 2, f"features must be (N, F), got shape {tuple(x.shape)}")
    n, width = x.shape
    require(n > width, f"the Fréchet distance of {width} features needs more than {width} samples, got {n}")
    if not bool(x.isfinite().all()):
        raise NotFinite("the features hold NaN or infinity; check the images they were computed from")
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (n - 1)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
