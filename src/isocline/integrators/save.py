"""What is kept of a solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array


@dataclass(frozen=True)
class SaveAt:
    """Which states a solution holds, in this order: the first one, those at given times, every step's end, the last one.

    Args:
        ts: times, shape (T,), in the direction of integration; or (B, T) where every sample has times of its own. They are
            reached by the method's interpolant, never by shortening steps.
        t0: keep the first state.
        t1: keep the last state.
        steps: keep the end of every accepted step.
        dense: keep the interpolants, so that ``solution.evaluate(t)`` works.
        mask: with times (B, T), which of them are asked for, bool (B, T); the others are returned as zeros.
        fn: what is kept of a state, ``fn(t, y) -> tensor``, in place of the state itself.

    Examples:
        >>> SaveAt(ts=[0.0, 0.5, 1.0]).times((), 0.0, 1.0)
        array([0. , 0.5, 1. ])
    """

    ts: Sequence[float] | Tensor | None = None
    t0: bool = False
    t1: bool = False
    steps: bool = False
    dense: bool = False
    mask: Tensor | None = None
    fn: Callable[[Tensor, Any], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.ts is None and not (self.t0 or self.t1 or self.steps or self.dense):
            object.__setattr__(self, "t1", True)
        require(self.mask is None or self.ts is not None, "a mask of times needs times: pass ts too")

    def times(self, shape: tuple[int, ...], t0: Array | float, t1: Array | float) -> Array:
        """Return the requested times as float64, shape (T,) or (B, T), after checking them."""
        if self.ts is None:
            return np.zeros((*shape, 0))
        ts = np.asarray(torch.as_tensor(self.ts, dtype=torch.float64).detach().cpu().numpy())
        require(ts.ndim in (1, 2) and ts.size > 0, f"save times need shape (T,) or (B, T), got {ts.shape}")
        require(ts.ndim == 1 or bool(shape), 'times of shape (B, T) need batching="per-sample"')
        ts = np.broadcast_to(ts, (*shape, ts.shape[-1]))
        low, high = np.minimum(t0, t1)[..., None], np.maximum(t0, t1)[..., None]
        asked = np.ones(ts.shape, bool) if self.mask is None else self.mask.cpu().numpy().astype(bool)
        require(asked.shape == ts.shape, f"the mask has shape {asked.shape}, the times have {ts.shape}")
        inside = (ts >= low - 1e-12 * np.abs(low)) & (ts <= high + 1e-12 * np.abs(high))
        worst = ts[asked & ~inside]
        require(worst.size == 0, f"save time {worst[0] if worst.size else ''} lies outside of [t0, t1]")
        return np.array(ts)
