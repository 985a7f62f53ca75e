r"""Gradients of implicit stages through the implicit function theorem.

The solution of ``w = s f(b + w)`` depends on everything that ``s``, ``b`` and ``f`` depend on, by

    dw = (I - s J)^{-1} d[ s f(b + w) ]    with w held on the right

so the iterations need not be recorded: one more evaluation of ``f`` at the solution, and one transposed solve in the
backward pass, with the Jacobian at the solution. The memory does not grow with the iterations. The gradient can be had
once; a second one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.solvers.base import Stage, Work

Adjoint = Callable[[Tensor, Tensor], Tensor]


def attached(work: Work, stage: Stage, w: Tensor, adjoint: Adjoint) -> Tensor:
    """Return `w` with the gradients of the implicit function.

    Args:
        work: the vector field; evaluated once more.
        stage: the equation that `w` solves.
        w: its solution, without gradients.
        adjoint: ``(state, g) -> (I - s J)^{-T} g`` with the Jacobian at the state.
    """
    image = stage.scale * work(stage.time, stage.base + w)
    solution = (stage.base + w).detach()
    return _Implicit.apply(image, w, lambda g: adjoint(solution, g))


class _Implicit(torch.autograd.Function):
    """The value `w` with the gradient of `image`, solved with the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, w: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.adjoint = adjoint
        return w.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        twice = "second derivatives through implicit stages are not there: use a Rosenbrock method such as Rodas4"
        require(not torch.is_grad_enabled(), twice)
        return ctx.adjoint(grad), None, None
