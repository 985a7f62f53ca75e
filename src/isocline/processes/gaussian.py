r"""Gaussian processes: how data become noise.

A process turns a datum ``x_0`` into ``x_t = alpha(t) x_0 + sigma(t) eps`` with ``eps ~ N(0, I)``. Time runs from
``t = 0`` (data) to ``t = T`` (noise). Two derived scalars matter everywhere:

    lam(t) = log(alpha / sigma)      half log-SNR, strictly decreasing in t
    s(t)   = sigma / alpha = e^-lam  noise level of the unscaled state y = x / alpha

Every linear Gaussian process is the same curve in ``(y, s)``; only the map ``t -> s`` and the scale ``alpha`` differ.
The forward SDE is ``dx = f x dt + g dW`` with ``f = alpha'/alpha`` and ``g^2 = 2 sigma (sigma' - f sigma)``, and the
probability-flow ODE is ``dy/ds = (y - D) / s`` where ``D = E[x_0 | x_t]`` (Song et al., arXiv 2011.13456).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream


def as_time(t: Tensor | float) -> Tensor:
    """Return a time as a tensor; a Python number becomes float64."""
    return t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)


def match(value: Tensor, x: Tensor) -> Tensor:
    """Return a scalar or (B,) tensor in the dtype of `x` (B, *), shaped so that it multiplies `x`."""
    value = value.to(dtype=x.dtype, device=x.device)
    return value if value.ndim == 0 else value.reshape(-1, *([1] * (x.ndim - 1)))


class GaussianProcess(ABC):
    """Base of all processes ``x_t = alpha x_0 + sigma eps``. Subclasses are frozen dataclasses of plain numbers.

    Attributes:
        t_min: smallest time at which sampling may sensibly end.
        t_max: the time ``T`` at which sampling starts.
        has_sde: whether noise can be added step by step with Gaussian increments, as stochastic plans do.
    """

    t_min: float
    t_max: float
    has_sde: ClassVar[bool] = True

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """Return the scale of the datum at time `t` (any shape)."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """Return the standard deviation of the noise at time `t`."""

    @abstractmethod
    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``lam = log(alpha / sigma)`` without cancellation."""

    @abstractmethod
    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return the time at which the half log-SNR equals `lam`; inverse of `half_log_snr`."""

    @abstractmethod
    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the time derivatives ``(alpha', sigma')``."""

    def noise_level(self, t: Tensor | float) -> Tensor:
        """Return ``s = sigma / alpha``, the noise level of the unscaled state."""
        return torch.exp(-self.half_log_snr(t))

    def time_of_noise_level(self, s: Tensor | float) -> Tensor:
        """Return the time at which ``sigma / alpha`` equals `s`."""
        return self.time_of(-torch.log(as_time(s)))

    def drift(self, t: Tensor | float) -> Tensor:
        """Return ``f(t) = alpha' / alpha``, so that the forward SDE is ``dx = f x dt + g dW``."""
        return self.rates(t)[0] / self.alpha(t)

    def diffusion2(self, t: Tensor | float) -> Tensor:
        """Return ``g(t)^2`` of the forward SDE."""
        alpha_rate, sigma_rate = self.rates(t)
        return 2 * self.sigma(t) * (sigma_rate - self.sigma(t) * alpha_rate / self.alpha(t))

    def draw_noise(self, shape: tuple[int, ...], rng: Stream | int, *, step: int = 0, **options: Any) -> Tensor:
        """Return ``eps`` of `shape` (B, *), independent of how the batch is split."""
        return as_stream(rng).normal(shape, step=step, **options)

    def terminal(self, shape: tuple[int, ...], rng: Stream | int, **options: Any) -> Tensor:
        """Return start states of `shape` (B, *) at ``t_max``: ``sigma(T) eps``."""
        noise = self.draw_noise(shape, rng, **options)
        return noise * match(self.sigma(self.t_max), noise)

    def perturb(
        self, x0: Tensor, t: Tensor | float, rng: Stream | int, *, step: int = 0, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return ``(x_t, eps)`` for data `x0` (B, *) at times `t` (scalar or (B,))."""
        t = as_time(t)
        noise = self.draw_noise(tuple(x0.shape), rng, step=step, first=first, dtype=x0.dtype, device=x0.device)
        return match(self.alpha(t), x0) * x0 + match(self.sigma(t), x0) * noise, noise

    def describe(self) -> str:
        """Return one line that names the process and its parameters."""
        shown = {k: v for k, v in asdict(self).items() if not isinstance(v, tuple)}  # type: ignore[call-overload]
        return f"{type(self).__name__}({', '.join(f'{k}={v:g}' for k, v in shown.items())})"


def check_range(t_min: float, t_max: float) -> None:
    """Refuse an empty or negative time range."""
    require(0 <= t_min < t_max, f"a process needs 0 <= t_min < t_max, got t_min={t_min}, t_max={t_max}")
