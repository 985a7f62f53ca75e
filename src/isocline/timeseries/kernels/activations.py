r"""Activations and their Gaussian moments: ``V(Sigma) = E[phi(u) phi(v)]`` for ``(u, v) ~ N(0, Sigma)``.

    identity    uv
    ReLU        sqrt(uu vv) (sin q + (pi - q) cos q) / (2 pi) ,   cos q = uv / sqrt(uu vv)      (Cho and Saul, NeurIPS 2009)
    erf         (2 / pi) arcsin(2 uv / sqrt((1 + 2 uu) (1 + 2 vv)))                             (Williams, NeurIPS 1996)

with ``uu, uv, vv`` the entries of ``Sigma``. Rounding may push a correlation beyond 1, so it is clipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Activation(Protocol):
    """A function and its second moments under Gaussian laws."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``phi(x)``."""
        ...

    def moment(self, uu: Tensor, uv: Tensor, vv: Tensor) -> Tensor:
        """Return ``E[phi(u) phi(v)]`` for variances `uu`, `vv` and covariance `uv` that broadcast."""
        ...

    def square(self, uu: Tensor) -> Tensor:
        """Return ``E[phi(u)^2]`` for variances `uu`."""
        ...


@dataclass(frozen=True)
class Identity:
    """``phi(x) = x``: the kernel is that of signatures.

    >>> Identity().moment(torch.tensor(1.0), torch.tensor(0.5), torch.tensor(2.0)).item()
    0.5
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    def moment(self, uu: Tensor, uv: Tensor, vv: Tensor) -> Tensor:
        """Return the covariance."""
        return uv

    def square(self, uu: Tensor) -> Tensor:
        """Return the variance."""
        return uu


@dataclass(frozen=True)
class ReLU:
    """``phi(x) = max(x, 0)``: the arc-cosine kernel of order 1.

    Source: Cho and Saul, "Kernel Methods for Deep Learning", NeurIPS 2009.

    >>> round(ReLU().moment(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0)).item(), 6) == round(1 / math.pi, 6)
    True
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Return the positive part."""
        return torch.relu(x)

    def moment(self, uu: Tensor, uv: Tensor, vv: Tensor) -> Tensor:
        """Return the arc-cosine kernel."""
        scale = torch.sqrt((uu * vv).clamp_min(torch.finfo(uv.dtype).tiny))
        out: Tensor = scale * _ArcCosine.apply((uv / scale).clamp(-1.0, 1.0))
        return out

    def square(self, uu: Tensor) -> Tensor:
        """Return half the variance."""
        return uu / 2


class _ArcCosine(torch.autograd.Function):
    """``(sqrt(1 - r^2) + (pi - acos r) r) / (2 pi)``, whose slope ``(pi - acos r) / (2 pi)`` is finite at the ends."""

    @staticmethod
    def forward(ctx: Any, r: Tensor) -> Tensor:
        angle = torch.acos(r)
        ctx.save_for_backward(angle)
        return (torch.sin(angle) + (math.pi - angle) * r) / (2 * math.pi)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (angle,) = ctx.saved_tensors
        return grad * (math.pi - angle) / (2 * math.pi)


@dataclass(frozen=True)
class Erf:
    """``phi(x) = erf(x)``: the arcsine kernel.

    Source: Williams, "Computing with Infinite Networks", NeurIPS 1996.

    >>> round(Erf().square(torch.tensor(0.5)).item(), 6)
    0.333333
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Return the error function."""
        return torch.erf(x)

    def moment(self, uu: Tensor, uv: Tensor, vv: Tensor) -> Tensor:
        """Return the arcsine kernel."""
        ratio = 2 * uv / torch.sqrt((1 + 2 * uu) * (1 + 2 * vv))
        return torch.asin(ratio.clamp(-1.0, 1.0)) * (2 / math.pi)

    def square(self, uu: Tensor) -> Tensor:
        """Return ``E[erf(u)^2]``."""
        return torch.asin(2 * uu / (1 + 2 * uu)) * (2 / math.pi)
