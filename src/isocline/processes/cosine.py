r"""Variance preserving with the cosine schedule (Nichol and Dhariwal, arXiv 2102.09672).

    alpha = cos(a) / cos(a0),   a = (pi / 2) (t + s) / (1 + s),   a0 = (pi / 2) s / (1 + s),
    sigma^2 = 1 - alpha^2 = sin(a - a0) sin(a + a0) / cos(a0)^2.

The product of sines keeps all digits near ``t = 0``, ``cos(a) = sin(pi / 2 - a)`` near ``t = 1``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.gaussian import GaussianProcess, as_time, check_range


@dataclass(frozen=True)
class CosineVariancePreserving(GaussianProcess):
    """VP whose signal falls like a cosine.

    Args:
        s: offset that keeps the noise from vanishing too fast near ``t = 0``.
        t_min: smallest time used by grids.
        t_max: time at which sampling starts; ``alpha`` is 0 at ``t = 1``.

    Examples:
        >>> round(float(CosineVariancePreserving(s=0.0).alpha(0.5)), 6)
        0.707107
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    def __post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        require(self.t_max <= 1, f"the cosine schedule ends at t = 1, got t_max={self.t_max}")
        require(0 <= self.s < math.inf, f"the offset s must be finite and not negative, got {self.s}")

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1 + self.s)

    @property
    def _a0(self) -> float:
        return self._rate * self.s

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return ``cos(a) / cos(a0)``."""
        return torch.sin(self._rate * (1 - as_time(t))) / math.cos(self._a0)

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return ``sqrt(1 - alpha^2)``."""
        return torch.sqrt(self._sines(t)) / math.cos(self._a0)

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``log(alpha / sigma)``."""
        return torch.log(torch.sin(self._rate * (1 - as_time(t)))) - 0.5 * torch.log(self._sines(t))

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return the time at which the half log-SNR is `lam`, from the sine and cosine of ``a - a0``."""
        lam = as_time(lam)
        sin0, cos0 = math.sin(self._a0), math.cos(self._a0)
        cos_a = cos0 * torch.exp(-0.5 * torch.logaddexp(torch.zeros_like(lam), -2 * lam))
        noise = cos0**2 * torch.exp(-torch.logaddexp(torch.zeros_like(lam), 2 * lam))  # sin(a)^2 - sin(a0)^2
        sin_a = torch.sqrt(sin0**2 + noise)
        angle = torch.atan2(noise / (sin_a * cos0 + cos_a * sin0), cos_a * cos0 + sin_a * sin0)
        return angle / self._rate

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(-sin(a) a' / cos(a0), -alpha alpha' / sigma)``."""
        alpha_rate = -self._rate * torch.cos(self._rate * (1 - as_time(t))) / math.cos(self._a0)
        return alpha_rate, -self.alpha(t) * alpha_rate / self.sigma(t)

    def _sines(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return torch.sin(self._rate * t) * torch.sin(self._rate * t + 2 * self._a0)
