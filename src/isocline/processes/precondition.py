r"""Preconditioning: what stands between a raw network ``F`` and the output a denoiser gives.

A preconditioning scales the input, adds a skip connection and scales the output,

    m(x, t) = c_skip x + c_out F(c_in x, c_noise) ,

and says nothing about what ``m`` is: that is the parameterisation. EDM's (Karras et al., arXiv 2206.00364, table 1) gives data
predictions. With the unscaled state ``y = x / alpha`` at noise level ``s`` and data of standard deviation ``sd`` it reads

    D(x, t) = c_skip y + c_out F(c_in y, log(s) / 4),
    c_skip = sd^2 / (s^2 + sd^2),  c_out = s sd / sqrt(s^2 + sd^2),  c_in = 1 / sqrt(s^2 + sd^2),

so input and target of ``F`` have unit variance at every noise level. In terms of ``x`` the scalings are
``c_in y = x / q``, ``c_skip y = alpha sd^2 x / q^2`` and ``c_out = sigma sd / q`` with ``q^2 = sigma^2 + (alpha sd)^2``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import Mismatch, require
from isocline.processes.denoiser import Denoiser
from isocline.processes.gaussian import GaussianProcess, match
from isocline.processes.model_time import Continuous, ModelTime
from isocline.processes.parameterisation import Data, Parameterisation


class Scalings(NamedTuple):
    """``c_in``, ``c_skip``, ``c_out`` and the time ``c_noise`` that the network is told, each of the shape of ``t``."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor


class Preconditioning(ABC):
    """Base of all preconditionings. Subclasses are frozen dataclasses of plain numbers."""

    @abstractmethod
    def scalings(self, process: GaussianProcess, t: Tensor) -> Scalings:
        """Return the scalings at time `t` (scalar or (B,))."""


@dataclass(frozen=True)
class Plain(Preconditioning):
    """No preconditioning: the network sees ``x`` and a time, and its output is the prediction.

    Args:
        model_time: the time the network is told; process time by default.
    """

    model_time: ModelTime = Continuous()  # noqa: RUF009 - frozen

    def scalings(self, process: GaussianProcess, t: Tensor) -> Scalings:
        """Return ``(1, 0, 1, time)``."""
        one = torch.ones_like(t)
        return Scalings(one, torch.zeros_like(t), one, self.model_time(process, t))


@dataclass(frozen=True)
class EDMPreconditioning(Preconditioning):
    """EDM's scalings, for data predictions (Karras et al., arXiv 2206.00364).

    Args:
        sigma_data: standard deviation of the data.
    """

    sigma_data: float

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data must be positive, got {self.sigma_data}")

    def scalings(self, process: GaussianProcess, t: Tensor) -> Scalings:
        """Return the scalings in terms of ``x``, finite also where the process has no signal."""
        alpha, sigma, data = process.alpha(t), process.sigma(t), self.sigma_data
        spread = torch.sqrt(sigma**2 + (alpha * data) ** 2)
        return Scalings(1 / spread, alpha * data**2 / spread**2, sigma * data / spread, -process.half_log_snr(t) / 4)


class Scaled(Denoiser):
    """A raw network with a preconditioning around it.

    Args:
        network: called as ``F(x, c_noise)`` or ``F(x, c_noise, cond)`` with ``c_noise`` (B,).
        process: any Gaussian process.
        parameterisation: what the scaled output is.
        preconditioning: the scalings.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        process: GaussianProcess,
        parameterisation: Parameterisation,
        preconditioning: Preconditioning,
    ) -> None:
        super().__init__(process, parameterisation)
        self.network, self.preconditioning = network, preconditioning

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the prediction (B, *)."""
        c_in, c_skip, c_out, c_noise = self.preconditioning.scalings(self.process, t)
        told = c_noise.to(device=x.device, dtype=x.dtype).expand(x.shape[0])
        scaled = match(c_in, x) * x
        output = self.network(scaled, told) if cond is None else self.network(scaled, told, cond)
        if output.shape != x.shape:
            raise Mismatch(
                f"the network returned shape {tuple(output.shape)} for states of shape {tuple(x.shape)}; "
                "use a network whose output has the shape of its input"
            )
        return match(c_skip, x) * x + match(c_out, x) * output


class Preconditioned(Scaled):
    """A raw network ``F`` with EDM's scalings around it; its output is a data prediction.

    Args:
        network: called as ``F(x, c_noise)`` or ``F(x, c_noise, cond)``.
        process: any Gaussian process.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, network: Callable[..., Tensor], process: GaussianProcess, sigma_data: float) -> None:
        super().__init__(network, process, Data(), EDMPreconditioning(sigma_data))
        self.sigma_data = sigma_data
