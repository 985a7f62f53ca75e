r"""Variance preserving, VP (Song et al., arXiv 2011.13456; the continuous limit of Ho et al., arXiv 2006.11239).

    alpha = exp(-B / 2),   sigma^2 = 1 - exp(-B),   lam = -log(expm1(B)) / 2,   dx = -beta x / 2 dt + sqrt(beta) dW,

with ``B`` the integral of the rate. Data of unit variance keep it at all times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline.processes.gaussian import as_time
from isocline.processes.linear_rate import LinearRate


@dataclass(frozen=True)
class VariancePreserving(LinearRate):
    """VP with a linear rate; ``VariancePreserving(1, 1, t_max=5)`` is the plain Ornstein-Uhlenbeck process.

    Examples:
        >>> vp = VariancePreserving()
        >>> round(float(vp.alpha(0.5) ** 2 + vp.sigma(0.5) ** 2), 12)
        1.0
        >>> round(float(vp.time_of(vp.half_log_snr(0.25))), 12)
        0.25
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return ``sqrt(1 - exp(-B))``."""
        return torch.sqrt(-torch.expm1(-self.integrated(t)))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``-log(expm1(B)) / 2``."""
        b = self.integrated(t)
        return -0.5 * (b + torch.log(-torch.expm1(-b)))

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return the time with ``B = log(1 + exp(-2 lam))``."""
        lam = as_time(lam)
        return self.time_of_integrated(torch.logaddexp(torch.zeros_like(lam), -2 * lam))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(-beta alpha / 2, beta alpha^2 / (2 sigma))``."""
        half, alpha = 0.5 * self.beta(t), self.alpha(t)
        return -half * alpha, half * alpha**2 / self.sigma(t)
