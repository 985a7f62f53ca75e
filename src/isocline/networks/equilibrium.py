r"""Deep equilibrium: a layer whose output is a fixed point (Bai, Kolter and Koltun, arXiv 1909.01377).

    z* = f(z*, x) ,        dL/d theta = (dL/dz*) (1 - df/dz)^{-1} df/d theta

It acts like the same block applied infinitely often, in memory for one: the fixed point is found without a graph, and gradients
come from the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.integrators import Anderson, Implicit, Krylov, SteadyState, steady_state
from isocline.integrators.steady import Finder

METHOD = Method(
    "deep-equilibrium",
    "Deep equilibrium",
    "Deep Equilibrium Models",
    "Bai, Kolter, Koltun",
    2019,
    "1909.01377",
    room="networks",
    when="Weight-tied deep blocks whose memory shall not grow with their depth.",
)


@METHOD.variant()
class DeepEquilibrium(nn.Module):
    """The fixed point ``z = f(z, x)`` of a cell.

    Gradients are those of the fixed point, up to the tolerance; no second derivatives. All samples of a batch are solved together.
    A cell with random or batch-dependent parts (dropout, batch normalisation in training mode) has no fixed point or one that
    depends on the batch.

    Args:
        cell: f, called as ``cell(z, x)`` with z ``(B, *shape)``; returns the shape of z. It should contract in z.
        shape: shape of z without the batch axis.
        tolerance: root mean square of ``f(z, x) - z`` at which the solver stops; above the rounding of the dtype.
        solver: finds the fixed point; `Anderson` by default.
        gradient: how the linear equation of the gradient is solved; to a tenth of the tolerance by default.

    Examples:
        >>> import torch
        >>> cell = lambda z, x: 0.5 * z + x
        >>> DeepEquilibrium(cell, (2,))(torch.ones(3, 2)).round(decimals=4)[0].tolist()
        [2.0, 2.0]
    """

    def __init__(
        self,
        cell: Callable[[Tensor, Tensor], Tensor],
        shape: Sequence[int],
        *,
        tolerance: float = 1e-5,
        solver: Finder | None = None,
        gradient: Implicit | None = None,
    ) -> None:
        super().__init__()
        require(tolerance > 0, f"the tolerance of an equilibrium must be positive, got {tolerance}")
        self.cell, self.shape, self.tolerance = cell, tuple(shape), tolerance
        self.solver = solver or Anderson()
        self.gradient = gradient or Implicit(Krylov(tolerance=0.1 * tolerance))

    def solve(self, x: Tensor, z: Tensor | None = None) -> SteadyState:
        """Return the fixed point with its residual and cost; a failure is a value in it.

        Args:
            x: input (B, *).
            z: where the search starts, ``(B, *shape)``; zeros by default.
        """
        start = x.new_zeros((len(x), *self.shape)) if z is None else z
        return steady_state(
            self.field, start, args=x, solver=self.solver, gradient=self.gradient, tolerance=self.tolerance
        )

    def field(self, t: Tensor, z: Tensor, x: Tensor) -> Tensor:
        """Return ``f(z, x) - z``, whose zero is the fixed point."""
        return self.cell(z, x) - z

    def forward(self, x: Tensor) -> Tensor:
        """Return the fixed point ``(B, *shape)`` for inputs ``(B, *)``.

        Raises:
            NotFinite: where it was not found; the text says what to try.
        """
        found: Tensor = self.solve(x).check().y
        return found
