r"""Ornstein-Uhlenbeck processes that switch between two means; the class is the law of the switching.

    dY = theta (m_t - Y) dt + sigma dW,      m_t in {-1, 1}, a Markov chain that leaves its state at the rate q

Classes differ in ``q`` alone. Each chain starts in its stationary law, one half each, so that the classes agree in the mean (zero)
and in the law of a regime, and are told apart by how long regimes last:

    E[Y_t Y_{t+s}] = sigma^2 / (2 theta) e^{-theta s} + theta / (theta^2 - 4 q^2) (theta e^{-2 q s} - 2 q e^{-theta s})

The chain and the Ornstein-Uhlenbeck step given its regime are sampled without a discretisation error, except that a regime lasts a
whole number of sub-steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.datasets.series import Series

THETA, SIGMA, SPAN = 4.0, 1.0, 10.0
BURN_IN = 2.0  # eight relaxation times before the first observation


def ou_switching(
    n: int, rng: Stream | int, *, times: int = 50, rates: tuple[float, ...] = (0.2, 1.0, 4.0), substeps: int = 8
) -> Series:
    """Return `n` paths of one channel at equally spaced times in [0, 10]; labels cycle through the classes.

    Args:
        n: number of series.
        rng: seed or stream.
        times: number of times.
        rates: the switching rate ``q`` of each class, per unit of time.
        substeps: sub-steps between two times.

    Raises:
        InvalidInput: a size is too small or a rate negative.

    Examples:
        >>> series = ou_switching(6, rng=0)
        >>> series.values.shape, series.labels.tolist()
        (torch.Size([6, 50, 1]), [0, 1, 2, 0, 1, 2])
    """
    require(
        min(n, substeps) >= 1 and times >= 2, f"a set needs n and substeps >= 1, times >= 2, got {n, substeps, times}"
    )
    require(len(rates) >= 1 and min(rates) >= 0, f"switching rates must not be negative, got {rates}")
    stream, h = as_stream(rng, "ou switching"), SPAN / (times - 1) / substeps
    labels = torch.arange(n) % len(rates)
    before = math.ceil(BURN_IN / h)
    path = _path(_regimes(stream, torch.tensor(rates)[labels], h, before + (times - 1) * substeps), stream, h)
    values = path[:, before::substeps].to(torch.get_default_dtype())
    return Series(torch.linspace(0, SPAN, times), values[..., None], labels, tuple(f"q={q:g}" for q in rates))


def _regimes(stream: Stream, rate: Tensor, h: float, steps: int) -> Tensor:
    """Return the means (N, steps), each -1 or 1: a chain that changes sign with probability ``(1 - e^{-2qh}) / 2``."""
    chance = (-torch.expm1(-2 * rate.double() * h) / 2)[:, None]
    changes = stream.child("changes").uniform((len(rate), steps), dtype=torch.float64) < chance
    first = stream.child("first").rademacher((len(rate), 1), dtype=torch.float64)
    return first * (1 - 2 * (changes.cumsum(1) % 2)).double()


def _path(means: Tensor, stream: Stream, h: float) -> Tensor:
    """Return the path (N, steps + 1) by the exact step of length `h` in each regime."""
    noise = stream.child("noise").normal(tuple(means.shape), dtype=torch.float64)
    decay, spread = math.exp(-THETA * h), SIGMA * math.sqrt(-math.expm1(-2 * THETA * h) / (2 * THETA))
    path = [means[:, 0]]
    for mean, xi in zip(means.unbind(1), noise.unbind(1), strict=True):
        path.append(mean + decay * (path[-1] - mean) + spread * xi)
    return torch.stack(path, dim=1)
