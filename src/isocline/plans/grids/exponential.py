"""Equal steps in the logarithm of process time: each step is a fixed share of the time left."""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.plans.grids.span import End, spread
from isocline.processes import GaussianProcess


def exponential(
    process: GaussianProcess, n: int, *, t_max: float | None = None, t_min: float | None = None, end: End = "t_min"
) -> Tensor:
    """Return ``n + 1`` times in geometric progression, the grid of the analyses that bound the KL divergence.

    For EDM, whose time is the noise level, this is the `log_snr` grid (Chen, Lee and Lu, arXiv 2211.01916).

    >>> from isocline.processes import EDM
    >>> [round(t, 9) for t in exponential(EDM(t_min=1.0, t_max=16.0), 2).tolist()]
    [16.0, 4.0, 1.0]
    """
    return spread(process, n, torch.log, torch.exp, t_max, t_min, end)
