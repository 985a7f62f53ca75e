r"""What happens inside a step: interpolants, polynomials in theta = (t - t_n) / h.

    Runge-Kutta      y(theta) = y_n + h sum_i b_i(theta) k_i              b_i given by the tableau, in powers of theta
    Hermite          the cubic through y_n, y_{n+1} with slopes f_n, f_{n+1}: order 3
    linear           y_n + theta (y_{n+1} - y_n): order 1

Every interpolant can be asked for several theta at once, or, where samples have steps of their own, for one theta in some rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Interpolant(Protocol):
    """The solution inside one step."""

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the states (m, *) at `theta` (m,)."""
        ...

    def rows(self, index: Tensor, theta: Tensor) -> Tensor:
        """Return (m, *) where entry j is sample ``index[j]`` at ``theta[j]``."""
        ...


@dataclass(frozen=True)
class Combination:
    """A polynomial ``y + sum_p theta^p (scale * sum_i powers[p - 1][i] k_i)``.

    Args:
        y: state at the start of the step, shape (*).
        scale: factor of the vectors, usually the step h; shape () or (B, 1, ..., 1).
        powers: for each power 1, 2, ... of theta, a weight for each vector.
        vectors: stages or other states, each of the shape of `y`.
    """

    y: Tensor
    scale: Tensor | float
    powers: Sequence[Sequence[float]]
    vectors: Sequence[Tensor]

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the states (m, *) at `theta` (m,)."""
        theta = theta.to(self.y.real.dtype).reshape(-1, *[1] * self.y.ndim)
        return self.y + self._sum(theta, lambda v: v, self.scale)

    def rows(self, index: Tensor, theta: Tensor) -> Tensor:
        """Return (m, *) where entry j is sample ``index[j]`` at ``theta[j]``."""
        theta = theta.to(self.y.real.dtype).reshape(-1, *[1] * (self.y.ndim - 1))
        scale = self.scale[index] if isinstance(self.scale, Tensor) and self.scale.ndim else self.scale
        return self.y[index] + self._sum(theta, lambda v: v[index], scale)

    def _sum(self, theta: Tensor, part, scale: Tensor | float) -> Tensor:  # type: ignore[no-untyped-def]
        total: Tensor | None = None
        for vector, weights in zip(self.vectors, zip(*self.powers, strict=True), strict=True):
            if any(weights):
                weight = torch.zeros_like(theta)
                for w in reversed(weights):
                    weight = (weight + w) * theta
                term = weight * part(vector)
                total = term if total is None else total + term
        assert total is not None
        return scale * total


def hermite(y0: Tensor, y1: Tensor, h: Tensor, f0: Tensor, f1: Tensor) -> Combination:
    """Return the cubic through both ends with both slopes."""
    powers = ((0.0, 1.0, 0.0), (3.0, -2.0, -1.0), (-2.0, 1.0, 1.0))
    return Combination(y0, 1.0, powers, (y1 - y0, h * f0, h * f1))


def linear(y0: Tensor, y1: Tensor) -> Combination:
    """Return the straight line through both ends."""
    return Combination(y0, 1.0, ((1.0,),), (y1 - y0,))
