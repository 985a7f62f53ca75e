"""Series and targets in the units a network is trained in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LENGTH = 4.0  # of the training times, scaled: fields of unit size have room to move a state


@dataclass(frozen=True)
class Scaling:
    """Shifts and scales of values, one for each channel, and of time.

    Args:
        mean: (C,).
        std: (C,), positive.
        first: time that becomes 0.
        span: how long 1 lasts.
    """

    mean: Tensor
    std: Tensor
    first: float = 0.0
    span: float = 1.0

    @classmethod
    def of(cls, values: np.ndarray, times: np.ndarray | None = None) -> Scaling:
        """Return the scaling that gives the observed `values` (..., C) mean 0 and deviation 1, and `times` the range [0, 4].

        A channel without an observed value, or with one value only, keeps its unit.
        """
        table = torch.from_numpy(np.array(values.reshape(-1, values.shape[-1]), dtype=np.float64))
        count = (~table.isnan()).sum(0).clamp(min=1)
        mean = table.nansum(0) / count
        std = ((table - mean).square().nansum(0) / count).sqrt()
        std = torch.where(std > 1e-12 * mean.abs(), std, 1.0)
        if times is None:
            return cls(mean, std)
        first, last = float(np.nanmin(times)), float(np.nanmax(times))
        return cls(mean, std, first, (last - first) / LENGTH)

    def values(self, values: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Return scaled values."""
        return ((torch.from_numpy(np.array(values)) - self.mean) / self.std).to(dtype)

    def times(self, times: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Return scaled times."""
        return ((torch.from_numpy(np.array(times)) - self.first) / self.span).to(dtype)

    def back(self, values: Tensor) -> np.ndarray:
        """Return scaled values in their own units."""
        return (values.double() * self.std + self.mean).numpy()
