r"""How many independent samples correlated chains are worth.

The mean of ``n`` states of a stationary chain has the variance of ``n / tau`` independent ones, with the integrated
autocorrelation time

    tau = 1 + 2 sum_{k >= 1} rho_k ,      rho_k the autocorrelation at lag ``k``.

The sum of all estimated ``rho_k`` is noise; Geyer (Statist. Sci. 7, 1992) adds pairs ``rho_{2j} + rho_{2j+1}``, which are
positive and decreasing for a reversible chain, made decreasing by their running minimum, up to the first that is not positive.

Several chains share one mean and one variance. A chain that stays where it started then shows as such: about its own mean it
would look like white noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require


def autocorrelation_time(series: Tensor) -> Tensor:
    """Return ``tau`` (*), in steps of the chain, of each quantity; 1 for independent values, about ``n`` for chains that stay.

    An estimate that is not small against ``n`` means: at least this long. Alternating chains have less than 1.

    Args:
        series: (C, n, *) values of `C` chains over `n` steps; converted to float64.

    Raises:
        InvalidInput: fewer than two steps, or a quantity that never changes.

    Examples:
        >>> from isocline._core.stream import Stream
        >>> white = Stream(0).normal((50, 400))
        >>> stuck = Stream(0).normal((50, 1)).expand(50, 400)
        >>> [round(float(autocorrelation_time(x)), 1) for x in (white, stuck)]
        [1.0, 400.0]
    """
    require(series.ndim >= 2 and series.shape[1] >= 2, f"chains are (C, n >= 2, *), got shape {tuple(series.shape)}")
    chains, n = series.shape[:2]
    flat = series.reshape(chains, n, -1).double()
    centred = flat - flat.mean((0, 1))
    power = torch.fft.rfft(centred, 2 * n, dim=1).abs().square().mean(0)
    covariance = torch.fft.irfft(power, 2 * n, dim=0)[:n] / n
    require(bool((covariance[0] > 0).all()), "a quantity has the same value in all chains at all steps")
    pairs = (covariance[: n - n % 2] / covariance[0]).reshape(n // 2, 2, -1).sum(1)
    pairs = torch.cummin(pairs, 0).values.clamp_min(0)
    return (2 * pairs.sum(0) - 1).clamp_min(1 / n).reshape(series.shape[2:])


def effective_samples(series: Tensor) -> Tensor:
    """Return ``C n / tau`` (*): how many independent values each quantity's mean is worth.

    Args:
        series: (C, n, *) values of `C` chains over `n` steps.

    Examples:
        >>> from isocline._core.stream import Stream
        >>> 900 < float(effective_samples(Stream(0).normal((10, 100)))) < 1200
        True
    """
    return series.shape[0] * series.shape[1] / autocorrelation_time(series)
