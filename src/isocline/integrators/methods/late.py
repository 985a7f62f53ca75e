"""Interpolants that need more of the vector field than their step did, and evaluate it only if a state inside is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isocline.integrators.dense import Combination, hermite


@dataclass(frozen=True)
class Late:
    """An interpolant that is made once, when it is first asked. Derived classes say how; this one evaluates both slopes.

    Args:
        terms: bound terms.
        t: start of the step.
        h: its size.
        y: state at the start.
        y1: state at the end.
    """

    terms: Any
    t: Tensor
    h: Tensor
    y: Tensor
    y1: Tensor
    recorded: bool = field(default_factory=torch.is_grad_enabled, kw_only=True)

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the states (m, *) at `theta` (m,)."""
        return self._inside(theta)

    def rows(self, index: Tensor, theta: Tensor) -> Tensor:
        """Return (m, *) where entry j is sample ``index[j]`` at ``theta[j]``."""
        return self.y1[index] if bool((theta == 1).all()) else self._inside.rows(index, theta)

    @cached_property
    def _inside(self) -> Combination:
        # in the gradient mode of the step: events look inside without gradients first and with them later
        with torch.set_grad_enabled(self.recorded):
            return self.make()

    def make(self) -> Combination:
        """Return the interpolant: the cubic through both ends with both slopes."""
        start, end = self.terms.vf(self.t, self.y), self.terms.vf(self.t + self.h, self.y1)
        return hermite(self.y, self.y1, self.h, start, end)


@dataclass(frozen=True)
class LateEnd(Late):
    """The cubic through both ends where the slope at the start is known.

    Args:
        f: slope at the start.
    """

    f: Tensor

    def make(self) -> Combination:
        """Return the cubic; evaluates the slope at the end."""
        return hermite(self.y, self.y1, self.h, self.f, self.terms.vf(self.t + self.h, self.y1))
