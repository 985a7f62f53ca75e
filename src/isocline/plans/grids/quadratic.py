"""Equal steps in the square root of process time (Song et al., DDIM, arXiv 2010.02502)."""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.plans.grids.span import End, spread
from isocline.processes import GaussianProcess


def quadratic(
    process: GaussianProcess, n: int, *, t_max: float | None = None, t_min: float | None = None, end: End = "t_min"
) -> Tensor:
    """Return ``n + 1`` times with equal steps in ``sqrt(t)``.

    >>> from isocline.processes import EDM
    >>> quadratic(EDM(t_min=0.0, t_max=4.0), 2).tolist()
    [4.0, 1.0, 0.0]
    """
    return spread(process, n, torch.sqrt, torch.square, t_max, t_min, end)
