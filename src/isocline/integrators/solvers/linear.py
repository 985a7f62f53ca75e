r"""Implicit stages of a linear part: one exact solve, no iteration.

    w = s L (b + w)    =>    b + w = (I - s L)^{-1} b

Ordinary operations, so gradients need nothing special. Not counted as evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array, Flags
from isocline.integrators.methods.base import Carry
from isocline.integrators.solvers.base import Solved, Stage
from isocline.integrators.terms import Semilinear


def linear_part(terms: Semilinear, y: Tensor) -> Tensor:
    """Return ``L`` in the precision of the state; a number times a tensor would keep the precision of the tensor."""
    linear = terms.linear
    require(
        y.is_complex() or not linear.is_complex(), "a complex linear part needs a complex state: pass y0 as complex"
    )
    return linear.to(y.dtype if terms.dense or linear.is_complex() else y.real.dtype if y.is_complex() else y.dtype)


@dataclass(frozen=True)
class Exact:
    """A step whose stages are solved exactly: the diagonal of ``I - s L``, or its factors where ``L`` is dense.

    Args:
        terms: bound terms with a linear part.
        diagonal: ``1 - s L``, shape of the state, where it is diagonal.
        factors: LU factors, shape (n, n) or (B, 1, ..., 1, n, n), where it is dense.
    """

    terms: Semilinear
    diagonal: Tensor | None
    factors: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, terms: Semilinear, scale: Tensor, y: Tensor) -> Exact:
        """Return the step for ``s = scale``, shape () or (B, 1, ..., 1), and states like `y`."""
        linear = linear_part(terms, y)
        if not terms.dense:
            return cls(terms, 1 - scale * linear, None)
        eye = torch.eye(len(linear), dtype=linear.dtype, device=linear.device)
        lu, pivots, _ = torch.linalg.lu_factor_ex(eye - (scale[..., None] if scale.ndim else scale) * linear)
        return cls(terms, None, (lu, pivots))

    def solve(self, stage: Stage, eta: Array) -> Solved:
        """Return the solution of a stage."""
        w = self.smoothed(stage.scale * self.terms.apply(stage.base))
        shape = stage.scale.shape[:1]
        return Solved(w, np.zeros(shape, bool), np.zeros(shape), eta)

    def smoothed(self, v: Tensor) -> Tensor:
        """Return ``(I - s L)^{-1} v``."""
        if self.diagonal is not None:
            return v / self.diagonal
        assert self.factors is not None
        lu, pivots = (
            (x.expand(*v.shape[:-1], *x.shape[v.ndim - 1 :]) for x in self.factors)
            if self.factors[0].ndim > 2
            else self.factors
        )
        if lu.ndim == 2:
            return torch.linalg.lu_solve(lu, pivots, v.reshape(-1, v.shape[-1]).mT).mT.reshape(v.shape)
        return torch.linalg.lu_solve(lu, pivots, v[..., None])[..., 0]

    def refreshed(self, failed: Flags) -> None:
        """Return nothing: the solve is exact."""
        return

    def memory(self, theta: Array) -> Carry:
        """Return nothing."""
        return ()

    def again(self) -> Carry:
        """Return nothing."""
        return ()
