r"""The share of successes in independent trials, with Wilson's interval.

For ``k`` successes in ``n`` trials the interval holds every ``p`` that a score test does not reject,
``|k/n - p| <= z sqrt(p (1 - p) / n)``; solved for ``p``:

    (k + z^2/2) / (n + z^2)  +-  z / (n + z^2) * sqrt(k (n - k) / n + z^2/4)

(E. B. Wilson, J. Amer. Statist. Assoc. 22, 1927). It stays inside [0, 1] and has width at ``k = 0`` and ``k = n`` too.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from isocline._core.errors import require
from isocline._core.estimate import Estimate


def proportion(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """Return ``successes / trials`` with its Wilson interval.

    Raises:
        InvalidInput: there is no trial, or the successes are not between 0 and the trials.

    Examples:
        >>> e = proportion(9, 10)
        >>> round(e.low, 4), round(e.high, 4)
        (0.5958, 0.9821)
    """
    require(0 <= successes <= trials and trials > 0, f"got {successes} successes in {trials} trials")
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    value, centre = successes / trials, (successes + z2 / 2) / (trials + z2)
    half = math.sqrt(z2) / (trials + z2) * math.sqrt(successes * (trials - successes) / trials + z2 / 4)
    return Estimate(value, min(value, centre - half), max(value, centre + half), level, trials)
