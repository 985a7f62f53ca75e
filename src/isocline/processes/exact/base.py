r"""Exact denoisers: data laws whose posterior mean ``D = E[x_0 | x_t]`` is known.

They depend on the process only through ``alpha`` and ``sigma``. Their Jacobian is closed form too,
``dD/dx = (alpha / sigma^2) Cov(x_0 | x_t)``, which is symmetric, so products with it need no backward pass.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import Mismatch, require
from isocline._core.stream import Stream
from isocline.processes.denoiser import Denoiser, Prediction
from isocline.processes.gaussian import GaussianProcess, as_time, match
from isocline.processes.parameterisation import Data


class ExactDenoiser(Denoiser):
    """Base of exact denoisers. Subclasses work on flat states (B, d), with `alpha` and `sigma` scalar or (B, 1).

    Results have the dtype of the states; pass float64 states for exact work.

    Args:
        process: any Gaussian process.
        event: shape of one datum.
    """

    def __init__(self, process: GaussianProcess, event: tuple[int, ...]) -> None:
        super().__init__(process, Data())
        self.event = tuple(event)

    @abstractmethod
    def sample(self, n: int, rng: Stream | int, *, first: int = 0) -> Tensor:
        """Return `n` data (n, *) in float64, the samples with indices from `first`."""

    @abstractmethod
    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ``D`` (B, d)."""

    @abstractmethod
    def _mean_vjp(self, x: Tensor, alpha: Tensor, sigma: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D`` and ``v^T dD/dx``, both (B, d)."""

    @abstractmethod
    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ``log p_t`` (B,)."""

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the posterior mean (B, *) for states `x` (B, *) at times `t` (scalar or (B,))."""
        return self._mean(*self._flat(x, t, cond)).reshape(x.shape)

    def vjp(self, x: Tensor, t: Tensor | float, v: Tensor, cond: Any = None) -> tuple[Prediction, Tensor]:
        """Return the prediction and ``v^T d x0 / d x`` (B, *) in closed form; counts one call and one product."""
        self.calls, self.vjps = self.calls + 1, self.vjps + 1
        x0, product = self._mean_vjp(*self._flat(x, t, cond), v.flatten(1))
        return self._complete(x, as_time(t), x0.reshape(x.shape)), product.reshape(x.shape)

    def log_density(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the exact ``log p_t(x)`` (B,) of the noised law, in nats."""
        return self._log_density(*self._flat(x, t, None))

    def _flat(self, x: Tensor, t: Tensor | float, cond: Any) -> tuple[Tensor, Tensor, Tensor]:
        require(cond is None, f"{type(self).__name__} is unconditional; leave cond out")
        if x.shape[1:] != self.event:
            raise Mismatch(f"{type(self).__name__} has data of shape {self.event}, got states of {tuple(x.shape[1:])}")
        t = as_time(t)
        flat = x.flatten(1)
        return flat, match(self.process.alpha(t), flat), match(self.process.sigma(t), flat)


def normals(stream: Stream, n: int, width: int, first: int) -> Tensor:
    """Return standard normals (n, width) in float64."""
    return stream.normal((n, width), first=first, dtype=torch.float64)
