r"""A few frequencies of a grid by matrices instead of the FFT.

With m frequencies of n points a transform is a product with an n x m matrix, n m multiplications a line; the FFT takes about
n log n whatever m is, and brings all n frequencies to and from memory. For the few frequencies that Fourier layers keep, products
of matrices need no copies to cut and pad. The frequencies of an axis are those of `isocline.networks.fno`:
0, 1, ..., m - 1, -(m - 1), ..., -1, and of the last axis of a real transform 0, ..., m - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

MATRICES = 64  # pairs that are kept


def product_by_matrices(x: Tensor, weight: Tensor, modes: Sequence[int]) -> Tensor:
    """Return ``F^{-1}(R F x)`` as `isocline.networks.fno.spectral_product` does, in the precision of `weight`.

    Args:
        x: functions on a grid, ``(B, inputs, *grid)``, in the precision of the weight.
        weight: R, real and imaginary parts last, (outputs, inputs, 2 m_1 - 1, ..., m_d, 2).
        modes: m, the frequencies kept along each axis, those below m.
    """
    grid, last, axes = x.shape[2:], modes[-1], len(modes)
    into, back = real_matrices(grid[-1], last, x.dtype, x.device)
    parts = x @ into
    low = torch.complex(parts[..., :last], parts[..., last:])
    for axis in range(
        axes - 2, -1, -1
    ):  # the transformed axis comes first, so the next to do is always this one from the end
        low = torch.tensordot(_pair(grid[axis], modes[axis], low)[0], low, ([1], [axes]))
    low = _multiplied(low, weight, axes)
    for axis in range(axes - 2, -1, -1):
        low = torch.tensordot(_pair(grid[axis], modes[axis], low)[1], low, ([1], [axes - 2]))
    low = low.movedim(axes - 1, -1)
    return (torch.cat([low.real, low.imag], -1) @ back).movedim((axes - 1, axes), (0, 1))


def _multiplied(low: Tensor, weight: Tensor, axes: int) -> Tensor:
    """Return ``R`` times coefficients (K_1, ..., B, inputs, m): (K_1, ..., m, B, outputs)."""
    low = low.movedim(-1, axes - 1)
    matrices = torch.view_as_complex(weight.contiguous()).flatten(2).permute(2, 1, 0)
    found = torch.bmm(low.flatten(0, axes - 1), matrices)
    return found.unflatten(0, low.shape[:axes])


def _pair(n: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    return complex_matrices(n, modes, like.dtype, like.device)


@lru_cache(MATRICES)
def real_matrices(n: int, modes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the transform of real lines, (n, 2 m) with the cosine parts first, and its inverse, (2 m, n)."""
    phase = _phase(torch.arange(n), torch.arange(modes), n)
    cosine, sine = phase.cos(), -phase.sin()
    twice = torch.full((modes, 1), 2.0, dtype=torch.float64)
    twice[0] = 1.0
    into = torch.cat([cosine, sine], 1) / n
    back = torch.cat([twice * cosine.T, twice * sine.T])
    return into.to(device, dtype), back.to(device, dtype)


@lru_cache(MATRICES)
def complex_matrices(n: int, modes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the transform to frequencies of either sign, (2 m - 1, n), and its inverse, (n, 2 m - 1)."""
    k = torch.cat([torch.arange(modes), -torch.arange(modes - 1, 0, -1)])
    phase = _phase(k, torch.arange(n), n)
    into = torch.polar(torch.full_like(phase, 1 / n), -phase)
    back = torch.polar(torch.ones_like(phase), phase).T
    return into.to(device, dtype), back.contiguous().to(device, dtype)


def _phase(a: Tensor, b: Tensor, n: int) -> Tensor:
    """Return ``2 pi a b / n`` for integers, reduced before it is rounded."""
    return 2 * math.pi * ((a[:, None] * b) % n).double() / n
