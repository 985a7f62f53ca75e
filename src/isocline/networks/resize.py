r"""Functions on another periodic grid, and activations without aliasing.

A grid of n points holds the wave numbers below n / 2. To a finer grid nothing is lost; to a coarser one the higher waves are cut,
which is not what taking every second point does: that folds them onto lower ones. An activation makes high waves; evaluated on the
grid itself it folds them. `AliasFree` evaluates it on a grid of twice as many points, and cuts (Karras et al., arXiv 2106.12423;
for operators: Bartolucci et al., arXiv 2305.19913). What is left of the aliasing is that of the finer grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def resampled(u: Tensor, sizes: Sequence[int], first: int) -> Tensor:
    """Return a field on a grid of `sizes` points, by its trigonometric interpolant.

    Args:
        u: ``(..., *S, ...)``, real, on periodic axes.
        sizes: points along each axis of space.
        first: which axis of `u` is the first of space.

    Examples:
        >>> x = torch.arange(8) * 2 * torch.pi / 8
        >>> torch.allclose(resampled(torch.sin(x), [12], 0), torch.sin(torch.arange(12) * torch.pi / 6), atol=1e-6)
        True
    """
    for axis, n in enumerate(sizes, start=first):
        if n != u.shape[axis]:
            u = _along(u, axis, n)
    return u


def _along(u: Tensor, axis: int, n: int) -> Tensor:
    kept = (min(u.shape[axis], n) + 1) // 2  # the wave n / 2 of an even grid has no sign, so it is dropped
    low = torch.fft.rfft(u, dim=axis, norm="forward").narrow(axis, 0, kept)
    shape = list(low.shape)
    shape[axis] = n // 2 + 1 - kept
    return torch.fft.irfft(torch.cat([low, low.new_zeros(shape)], axis), n=n, dim=axis, norm="forward")


class AliasFree(nn.Module):
    """An activation on a periodic grid, evaluated on a finer one.

    Args:
        activation: acts at each point.
        factor: how many times as many points an axis.
    """

    def __init__(self, activation: nn.Module, factor: int = 2) -> None:
        super().__init__()
        self.activation, self.factor = activation, factor

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, *S)`` for x ``(B, C, *S)``."""
        grid = x.shape[2:]
        return resampled(self.activation(resampled(x, [self.factor * n for n in grid], 2)), grid, 2)
