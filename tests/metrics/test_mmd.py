"""MMD^2: the double loop, closed forms for Gaussians and moments, the jackknife written out, coverage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.metrics import (
    gaussian_kernel,
    median_distance,
    mmd,
    polynomial_kernel,
    squared_mmd,
    squared_mmd_estimate,
    two_sample_floor,
)
from isocline.metrics.mmd import Kernel

KERNELS = [gaussian_kernel(1.5), polynomial_kernel(), polynomial_kernel(2, 0.5)]


def normal(n: int, width: int, seed: int, name: str = "test") -> Tensor:
    return Stream(seed, name).normal((n, width), dtype=torch.float64)


def naive(a: Tensor, b: Tensor, kernel: Kernel) -> float:
    """Return the estimate from its definition, pair by pair."""

    def k(x: Tensor, y: Tensor) -> float:
        return float(kernel(x[None], y[None]))

    def within(z: Tensor) -> float:
        n = len(z)
        return sum(k(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    return within(a) + within(b) - 2 * sum(k(x, y) for x in a for y in b) / (len(a) * len(b))


def between_gaussians(bandwidth: float, d: int, shift: float, scale: float) -> float:
    """Return ``MMD^2`` of ``N(0, I)`` and ``N(shift, scale^2 I)`` for the Gaussian kernel."""

    def mean(variance: float, squared: float) -> float:
        width = bandwidth**2 + variance
        return float((bandwidth**2 / width) ** (d / 2) * math.exp(-squared / (2 * width)))

    return mean(2, 0) + mean(2 * scale**2, 0) - 2 * mean(1 + scale**2, d * shift**2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("chunk", [1, 4, 1024])
def test_it_is_the_double_loop(kernel: Kernel, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd, "CHUNK", chunk)
    a, b = normal(9, 3, 0), 2 * normal(6, 3, 1) + 0.3
    assert squared_mmd(a, b, kernel) == pytest.approx(naive(a, b, kernel), rel=1e-11)
    assert squared_mmd(a.reshape(9, 3, 1), b.reshape(6, 3, 1), kernel) == squared_mmd(a, b, kernel)


def test_kernels_are_their_formulas() -> None:
    x, y = normal(4, 3, 0), normal(5, 3, 1)
    squared = (x[:, None] - y[None]).square().sum(-1)
    torch.testing.assert_close(gaussian_kernel(0.7)(x, y), torch.exp(-squared / (2 * 0.49)), rtol=1e-12, atol=0)
    inner = (x[:, None] * y[None]).sum(-1)
    torch.testing.assert_close(polynomial_kernel(2, 0.5)(x, y), (inner / 3 + 0.5) ** 2, rtol=1e-12, atol=1e-14)


def test_a_linear_kernel_compares_the_means() -> None:
    """``MMD^2 = |m_a - m_b|^2`` less the variances of both means, which is what makes it unbiased."""
    a, b = normal(20, 4, 0), normal(30, 4, 1) + 0.5
    means = (a.mean(0) - b.mean(0)).square().sum() - a.var(0).sum() / 20 - b.var(0).sum() / 30
    assert squared_mmd(a, b, lambda x, y: x @ y.T) == pytest.approx(float(means), rel=1e-11)


@pytest.mark.parametrize(("d", "n", "m", "shift", "scale"), [(4, 100, 70, 0.3, 1.2), (16, 60, 60, 0.2, 1.0)])
def test_it_is_unbiased_and_the_interval_holds_the_truth(d: int, n: int, m: int, shift: float, scale: float) -> None:
    kernel, truth, trials = gaussian_kernel(math.sqrt(2 * d)), between_gaussians(math.sqrt(2 * d), d, shift, scale), 150
    found = [
        squared_mmd_estimate(normal(n, d, s, "a"), shift + scale * normal(m, d, s, "b"), kernel) for s in range(trials)
    ]
    values = torch.tensor([e.value for e in found])
    assert abs(float(values.mean()) - truth) < 3 * float(values.std()) / math.sqrt(trials)
    assert (
        sum(e.low <= truth <= e.high for e in found) >= 0.87 * trials
    )  # 90 % would fail this in 1 of 13 sets of trials
    half = sum(e.high - e.value for e in found) / trials
    assert 0.85 < half / (2 * float(values.std())) < 1.25


def test_equal_distributions_are_not_told_apart_and_the_value_can_be_negative() -> None:
    kernel = gaussian_kernel(2.0)
    found = [squared_mmd_estimate(normal(60, 3, s, "a"), normal(50, 3, s, "b"), kernel) for s in range(60)]
    assert sum(e.low <= 0 <= e.high for e in found) >= 53
    assert 15 < sum(e.value < 0 for e in found) < 45
    assert found[0].n == 50


def test_the_interval_is_the_jackknife_of_both_samples() -> None:
    a, b, kernel = normal(7, 2, 0), normal(5, 2, 1) + 0.4, gaussian_kernel(1.0)
    variance = 0.0
    for side, other, swap in ((a, b, False), (b, a, True)):
        n = len(side)
        kept = [torch.cat([side[:i], side[i + 1 :]]) for i in range(n)]
        left_out = torch.tensor([naive(other, s, kernel) if swap else naive(s, other, kernel) for s in kept])
        variance += (n - 1) / n * float((left_out - left_out.mean()).square().sum())
    found = squared_mmd_estimate(a, b, kernel)
    assert found.value == pytest.approx(naive(a, b, kernel), rel=1e-11)
    assert found.high - found.value == pytest.approx(2.7764451 * math.sqrt(variance), rel=1e-6)  # Student, 4 degrees
    assert found.value - found.low == pytest.approx(found.high - found.value, rel=1e-12)


def test_the_floor_tells_equal_from_different() -> None:
    sample, same, other = normal(200, 2, 0), normal(100, 2, 1), normal(100, 2, 2) + 0.6
    kernel = gaussian_kernel(median_distance(sample, sample))
    floor = two_sample_floor(lambda a, b: squared_mmd(a, b, kernel), sample, rng=0, splits=60)
    assert floor.low < 0 < floor.high
    assert squared_mmd(sample[:100], same, kernel) < floor.high < squared_mmd(sample[:100], other, kernel)


def test_the_median_distance_is_that_of_all_pairs() -> None:
    a, b = normal(15, 2, 0), normal(10, 2, 1)
    pooled = torch.cat([a, b])
    pairs = sorted(math.dist(pooled[i].tolist(), pooled[j].tolist()) for i in range(25) for j in range(i))
    assert median_distance(a, b) == pytest.approx(pairs[149], rel=1e-12)  # the lower of the two in the middle of 300
    many = normal(5000, 2, 2)  # |x - y|^2 / 4 is exponential, so the median is 2 sqrt(log 2)
    assert median_distance(many, many) == pytest.approx(2 * math.sqrt(math.log(2)), rel=0.03)


def test_bad_input_is_refused() -> None:
    kernel = gaussian_kernel(1.0)
    with pytest.raises(InvalidInput, match="at least 2 samples on each side, got 1 and 4"):
        squared_mmd(normal(1, 2, 0), normal(4, 2, 1), kernel)
    with pytest.raises(InvalidInput, match="at least 3 samples on each side, got 4 and 2"):
        squared_mmd_estimate(normal(4, 2, 0), normal(2, 2, 1), kernel)
    with pytest.raises(InvalidInput, match="shapes differ"):
        squared_mmd(normal(4, 2, 0), normal(4, 3, 1), kernel)
    with pytest.raises(InvalidInput, match="bandwidth must be positive, got 0"):
        gaussian_kernel(0)
    with pytest.raises(InvalidInput, match="degree must be at least 1, got 0"):
        polynomial_kernel(0)
    with pytest.raises(InvalidInput, match="points are equal; choose the bandwidth yourself"):
        median_distance(torch.zeros(5, 2), torch.zeros(5, 2))
