r"""Newton's method without matrices: directional derivatives and GMRES (Knoll and Keyes, J. Comput. Phys. 193 (2004) 357).

    (I - s J(b + w_k)) d_k = s f(b + w_k) - w_k        solved until the residual is a part `forcing` of the right-hand side

A product with ``J`` is one forward-mode derivative and counts as one evaluation. There is no preconditioner: the number
of products grows with the stiffness that is spread over many directions; it is small where few directions are stiff, or
all are alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array, Controller, Flags
from isocline.integrators.methods.base import Carry
from isocline.integrators.solvers.base import Measure, Rows, Solved, Stage, Work, measure_of
from isocline.integrators.solvers.forward import along
from isocline.integrators.solvers.gmres import gmres
from isocline.integrators.solvers.implicit import attached
from isocline.integrators.solvers.iteration import Rule, iterate


@dataclass(frozen=True)
class NewtonKrylov:
    """Newton-Krylov iteration: the choice where a dense Jacobian of a sample is too large.

    Memory is that of `size` states. The field must work under `torch.func.jvp`, and under `torch.func.vjp` for
    gradients.

    Args:
        kappa: part of what is tolerated that is left to the iteration.
        iterations: the largest number of Newton steps for a stage; the step fails beyond. Four times as many with
            constant steps, as no smaller step would follow.
        forcing: residual at which GMRES stops, relative to its right-hand side.
        size: dimension of the Krylov space.
        restarts: how many spaces are built one after the other.
        exact: residual of the transposed solve in the backward pass, relative.
        rtol: relative tolerance; the controller's by default, and a thousand roundings for constant steps.
        atol: absolute tolerance, likewise.
        measure: of displacements; set by `measured`.
    """

    kappa: float = 1e-2
    iterations: int = 10
    forcing: float = 1e-2
    size: int = 40
    restarts: int = 2
    exact: float = 1e-12
    rtol: float | None = None
    atol: float | None = None
    measure: Measure | None = None

    def __post_init__(self) -> None:
        require(0 < self.forcing < 1, f"forcing must lie between 0 and 1, got {self.forcing}")
        require(self.size >= 1 and self.restarts >= 1, "GMRES needs a size and a number of restarts of at least 1")

    def measured(self, controller: Controller) -> NewtonKrylov:
        """Return the solver with the tolerance of an adaptive controller."""
        return replace(self, measure=controller.ratio) if controller.adaptive else self

    def prepare(self, work: Work, rows: Rows, t: Tensor, scale: Tensor, y: Tensor, memory: Carry) -> Matrixfree:
        """Return a step that is ready for its stages; nothing is computed before."""
        return Matrixfree(self, work, rows, t, scale, y)


@dataclass(frozen=True)
class Matrixfree:
    """A step that is ready for its stages."""

    solver: NewtonKrylov
    work: Work
    rows: Rows
    t: Tensor
    scale: Tensor
    y: Tensor

    def solve(self, stage: Stage, eta: Array) -> Solved:
        """Return the solution of a stage."""
        s = self.solver
        measure = measure_of(s.rtol, s.atol, s.measure, stage.base.real.dtype)
        rule = Rule(s.kappa, s.iterations if s.measure is not None else 4 * s.iterations, s.forcing, s.measure is None)

        def correction(z: Tensor, residual: Tensor) -> Tensor:
            return self._solved(stage.time, z, stage.scale, residual, s.forcing)

        with torch.no_grad():
            started = np.full_like(
                eta, np.inf
            )  # nothing is believed of another stage: Newton's method contracts faster and faster
            found = iterate(self.work, self.rows, stage, correction, measure, started, rule)
        if not torch.is_grad_enabled() or not stage.base.requires_grad:
            return found
        return replace(found, w=attached(self.work, stage, found.w, lambda z, g: self._adjoint(stage, z, g)))

    def smoothed(self, v: Tensor) -> Tensor:
        """Return ``(I - s J)^{-1} v`` with the Jacobian at the start of the step."""
        return self._solved(self.t, self.y, self.scale, v, self.solver.forcing)

    def refreshed(self, failed: Flags) -> None:
        """Return nothing: the derivatives are always new."""
        return

    def memory(self, theta: Array) -> Carry:
        """Return nothing."""
        return ()

    def again(self) -> Carry:
        """Return nothing."""
        return ()

    def _solved(self, t: Tensor, y: Tensor, scale: Tensor, b: Tensor, tolerance: float) -> Tensor:
        rows, factor = self.rows, self.rows.factor(scale)

        def product(v: Tensor) -> Tensor:
            return v - factor * rows.rows(along(lambda x: self.work(t, x), y, rows.state(v)))

        found = gmres(product, rows.rows(b), tolerance, self.solver.size, self.solver.restarts)
        return rows.state(found)

    def _adjoint(self, stage: Stage, z: Tensor, g: Tensor) -> Tensor:
        rows, factor = self.rows, self.rows.factor(stage.scale.detach())
        pull = torch.func.vjp(lambda x: self.work(stage.time.detach(), x), z)[1]

        def product(v: Tensor) -> Tensor:
            return v - factor * rows.rows(pull(rows.state(v))[0])

        return rows.state(gmres(product, rows.rows(g), self.solver.exact, self.solver.size, 10 * self.solver.restarts))
