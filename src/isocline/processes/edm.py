"""EDM: noise of standard deviation ``t`` on unscaled data, ``x_t = x_0 + t eps`` (Karras et al., arXiv 2206.00364)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline.processes.gaussian import GaussianProcess, as_time, check_range


@dataclass(frozen=True)
class EDM(GaussianProcess):
    """``alpha = 1``, ``sigma = t``; time is the noise level itself.

    Args:
        t_min: smallest noise level used by grids.
        t_max: largest noise level; large against the data's standard deviation.

    Examples:
        >>> float(EDM().sigma(3.0))
        3.0
    """

    t_min: float = 0.002
    t_max: float = 80.0

    def __post_init__(self) -> None:
        check_range(self.t_min, self.t_max)

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return 1."""
        return torch.ones_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return `t`."""
        return as_time(t)

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``-log t``."""
        return -torch.log(as_time(t))

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return ``exp(-lam)``."""
        return torch.exp(-as_time(lam))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return (0, 1)."""
        t = as_time(t)
        return torch.zeros_like(t), torch.ones_like(t)
