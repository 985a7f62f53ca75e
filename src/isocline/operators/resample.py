"""Batches on another grid of the same periodic domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import Batch
from isocline.networks.resize import resampled


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
