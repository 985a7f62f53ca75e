"""Equal steps in process time."""

from __future__ import annotations

from torch import Tensor

from isocline.plans.grids.span import End, spread
from isocline.processes import GaussianProcess


def uniform(
    process: GaussianProcess, n: int, *, t_max: float | None = None, t_min: float | None = None, end: End = "t_min"
) -> Tensor:
    """Return ``n + 1`` times with equal steps in ``t``; the default of most flow models.

    >>> from isocline.processes import EDM
    >>> uniform(EDM(t_min=0.0, t_max=1.0), 2).tolist()
    [1.0, 0.5, 0.0]
    """
    return spread(process, n, lambda t: t, lambda u: u, t_max, t_min, end)
