r"""Rollouts: a stepper's predictions are its next input.

A case whose prediction is not finite ends there: its later frames are NaN, and `Rollout.lost` says at which frame. The others go
on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.progress import progress
from isocline.datasets.fields import Batch
from isocline.operators.models import OperatorModel, advanced


@dataclass(frozen=True)
class Rollout:
    """Predicted frames.

    Attributes:
        frames: ``(B, steps, *S, C)``; on points (sum N, steps, C).
        t: times, (B, steps) float64.
        lost: for each case the first frame that is not finite, or `steps`, (B,).
        calls: calls of the model.
    """

    frames: Tensor
    t: Tensor
    lost: Tensor
    calls: int


def rollout(
    stepper: OperatorModel, batch: Batch, steps: int, *, callback: Callable[[int, Tensor], None] | None = None
) -> Rollout:
    """Return `steps` frames after those of `batch`.

    Args:
        stepper: the model.
        batch: past frames; its `y` is not looked at.
        steps: frames; the last window is cut.
        callback: called with the number of frames before each window and the window, ``(B, future, *S, C)``.

    Raises:
        InvalidInput: less than one step, or a model of steady problems.
        Mismatch: the model was made for other fields.
    """
    require(steps >= 1, f"a rollout has at least one step, got {steps}")
    require(stepper.window.past >= 1, "a model of a steady problem has nothing to roll out; call it on the batch")
    stepper.require_fits(batch)
    windows: list[Tensor] = []
    calls = -(-steps // stepper.window.future)
    start = batch.t[:, :1] - batch.dt[:, None]
    with torch.no_grad(), progress("rollout", calls) as bar:
        for call in range(calls):
            frames = stepper(batch)
            if callback is not None:
                callback(call * stepper.window.future, frames)
            windows.append(frames)
            batch = advanced(batch, frames)
            bar.advance()
    found = torch.cat(windows, 1)[:, :steps]
    lost = _lost(found)
    if batch.offsets is not None:
        lost = torch.stack([part.min() for part in lost.split(batch.offsets.diff().tolist())])
    rows = lost if batch.offsets is None else lost.repeat_interleave(batch.offsets.diff())
    after = torch.arange(steps, device=found.device) >= rows[:, None]
    found = found.masked_fill(after.reshape(*after.shape, *[1] * (found.ndim - 2)), float("nan"))
    ahead = torch.arange(1, steps + 1, dtype=torch.float64, device=batch.t.device)
    return Rollout(found, start + batch.dt[:, None] * ahead, lost, calls)


def _lost(frames: Tensor) -> Tensor:
    """Return the first frame of each case that is not finite, or their number."""
    bad = ~frames.flatten(2).isfinite().all(2)
    return torch.where(bad.any(1), bad.int().argmax(1), frames.shape[1])
