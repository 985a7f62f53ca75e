r"""Fields on another grid of the same domain, by trigonometric interpolation on periodic axes.

A grid of n points holds the wave numbers below n / 2. To a finer grid nothing is lost; to a coarser one the higher waves are cut,
which is not what taking every second point does: that folds them onto lower ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import Batch


def resampled(u: Tensor, sizes: Sequence[int], first: int) -> Tensor:
    """Return a field on a grid of `sizes` points.

    Args:
        u: (..., *S, ...), real, on periodic axes.
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
    old = u.shape[axis]
    c = torch.fft.rfft(u, dim=axis, norm="forward")
    kept = (min(old, n) + 1) // 2  # the wave n / 2 of an even grid has no sign, so it is dropped
    shape = list(c.shape)
    shape[axis] = n // 2 + 1
    wide = c.new_zeros(shape)
    wide.narrow(axis, 0, kept).copy_(c.narrow(axis, 0, kept))
    return torch.fft.irfft(wide, n=n, dim=axis, norm="forward")


def at_resolution(batch: Batch, sizes: Sequence[int]) -> Batch:
    """Return a batch on a grid of `sizes` points.

    Raises:
        InvalidInput: an axis is not periodic, or the batch lies on scattered points.
    """
    spec, d = batch.spec, len(batch.spec.axes)
    walls = [axis for axis, kind in zip(spec.axes, spec.boundary, strict=True) if kind != "periodic"]
    require(batch.offsets is None, "scattered points have no other resolution")
    require(not walls, f"only periodic axes are resampled; {', '.join(walls)} is not. Pass data at that resolution")
    require(len(sizes) == d, f"{spec.name} has {d} axes, got {len(sizes)} sizes")
    lines = [torch.arange(n, dtype=batch.coordinates.dtype) / n for n in sizes]
    unit = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    low, span = _extent(batch, d)
    return replace(
        batch,
        spec=spec.at(tuple(sizes)),
        x=resampled(batch.x, sizes, 2),
        y=None if batch.y is None else resampled(batch.y, sizes, 2),
        constants=None if batch.constants is None else resampled(batch.constants, sizes, 1),
        coordinates=low + span * unit.to(batch.coordinates.device),
        mask=None,
    )


def _extent(batch: Batch, d: int) -> tuple[Tensor, Tensor]:
    """Return where the grid begins and how long each period is, of shapes that fit coordinates."""
    q = batch.coordinates
    own = q.ndim == d + 2  # a grid of its own for each case
    inner = tuple(range(1, d + 1)) if own else tuple(range(d))
    low, high = q.amin(inner, keepdim=True), q.amax(inner, keepdim=True)
    n = q.new_tensor([q.shape[axis] for axis in inner])
    return low, (high - low) * n / (n - 1)
