"""Steps of one size, or between times that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array, Decision, Memory


def whole(h: Array, span: Array) -> Array:
    """Return the step, or one that fills the span a whole number of times where `h` nearly does."""
    count = np.maximum(np.round(span / h), 1.0)
    return np.where(np.abs(span / count - h) < 1e-6 * h, span / count, h)


def zero_if_finite(y1: Tensor, event_dims: int) -> Tensor:
    """Return 0 where a state is finite and NaN where it is not, shape () or (B,)."""
    size = y1.detach()
    size = size.abs() if size.is_complex() else size
    if event_dims == y1.ndim:
        return size.sum() * 0.0
    axes = tuple(range(y1.ndim - event_dims, y1.ndim))
    return (size.sum(axes) if axes else size) * 0.0


@dataclass(frozen=True)
class Constant:
    """Steps of the size ``dt0`` that `integrate` is given; the last one is shortened to end at ``t1``. Every step is accepted."""

    adaptive = False
    stops: Sequence[float] = ()
    jumps: Sequence[float] = ()

    def start(self, shape: tuple[int, ...]) -> Memory:
        """Return nothing."""
        return ()

    def ratio(self, error: Tensor | None, y: Tensor, y1: Tensor, event_dims: int) -> Tensor:
        """Return 0 where the state is finite."""
        return zero_if_finite(y1, event_dims)

    def decide(self, h: Array, ratio: Array, memory: Memory, order: int) -> Decision:
        """Accept what is finite and go on with the same size."""
        return Decision(np.isfinite(ratio), h, memory)


@dataclass(frozen=True)
class Steps:
    """Steps between given times.

    Args:
        times: increasing or decreasing; ``t0`` and ``t1`` may be left out.
    """

    times: Sequence[float] | Tensor
    adaptive = False
    jumps: Sequence[float] = ()

    def __post_init__(self) -> None:
        times = torch.as_tensor(self.times, dtype=torch.float64).flatten().tolist()
        object.__setattr__(self, "times", tuple(times))
        signs = set(np.sign(np.diff(times)))
        require(len(signs) <= 1 and 0.0 not in signs, "the step times must all increase or all decrease")

    @property
    def stops(self) -> Sequence[float]:
        """The given times."""
        return self.times  # type: ignore[return-value]

    def start(self, shape: tuple[int, ...]) -> Memory:
        """Return nothing."""
        return ()

    def ratio(self, error: Tensor | None, y: Tensor, y1: Tensor, event_dims: int) -> Tensor:
        """Return 0 where the state is finite."""
        return zero_if_finite(y1, event_dims)

    def decide(self, h: Array, ratio: Array, memory: Memory, order: int) -> Decision:
        """Accept what is finite; the next step reaches as far as it may."""
        return Decision(np.isfinite(ratio), np.full_like(h, np.inf), memory)
