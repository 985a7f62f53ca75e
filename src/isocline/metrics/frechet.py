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
"""

from __future__ import annotations

import math

import torch
from scipy.stats import t as student
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Estimate
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream

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
    half = float(student.ppf((1 + level) / 2, resamples - 1) * pseudo.std() / math.sqrt(resamples))
    low, value, high = (max(0.0, end) for end in (value - half, value, value + half))
    return Estimate(value, low, high, level, min(len(a), len(b)))


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
