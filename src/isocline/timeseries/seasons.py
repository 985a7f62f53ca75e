r"""The length of the season of an irregular series, from the periodogram of Lomb and Scargle (Scargle, ApJ 263, 835, 1982)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 4096  # frequencies that are tried


def season(times: NDArray[np.float64], values: NDArray[np.float64], *, strength: float = 0.4) -> float | None:
    """Return the period that explains most of what a quadratic trend leaves, or None where none explains enough.

    Args:
        times: (T,) increasing.
        values: (T,), NaN where missing.
        strength: smallest share of the variance that counts as a season.

    Examples:
        >>> t = np.sort(np.random.default_rng(0).uniform(0, 10, 200))
        >>> round(season(t, t + np.sin(2 * np.pi * t / 0.8)), 2)
        0.8
        >>> season(t, np.random.default_rng(1).normal(size=200)) is None
        True
    """
    from scipy.signal import lombscargle  # slow to import

    seen = ~np.isnan(values)
    t, x = times[seen], values[seen]
    if len(t) < 16:
        return None
    span = t[-1] - t[0]
    unit = (t - t[0]) / span
    rest = x - np.polyval(np.polyfit(unit, x, 2), unit)
    if not rest.std() > 1e-9 * max(1.0, np.abs(x).max()):
        return None
    count = int(min(MOST, len(t) * 2))
    cycles = np.linspace(2.0, len(t) / 2.5, count)  # in the whole span: at least two, and at least 2.5 points in each
    power = lombscargle(unit, rest, 2 * np.pi * cycles, normalize=True)
    best = int(power.argmax())
    if power[best] < strength:
        return None
    near = np.linspace(cycles[max(best - 1, 0)], cycles[min(best + 1, count - 1)], 41)
    fine = lombscargle(unit, rest, 2 * np.pi * near, normalize=True)
    return float(span / near[int(fine.argmax())])
