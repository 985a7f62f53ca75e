r"""Sub-VP (Song et al., arXiv 2011.13456, section 3.4): the variance stays below that of VP with the same rate.

    alpha = exp(-B / 2),   sigma = 1 - exp(-B) = 1 - alpha^2,   s = sigma / alpha = 2 sinh(B / 2);

note that ``sigma`` is not the square root of ``1 - alpha^2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline.processes.gaussian import as_time
from isocline.processes.linear_rate import LinearRate


@dataclass(frozen=True)
class SubVariancePreserving(LinearRate):
    """Sub-VP with a linear rate; made for likelihoods.

    Examples:
        >>> sub = SubVariancePreserving()
        >>> round(float(sub.sigma(0.5) + sub.alpha(0.5) ** 2), 12)
        1.0
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return ``1 - exp(-B)``."""
        return -torch.expm1(-self.integrated(t))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``-log(2 sinh(B / 2))``."""
        b = self.integrated(t)
        return -(0.5 * b + torch.log(-torch.expm1(-b)))

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return the time with ``B = 2 asinh(exp(-lam) / 2)``."""
        return self.time_of_integrated(2 * torch.asinh(0.5 * torch.exp(-as_time(lam))))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(-beta alpha / 2, beta alpha^2)``."""
        beta, alpha = self.beta(t), self.alpha(t)
        return -0.5 * beta * alpha, beta * alpha**2
