"""Autocorrelation: autoregressive chains of known time, a naive second implementation, chains that stay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.metrics import autocorrelation_time, effective_samples


def autoregressive(phi: float, chains: int, n: int, seed: int) -> Tensor:
    """Return stationary ``x_{t+1} = phi x_t + sqrt(1 - phi^2) z``, whose time is ``(1 + phi) / (1 - phi)``."""
    z = Stream(seed, "ar").normal((chains, n), dtype=torch.float64)
    x = [z[:, 0]]
    for t in range(1, n):
        x.append(phi * x[-1] + math.sqrt(1 - phi**2) * z[:, t])
    return torch.stack(x, 1)


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_autoregressive_chains_have_their_known_time(phi: float, seed: int) -> None:
    found = float(autocorrelation_time(autoregressive(phi, 100, 1000, seed)))
    assert found == pytest.approx((1 + phi) / (1 - phi), rel=0.1)


def test_the_definition_pair_by_pair() -> None:
    x = autoregressive(0.7, 3, 41, 0)
    centred = (x - x.mean()).tolist()
    n = 41

    def covariance(k: int) -> float:
        return sum(row[t] * row[t + k] for row in centred for t in range(n - k)) / (3 * n)

    total, least = 0.0, math.inf
    for j in range(n // 2):
        least = min(least, (covariance(2 * j) + covariance(2 * j + 1)) / covariance(0))
        if least <= 0:
            break
        total += least
    assert float(autocorrelation_time(x)) == pytest.approx(2 * total - 1, rel=1e-10)


def test_the_variance_of_the_mean_is_that_of_so_many_independent_samples() -> None:
    """What the number is for: over 2000 chains the mean of 200 steps varies as ``tau / n`` says."""
    x = autoregressive(0.8, 2000, 200, 3)
    assert float(x.mean(1).var() * effective_samples(x) / 2000) == pytest.approx(float(x.var()), rel=0.12)


def test_chains_that_stay_are_worth_one_sample_each() -> None:
    """About its own mean each of these chains is white noise; about the common one it never moves."""
    places = torch.tensor([-5.0, 5.0]).repeat(20)[:, None]
    x = places + 0.1 * Stream(0).normal((40, 50))
    assert float(autocorrelation_time(x)) > 45
    assert float(effective_samples(x)) < 45
    alone = [float(autocorrelation_time(row[None])) for row in x]
    assert sum(alone) / len(alone) < 2


def test_each_quantity_has_its_own_time() -> None:
    slow, fast = autoregressive(0.9, 20, 300, 0), autoregressive(0.1, 20, 300, 1)
    both = torch.stack([slow, fast], -1)
    assert torch.equal(autocorrelation_time(both), torch.stack([autocorrelation_time(s) for s in (slow, fast)]))
    assert autocorrelation_time(both.unsqueeze(-1)).shape == (2, 1)


def test_bad_series_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\(C, n >= 2, \*\), got shape \(5,\)"):
        autocorrelation_time(torch.zeros(5))
    with pytest.raises(InvalidInput, match="same value in all chains"):
        autocorrelation_time(torch.ones(2, 5))
