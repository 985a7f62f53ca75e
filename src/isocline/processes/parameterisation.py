r"""What a network outputs, and the two scalars that turn it into a data prediction.

Every output ``m`` of a denoising network is linear in ``(x_t, x_0)``, so

    x_0 = cx(t) x_t + cm(t) m          `to_data`
    m   = dx(t) x_t + dm(t) x_0        `from_data`,   dx = -cx / cm,  dm = 1 / cm

A plan folds these scalars into its coefficients; sampling itself never converts anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, nearest
from isocline.processes.gaussian import GaussianProcess, as_time


@dataclass(frozen=True)
class Parameterisation(ABC):
    """One kind of network output."""

    @abstractmethod
    def to_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(cx, cm)`` such that ``x_0 = cx x_t + cm m`` at time `t` (any shape)."""

    def from_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(dx, dm)`` such that ``m = dx x_t + dm x_0`` at time `t`."""
        cx, cm = self.to_data(process, t)
        return -cx / cm, 1 / cm

    @property
    def name(self) -> str:
        """The name used in files."""
        return type(self).__name__


class Data(Parameterisation):
    """``m = x_0``: the conditional mean of the datum. Bounded for bounded data; the safe choice near ``t = 0``."""

    def to_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return (0, 1)."""
        t = as_time(t)
        return torch.zeros_like(t), torch.ones_like(t)

    def from_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return (0, 1)."""
        return self.to_data(process, t)


class Noise(Parameterisation):
    """``m = eps`` (Ho et al., arXiv 2006.11239). Undefined where ``alpha = 0``."""

    def to_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(1 / alpha, -sigma / alpha)``."""
        alpha = process.alpha(t)
        return 1 / alpha, -process.sigma(t) / alpha

    def from_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(1, -alpha) / sigma``, finite where ``alpha = 0``."""
        sigma = process.sigma(t)
        return 1 / sigma, -process.alpha(t) / sigma


class VPrediction(Parameterisation):
    """``m = alpha eps - sigma x_0`` (Salimans and Ho, arXiv 2202.00512)."""

    def to_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(alpha, -sigma) / (alpha^2 + sigma^2)``."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm


class FlowVelocity(Parameterisation):
    """``m = alpha' x_0 + sigma' eps``, the velocity of the interpolation (Liu et al., arXiv 2209.03003)."""

    def to_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(sigma', -sigma) / (alpha sigma' - sigma alpha')``."""
        alpha_rate, sigma_rate = process.rates(t)
        sigma = process.sigma(t)
        norm = process.alpha(t) * sigma_rate - sigma * alpha_rate
        return sigma_rate / norm, -sigma / norm


class Score(Parameterisation):
    """``m = grad log p_t = -eps / sigma`` (Song et al., arXiv 2011.13456). Unbounded as ``t`` goes to 0."""

    def to_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(1, sigma^2) / alpha``."""
        alpha = process.alpha(t)
        return 1 / alpha, process.sigma(t) ** 2 / alpha

    def from_data(self, process: GaussianProcess, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(-1, alpha) / sigma^2``, finite where ``alpha = 0``."""
        variance = process.sigma(t) ** 2
        return -1 / variance, process.alpha(t) / variance


PARAMETERISATIONS: tuple[type[Parameterisation], ...] = (Data, Noise, VPrediction, FlowVelocity, Score)


def parameterisation_named(name: str) -> Parameterisation:
    """Return the parameterisation of that class name, as stored in plan files.

    >>> parameterisation_named("Noise")
    Noise()
    """
    table = {kind.__name__: kind for kind in PARAMETERISATIONS}
    if name not in table:
        raise InvalidInput(f"unknown parameterisation {name!r}. {nearest(name, table)}")
    return table[name]()
