r"""The mean of ``u . e`` under the von Mises-Fisher law on the sphere ``S^n``, stable for all concentrations ``k``.

With ``E(k) = mean over the sphere of exp(k u . e)``, a Bessel function up to a factor and ``nu = (n + 1) / 2``,

    A(k) = E'(k) / E(k) = I_nu(k) / I_{nu-1}(k),       A' = 1 - A^2 - n A / k,        A(k) ~ k / (n + 1)  as k -> 0.

Below a switch, ``A / k`` comes from the backward recurrence of Bessel ratios, a continued fraction of positive terms.
Above it, ``A`` is the power series in ``1 / k`` that solves the Riccati equation: ``a_0 = 1`` and

    2 a_m = (m - 1 - n) a_{m-1} - sum_{i=1}^{m-1} a_i a_{m-i}.

The switch is where both are good to rounding; the series also gives ``A'``, which would cancel like ``1 / k^2``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

TERMS = 16


def mean_over_k(k: Tensor, n: int) -> Tensor:
    """Return ``A(k) / k`` for `k` of any shape on the sphere ``S^n``; differentiable twice.

    >>> mean_over_k(torch.tensor([0.0, 1e12], dtype=torch.float64), 1).tolist()
    [0.5, 9.999999999995e-13]
    """
    return _MeanOverK.apply(k, n)


def mean_slope(k: Tensor, over_k: Tensor, n: int) -> Tensor:
    """Return ``A'(k)``, given ``A / k``."""
    far, q = _far(k, n)
    steps = [-j * a for j, a in enumerate(_series(n))]
    return torch.where(far, q * _horner(steps, q), 1 - (k * over_k) ** 2 - n * over_k)


def log_mean_exp(k: Tensor, n: int) -> Tensor:
    """Return ``log E(k) - k`` for `k` of any shape on the sphere ``S^n``; differentiable."""
    return _LogMeanExp.apply(k, n)


class _MeanOverK(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(k: Tensor, n: int) -> Tensor:
        far, q = _far(k, n)
        near, nu = torch.where(far, _switch(n), k), 0.5 * (n + 1)
        depth = 60 + min(n, 100)  # enough for rounding accuracy below the switch
        ratio = near / (nu + depth - 0.5 + torch.sqrt((nu + depth + 0.5) ** 2 + near**2))
        for j in range(depth - 1, 0, -1):
            ratio = near / (2 * (nu + j) + near * ratio)
        return torch.where(far, q * _horner(_series(n), q), 1 / (2 * nu + near * ratio))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.n = inputs[1]
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (k, over_k), n = ctx.saved_tensors, ctx.n
        small = k**2 < 1e-4 * (n + 1)  # there the difference below is rounding
        slope = (mean_slope(k, over_k, n) - over_k) / torch.where(small, 1.0, k)
        return grad * torch.where(small, k * _horner(_start(n), k**2), slope), None


class _LogMeanExp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(k: Tensor, n: int) -> Tensor:
        far, q = _far(k, n)
        near, nu = torch.where(far, _switch(n), k), 0.5 * (n + 1)
        j = torch.arange(_power_terms(n), dtype=k.dtype, device=k.device)
        powers = torch.xlogy(2 * j, 0.5 * near[..., None]) - torch.lgamma(j + 1) - torch.lgamma(nu + j)
        constant = math.lgamma(nu) + (nu - 1) * math.log(2) - 0.5 * math.log(2 * math.pi)
        tail = [0.0] + [-a / (m - 1) for m, a in enumerate(_series(n)) if m > 1]
        distant = constant + 0.5 * n * torch.log(q) + _horner(tail, q)
        return torch.where(far, distant, torch.logsumexp(powers, -1) + math.lgamma(nu) - near)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.n = inputs[1]
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (k,) = ctx.saved_tensors
        return grad * (k * mean_over_k(k, ctx.n) - 1), None


def _switch(n: int) -> float:
    return max(50.0, 4.0 * n)


def _power_terms(n: int) -> int:
    """Return how many terms of the power series of ``E`` matter below the switch."""
    return int(0.5 * _switch(n) + 6 * math.sqrt(_switch(n))) + 20


def _far(k: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return where `k` is above the switch, and ``1 / k`` there (the switch's elsewhere)."""
    far = k > _switch(n)
    return far, 1 / torch.where(far, k, _switch(n))


@lru_cache(maxsize=64)
def _series(n: int) -> tuple[float, ...]:
    a = [1.0]
    for m in range(1, TERMS):
        a.append(0.5 * ((m - 1 - n) * a[m - 1] - sum(a[i] * a[m - i] for i in range(1, m))))
    return tuple(a)


@lru_cache(maxsize=64)
def _start(n: int) -> tuple[float, ...]:
    """Return the first coefficients of ``(A / k)' / k`` in powers of ``k^2``, from the Riccati equation."""
    b = [1 / (n + 1)]
    for j in range(1, 4):
        b.append(-sum(b[i] * b[j - 1 - i] for i in range(j)) / (n + 1 + 2 * j))
    return tuple(2 * j * b[j] for j in range(1, 4))


def _horner(coefficients: tuple[float, ...] | list[float], q: Tensor) -> Tensor:
    total = torch.zeros_like(q)
    for a in reversed(coefficients):
        total = total * q + a
    return total
