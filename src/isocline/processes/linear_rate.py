r"""The noise rate that grows linearly with time, shared by the variance-preserving processes.

    beta(t) = beta_min + (beta_max - beta_min) t,      B(t) = int_0^t beta = beta_min t + (beta_max - beta_min) t^2 / 2.

`B` is a quadratic in `t`; its inverse is written so that nothing cancels for small `B` or ``beta_min = beta_max``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.gaussian import GaussianProcess, as_time, check_range


@dataclass(frozen=True)
class LinearRate(GaussianProcess):
    """Base of processes with ``alpha = exp(-B / 2)``; subclasses say what the noise is.

    Args:
        beta_min: rate at ``t = 0``.
        beta_max: rate at ``t = 1``.
        t_min: smallest time used by grids.
        t_max: time at which sampling starts.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        ordered = 0 <= self.beta_min <= self.beta_max and self.beta_max > 0
        require(ordered, f"rates need 0 <= beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    def beta(self, t: Tensor | float) -> Tensor:
        """Return the rate ``beta(t)``."""
        return self.beta_min + (self.beta_max - self.beta_min) * as_time(t)

    def integrated(self, t: Tensor | float) -> Tensor:
        """Return ``B(t)``, the integral of the rate from 0 to `t`."""
        t = as_time(t)
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def time_of_integrated(self, b: Tensor) -> Tensor:
        """Return the time at which the integral of the rate equals `b`."""
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * b))

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return ``exp(-B / 2)``."""
        return torch.exp(-0.5 * self.integrated(t))
