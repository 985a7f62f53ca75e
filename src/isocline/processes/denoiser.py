r"""Denoisers: a network, a pretrained model or an exact model behind one interface.

A denoiser knows its process and what it outputs. `Denoiser.__call__` returns the native output and counts one call;
`predict` adds the two scalars that give data, noise and score; `vjp` gives products with the Jacobian of the data
prediction. Guidance, preconditioning, perturbation and half precision are denoisers that wrap others, not flags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import Mismatch, require
from isocline.processes.gaussian import GaussianProcess, as_time, match
from isocline.processes.model_time import Continuous, ModelTime
from isocline.processes.parameterisation import Data, Parameterisation


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says about states `x` (B, *): data `x0`, noise `eps` and `score`, each (B, *)."""

    x0: Tensor
    eps: Tensor
    score: Tensor


class Denoiser(ABC):
    """Base of all denoisers.

    Attributes:
        process: the Gaussian process it was trained for.
        parameterisation: what it outputs.
        guidance: guidance scale it applies; part of the identity of plans tuned for it.
        calls: network calls so far (guidance counts both of its calls).
        vjps: vector-Jacobian products so far.
    """

    guidance: float = 1.0

    def __init__(self, process: GaussianProcess, parameterisation: Parameterisation) -> None:
        self.process = process
        self.parameterisation = parameterisation
        self.calls = 0
        self.vjps = 0

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the native output (B, *) for states `x` (B, *) at times `t` (scalar or (B,))."""

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the native output and count the call."""
        self.calls += 1
        return self.forward(x, t, cond)

    def predict(self, x: Tensor, t: Tensor | float, cond: Any = None) -> Prediction:
        """Return data, noise and score predictions at one time (scalar or (B,))."""
        t = as_time(t)
        return self._complete(x, t, self._data(x, t, cond))

    def vjp(self, x: Tensor, t: Tensor | float, v: Tensor, cond: Any = None) -> tuple[Prediction, Tensor]:
        """Return the prediction and ``v^T d x0 / d x`` for `v` (B, *), by one backward pass."""
        t = as_time(t)
        self.vjps += 1
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self._data(x, t, cond)
            (product,) = torch.autograd.grad(x0, x, v)
        return self._complete(x.detach(), t, x0.detach()), product

    def _data(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        output = self(x, t, cond)
        if isinstance(self.parameterisation, Data):
            return output
        cx, cm = self.parameterisation.to_data(self.process, t)
        return match(cx, x) * x + match(cm, x) * output

    def _complete(self, x: Tensor, t: Tensor, x0: Tensor) -> Prediction:
        alpha, sigma = match(self.process.alpha(t), x), match(self.process.sigma(t), x)
        eps = (x - alpha * x0) / sigma
        return Prediction(x0, eps, -eps / sigma)


class Wrapped(Denoiser):
    """A network with its process, its parameterisation and the time it wants to be told. Made by `wrap`."""

    def __init__(
        self,
        network: Callable[..., Tensor],
        process: GaussianProcess,
        parameterisation: Parameterisation,
        model_time: ModelTime,
    ) -> None:
        super().__init__(process, parameterisation)
        self.network, self.model_time = network, model_time

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Call the network with the time it understands, one value per sample."""
        told = self.model_time(self.process, t).to(device=x.device, dtype=x.dtype).expand(x.shape[0])
        output = self.network(x, told) if cond is None else self.network(x, told, cond)
        if output.shape != x.shape:
            raise Mismatch(
                f"the network returned shape {tuple(output.shape)} for states of shape {tuple(x.shape)}; "
                "wrap a network whose output has the shape of its input"
            )
        return output


def wrap(
    network: Callable[..., Tensor],
    process: GaussianProcess,
    parameterisation: Parameterisation,
    model_time: ModelTime | None = None,
) -> Denoiser:
    """Return a denoiser around `network`.

    Args:
        network: called as ``network(x, time)`` or ``network(x, time, cond)`` with `x` (B, *) and `time` (B,).
        process: how the training data were noised.
        parameterisation: what the network outputs.
        model_time: how process time becomes the network's time; process time itself by default.

    Examples:
        >>> from isocline.processes import EDM, Data, wrap
        >>> shrink = wrap(lambda x, t: x / (1 + t[:, None] ** 2), EDM(), Data())
        >>> shrink.predict(torch.ones(2, 3), 1.0).x0[0]
        tensor([0.5000, 0.5000, 0.5000])
    """
    require(callable(network), f"a network must be callable, got {type(network).__name__}")
    return Wrapped(network, process, parameterisation, model_time or Continuous())
