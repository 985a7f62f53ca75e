"""Numbers with their uncertainty and their price: `Estimate`, `Cost`, `Budget`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream


@dataclass(frozen=True)
class Estimate:
    """A value with a confidence interval.

    Args:
        value: the point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        level: coverage of the interval.
        n: how many independent samples it rests on.

    Examples:
        >>> print(Estimate(0.5, 0.4, 0.6, n=100))
        0.5 [0.4, 0.6]
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    n: int = 0

    def __post_init__(self) -> None:
        require(self.low <= self.value <= self.high, f"an estimate needs low <= value <= high, got {self}")

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Cost:
    """What a result cost: network calls per sample, vector-Jacobian products per sample, wall seconds."""

    calls: float = 0
    vjps: float = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_dict(self) -> dict[str, float]:
        """Return the cost as plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """What a result may cost; at least one limit is named.

    Args:
        calls: network calls for each sample.
        seconds: wall time for finding the result.
        points: evaluation points.
        parameters: network parameters.
        evaluations: network calls, on a batch each, for finding the result.

    Examples:
        >>> Budget(calls=6).calls
        6
        >>> Budget(calls=0)
        Traceback (most recent call last):
        isocline._core.errors.InvalidInput: the budget's calls must be at least 1, got 0
    """

    calls: int | None = None
    seconds: float | None = None
    points: int | None = None
    parameters: int | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        limits = {f.name: getattr(self, f.name) for f in fields(self)}
        require(any(v is not None for v in limits.values()), "a budget names at least one of calls, seconds, points")
        for name, limit in limits.items():
            if limit is not None:
                least = 0 if name == "seconds" else 1
                sign = "more than 0" if name == "seconds" else "at least 1"
                require(limit > 0 and limit >= least, f"the budget's {name} must be {sign}, got {limit}")
                require(
                    name == "seconds" or isinstance(limit, int),
                    f"the budget's {name} must be a whole number, got {limit}",
                )


def bootstrap(
    statistic: Callable[..., Tensor],
    *samples: Tensor,
    rng: Stream | int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Estimate a statistic with its percentile bootstrap interval; several samples are resampled in pairs.

    Args:
        statistic: maps tensors whose last axis is the sample axis to a tensor without that axis.
        samples: 1-D tensors of equal length; paired, so that a ratio keeps the pairing.
        rng: stream or seed.
        resamples: number of resamples.
        level: coverage.

    Examples:
        >>> e = bootstrap(lambda x: x.median(-1).values, torch.arange(101.0), rng=0)
        >>> e.value, e.low < 50 < e.high
        (50.0, True)
    """
    n = samples[0].shape[0]
    require(n > 1, f"an interval needs at least two samples, got {n}")
    require(all(s.shape == (n,) for s in samples), "bootstrap samples must be 1-D and of equal length")
    index = as_stream(rng, "bootstrap").integers(n, (resamples, n))
    value = float(statistic(*samples))
    draws = statistic(*(s[index] for s in samples)).double()
    tail = (1 - level) / 2
    low, high = torch.quantile(draws, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(value, min(low, value), max(high, value), level, n)


def bootstrap_median(sample: Tensor, rng: Stream | int) -> Estimate:
    """Return the median of a 1-D sample with its bootstrap interval."""
    return bootstrap(lambda x: x.median(-1).values, sample, rng=rng)


def bootstrap_median_ratio(numerator: Tensor, denominator: Tensor, rng: Stream | int) -> Estimate:
    """Return the ratio of the medians of two paired 1-D samples with its bootstrap interval."""
    return bootstrap(lambda a, b: a.median(-1).values / b.median(-1).values, numerator, denominator, rng=rng)
