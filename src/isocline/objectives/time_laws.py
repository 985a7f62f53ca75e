r"""Time laws: at which times a loss is sampled, ``(process, batch, rng, step, first) -> t`` (B,) in float64.

Each is the image of one uniform number ``u`` per sample, so a law is its quantile function, and the draws of two laws are
comparable sample by sample.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.processes import GaussianProcess


class TimeLaw(ABC):
    """Base of the time laws. Subclasses are frozen dataclasses of plain numbers."""

    @abstractmethod
    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return the time below which a share `u` (any shape) of the draws lies; times stay in the process's range."""

    def __call__(self, process: GaussianProcess, batch: int, rng: Stream, step: int, first: int = 0) -> Tensor:
        """Return the times (B,) of samples `first` and following, in float64."""
        return self.quantile(process, rng.uniform((batch,), step=step, first=first, dtype=torch.float64))


@dataclass(frozen=True)
class UniformTime(TimeLaw):
    """Uniform in process time (Ho et al., arXiv 2006.11239)."""

    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return ``t_min + u (t_max - t_min)``."""
        return process.t_min + u * (process.t_max - process.t_min)


@dataclass(frozen=True)
class LogUniformTime(TimeLaw):
    """Uniform in ``log t``: as many draws in each octave of time, down to ``t_min`` (Lu, Wang and Bal, arXiv 2301.07882)."""

    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return ``t_min (t_max / t_min)^u``."""
        require(process.t_min > 0, f"a law uniform in log t needs t_min > 0, but {process.describe()} has t_min = 0")
        return process.t_min * (process.t_max / process.t_min) ** u


@dataclass(frozen=True)
class UniformLogSNR(TimeLaw):
    """Uniform in the half log-SNR ``lam`` between the process's ends."""

    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return the time whose ``lam`` is a share ``1 - u`` of the way."""
        ends = process.half_log_snr(torch.tensor([process.t_min, process.t_max], dtype=torch.float64))
        require(
            bool(torch.isfinite(ends).all()),
            f"a law uniform in log-SNR needs finite noise levels at both ends of {process.describe()}",
        )
        return process.time_of(ends[0] + u * (ends[1] - ends[0]))


@dataclass(frozen=True)
class LogNormal(TimeLaw):
    """Noise level ``s`` with ``log s ~ N(mean, std^2)``, clipped to the process's range (EDM, arXiv 2206.00364)."""

    mean: float = -1.2
    std: float = 1.2

    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return the time of noise level ``exp(mean + std z)``, ``z`` the normal quantile of `u`."""
        level = torch.exp(self.mean + self.std * torch.special.ndtri(u))
        return process.time_of_noise_level(level).clamp(process.t_min, process.t_max)


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Share of the time range with ``logit ~ N(mean, std^2)``: most draws in the middle (Esser et al., arXiv 2403.03206)."""

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return ``t_min + sigmoid(mean + std z) (t_max - t_min)``, ``z`` the normal quantile of `u`."""
        share = torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))
        return process.t_min + share * (process.t_max - process.t_min)


@dataclass(frozen=True)
class UShaped(TimeLaw):
    """Density proportional to ``exp(a r) + exp(-a (r - 1))`` in the share ``r`` of the time range (Lee et al., arXiv 2405.20320).

    Both ends are drawn often, the middle rarely. The distribution function
    ``(exp(a r) - exp(a (1 - r)) + exp(a) - 1) / (2 (exp(a) - 1))`` has a closed inverse: with ``r = 1/2 + q / a`` it is
    ``1/2 + sinh(q) / (2 sinh(a / 2))``.

    Args:
        a: steepness; 4 in the paper.
    """

    a: float = 4.0

    def __post_init__(self) -> None:
        require(self.a > 0, f"a U-shaped law needs a > 0, got {self.a}")

    def quantile(self, process: GaussianProcess, u: Tensor) -> Tensor:
        """Return the time at share ``1/2 + asinh((2 u - 1) sinh(a / 2)) / a`` of the range."""
        share = 0.5 + torch.asinh((2 * u - 1) * math.sinh(self.a / 2)) / self.a
        return process.t_min + share * (process.t_max - process.t_min)
