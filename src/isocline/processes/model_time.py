"""The time a network is told: process time, a discrete index, the noise level or the log-SNR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline.processes.gaussian import GaussianProcess

ModelTime = Callable[[GaussianProcess, Tensor], Tensor]


@dataclass(frozen=True)
class Continuous:
    """Process time times `scale` (1000 for networks trained on ``1000 t``)."""

    scale: float = 1.0

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return ``scale * t``."""
        return t if self.scale == 1.0 else self.scale * t


@dataclass(frozen=True)
class DiscreteIndex:
    """Index ``n`` of a table of `steps` entries with ``t = (n + 1) / steps``; fractional indices are passed on."""

    steps: int = 1000

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return ``steps * t - 1``."""
        return self.steps * t - 1


@dataclass(frozen=True)
class NoiseLevel:
    """``s = sigma / alpha``, as EDM and k-diffusion networks expect."""

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return the noise level at `t`."""
        return process.noise_level(t)


@dataclass(frozen=True)
class LogSNR:
    """``2 lam = log(alpha^2 / sigma^2)``."""

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return the log-SNR at `t`."""
        return 2 * process.half_log_snr(t)


@dataclass(frozen=True)
class LogTime:
    """``log t``: keeps times near 0 apart, where data on a submanifold need it (Lu, Wang and Bal, arXiv 2301.07882)."""

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return the logarithm of `t`."""
        return torch.log(t)
