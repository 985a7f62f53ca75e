"""The cubic Hermite interpolant of a method that does not know the slope at the end of its step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isocline.integrators.dense import Combination, hermite


@dataclass(frozen=True)
class LateHermite:
    """The cubic through both ends; the slope at the end is evaluated once, and only if a state inside the step is asked for.

    Args:
        terms: bound terms.
        t: start of the step.
        h: its size.
        y: state at the start.
        y1: state at the end.
        f: slope at the start.
    """

    terms: Any
    t: Tensor
    h: Tensor
    y: Tensor
    y1: Tensor
    f: Tensor
    recorded: bool = field(default_factory=torch.is_grad_enabled)

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the states (m, *) at `theta` (m,)."""
        return self._cubic(theta)

    def rows(self, index: Tensor, theta: Tensor) -> Tensor:
        """Return (m, *) where entry j is sample ``index[j]`` at ``theta[j]``."""
        return self.y1[index] if bool((theta == 1).all()) else self._cubic.rows(index, theta)

    @cached_property
    def _cubic(self) -> Combination:
        # in the gradient mode of the step: events look inside without gradients first and with them later
        with torch.set_grad_enabled(self.recorded):
            return hermite(self.y, self.y1, self.h, self.f, self.terms.vf(self.t + self.h, self.y1))
