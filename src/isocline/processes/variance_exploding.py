r"""Variance exploding, VE: ``alpha = 1``, ``sigma = sigma_min (sigma_max / sigma_min)^t`` (Song et al., 2011.13456)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.gaussian import GaussianProcess, as_time, check_range


@dataclass(frozen=True)
class VarianceExploding(GaussianProcess):
    """Noise that grows geometrically, so ``lam`` is linear in time.

    Args:
        sigma_min: noise level at ``t = 0``.
        sigma_max: noise level at ``t = 1``; about the largest distance between two data.
        t_min: smallest time used by grids.
        t_max: time at which sampling starts.

    Examples:
        >>> round(float(VarianceExploding(0.01, 100).sigma(0.5)), 12)
        1.0
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        ordered = 0 < self.sigma_min < self.sigma_max
        require(ordered, f"VE needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def _growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return 1."""
        return torch.ones_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return ``sigma_min (sigma_max / sigma_min)^t``."""
        return self.sigma_min * torch.exp(self._growth * as_time(t))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``-log sigma``, which is linear in `t`."""
        return -math.log(self.sigma_min) - self._growth * as_time(t)

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return ``-(lam + log sigma_min) / log(sigma_max / sigma_min)``."""
        return -(as_time(lam) + math.log(self.sigma_min)) / self._growth

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(0, sigma log(sigma_max / sigma_min))``."""
        sigma = self.sigma(t)
        return torch.zeros_like(sigma), self._growth * sigma
