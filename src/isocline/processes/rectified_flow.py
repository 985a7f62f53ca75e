r"""Rectified flow, the straight line between datum and noise (Liu et al., arXiv 2209.03003; Lipman et al., 2210.02747).

    x_t = (1 - t) x_0 + t eps,   lam = log((1 - t) / t),   velocity = eps - x_0.

At ``t = 1`` nothing of the datum is left: ``lam = -inf`` and ``s = inf``. Data predictions and velocities stay finite
there; a noise prediction cannot be turned into a data prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.gaussian import GaussianProcess, as_time, check_range


@dataclass(frozen=True)
class RectifiedFlow(GaussianProcess):
    """``alpha = 1 - t``, ``sigma = t``; called flow matching with the linear or optimal-transport path elsewhere.

    Args:
        t_min: smallest time used by grids.
        t_max: time at which sampling starts, at most 1.

    Examples:
        >>> float(RectifiedFlow().noise_level(0.5)), float(RectifiedFlow().noise_level(1.0))
        (1.0, inf)
    """

    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        require(self.t_max <= 1, f"a rectified flow ends at t = 1, got t_max={self.t_max}")

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return ``1 - t``."""
        return 1 - as_time(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return `t`."""
        return as_time(t)

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``log((1 - t) / t)``."""
        t = as_time(t)
        return torch.log1p(-t) - torch.log(t)

    def noise_level(self, t: Tensor | float) -> Tensor:
        """Return ``t / (1 - t)``."""
        t = as_time(t)
        return t / (1 - t)

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return ``1 / (1 + exp(lam))``."""
        return torch.sigmoid(-as_time(lam))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return (-1, 1)."""
        one = torch.ones_like(as_time(t))
        return -one, one
