r"""Chord iteration (simplified Newton) with a dense Jacobian.

    (I - s J) d_k = s f(b + w_k) - w_k ,        w_{k+1} = w_k + d_k

``J`` is taken at the start of the step and factored once, for all stages. It is kept for the repetition of a rejected
step, and for the next step where the iteration converged fast (Hairer, Wanner II, IV.8). If an old one does not do, the
step is tried again with a new one; with constant steps, where nothing else is left, with Newton's method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array, Controller, Flags
from isocline.integrators.methods.base import Carry
from isocline.integrators.solvers.base import Measure, Rows, Solved, Stage, Work, jacobian, measure_of
from isocline.integrators.solvers.implicit import attached
from isocline.integrators.solvers.iteration import Rule, iterate


@dataclass(frozen=True)
class Chord:
    """Chord iteration with a dense Jacobian: the choice up to a few hundred unknowns a sample.

    A Jacobian is n evaluations, one for each direction, made in one vectorised pass; the field must work under
    `torch.func.vmap` and `torch.func.jvp`. Gradients go through the implicit function theorem; they cost one evaluation
    a stage, and a Jacobian a stage in the backward pass. Where samples have steps of their own the Jacobian is one (n,
    n) matrix a sample.

    Args:
        kappa: part of what is tolerated that is left to the iteration.
        iterations: the largest number for a stage; the step fails beyond. Four times as many with constant steps, as no
            smaller step would follow.
        keep: the contraction up to which a Jacobian is used for the next step too; 0 for a new one every step. 0.2 saves
            evaluations from some tens of unknowns on, and costs some where there are few.
        rtol: relative tolerance; the controller's by default, and a thousand roundings for constant steps.
        atol: absolute tolerance, likewise.
        measure: of displacements; set by `measured`.
    """

    kappa: float = 1e-2
    iterations: int = 10
    keep: float = 1e-3
    rtol: float | None = None
    atol: float | None = None
    measure: Measure | None = None

    def __post_init__(self) -> None:
        require(self.kappa > 0, f"kappa must be positive, got {self.kappa}")
        require(self.iterations >= 2, f"a chord iteration needs at least 2 iterations, got {self.iterations}")

    def measured(self, controller: Controller) -> Chord:
        """Return the solver with the tolerance of an adaptive controller."""
        return replace(self, measure=controller.ratio) if controller.adaptive else self

    @torch.no_grad()
    def prepare(self, work: Work, rows: Rows, t: Tensor, scale: Tensor, y: Tensor, memory: Carry) -> Chorded:
        """Return a step with its factored matrix; `memory` is the Jacobian, NaN where a new one is wanted."""
        known = memory[0] if memory else None
        return _chorded(self, work, rows, t, scale, y, known)


@dataclass(frozen=True)
class Chorded:
    """A step that is ready for its stages: the Jacobian at its start and the factors of ``I - s J``."""

    solver: Chord
    work: Work
    rows: Rows
    t: Tensor
    scale: Tensor
    y: Tensor
    matrix: Tensor
    factors: tuple[Tensor, Tensor]
    old: Flags
    full: bool = False

    def solve(self, stage: Stage, eta: Array) -> Solved:
        """Return the solution of a stage."""
        s = self.solver
        measure = measure_of(s.rtol, s.atol, s.measure, self.matrix.dtype)
        rule = Rule(s.kappa, s.iterations if s.measure is not None else 4 * s.iterations, patient=self.full)

        def correction(z: Tensor, residual: Tensor) -> Tensor:
            return self._newton(stage, z, residual) if self.full else self.smoothed(residual)

        with torch.no_grad():
            found = iterate(self.work, self.rows, stage, correction, measure, eta, rule)
        if not torch.is_grad_enabled() or not stage.base.requires_grad:
            return found
        return replace(found, w=attached(self.work, stage, found.w, lambda z, g: self._adjoint(stage, z, g)))

    def smoothed(self, v: Tensor) -> Tensor:
        """Return ``(I - s J)^{-1} v``."""
        return self.rows.state(torch.linalg.lu_solve(*self.factors, self.rows.rows(v)[..., None])[..., 0])

    def refreshed(self, failed: Flags) -> Chorded | None:
        """Return the step with new Jacobians for the samples that failed with old ones.

        Where no smaller step would follow (constant steps), the last resort is Newton's method, with a Jacobian at
        every iterate.
        """
        again = failed & self.old
        if not again.any():
            return None if self.full or self.solver.measure is not None else replace(self, full=True)
        known = torch.where(_flags(again, self.matrix), torch.nan, self.matrix)
        return self.solver.prepare(self.work, self.rows, self.t, self.scale, self.y, (known,))

    def memory(self, theta: Array) -> Carry:
        """Return the Jacobian, NaN where the iteration was too slow for it to be used once more."""
        return (torch.where(_flags(~(theta < self.solver.keep), self.matrix), torch.nan, self.matrix),)

    def again(self) -> Carry:
        """Return the Jacobian."""
        return (self.matrix,)

    def _newton(self, stage: Stage, z: Tensor, residual: Tensor) -> Tensor:
        matrix = _matrix(self.rows, stage.scale, jacobian(self.work, self.rows, stage.time, z))
        lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return self.rows.state(torch.linalg.lu_solve(lu, pivots, self.rows.rows(residual)[..., None])[..., 0])

    def _adjoint(self, stage: Stage, z: Tensor, g: Tensor) -> Tensor:
        matrix = _matrix(self.rows, stage.scale.detach(), jacobian(self.work, self.rows, stage.time.detach(), z))
        return self.rows.state(torch.linalg.solve(matrix.mT, self.rows.rows(g)[..., None])[..., 0])


def _chorded(
    solver: Chord, work: Work, rows: Rows, t: Tensor, scale: Tensor, y: Tensor, known: Tensor | None
) -> Chorded:
    if known is None:
        old, matrix = np.zeros(rows.batch, bool), jacobian(work, rows, t, y)
    else:
        wanted = known[..., 0, 0].isnan()
        old, matrix = np.asarray(~wanted.cpu().numpy()), known
        if not old.all():
            matrix = torch.where(wanted[..., None, None], jacobian(work, rows, t, y), known)
    lu, pivots, _ = torch.linalg.lu_factor_ex(_matrix(rows, scale, matrix))
    return Chorded(solver, work, rows, t, scale, y, matrix, (lu, pivots), old)


def _matrix(rows: Rows, scale: Tensor, matrix: Tensor) -> Tensor:
    """Return ``I - s J``."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return eye - rows.factor(scale, 2) * matrix


def _flags(flags: Flags, matrix: Tensor) -> Tensor:
    return torch.as_tensor(flags, device=matrix.device)[..., None, None]
