"""The interpolant of methods that have no slopes at hand: the cubic through both ends, whose slopes are evaluated on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isocline.integrators.dense import Combination, hermite


@dataclass(frozen=True)
class Spanned:
    """The cubic through both ends of a step with both slopes, which are evaluated only if a state inside the step is asked for."""

    terms: Any
    t: Tensor
    h: Tensor
    y: Tensor
    y1: Tensor
    recorded: bool = field(default_factory=torch.is_grad_enabled)

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the states (m, *) at `theta` (m,)."""
        return self._cubic(theta)

    def rows(self, index: Tensor, theta: Tensor) -> Tensor:
        """Return (m, *) where entry j is sample ``index[j]`` at ``theta[j]``."""
        return self._cubic.rows(index, theta)

    @cached_property
    def _cubic(self) -> Combination:
        # in the gradient mode of the step: events look inside without gradients first and with them later
        with torch.set_grad_enabled(self.recorded):
            start, end = self.terms.vf(self.t, self.y), self.terms.vf(self.t + self.h, self.y1)
            return hermite(self.y, self.y1, self.h, start, end)
