r"""Gradients without stored states: the steps are undone one by one in the backward pass.

Only the state before the last step and the grid of steps (16 bytes a step) are kept. Going backwards, each step is
undone by the method's own inverse, made again with a graph, and differentiated. Rounding errors grow by the method's
factor g at every undone step, so that n steps need ``g^n eps <= sqrt(eps)``; contraction of the flow itself adds to
it, which is why the state found at the start is compared with the first state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.registry import Method
from isocline.integrators.gradients.parameters import Parameters
from isocline.integrators.gradients.pullback import Grads, Pullback, check_repeats, solved
from isocline.integrators.gradients.tape import Tape
from isocline.integrators.problem import Problem
from isocline.integrators.solution import Solution

METHOD = Method(
    "reversible-adjoint",
    "Gradient by undone steps",
    "Efficient and Accurate Gradients for Neural SDEs",
    "Kidger, Foster, Li, Lyons",
    2021,
    "2105.13493",
    room="integrators.gradients",
    when="Exact gradients of very long solutions by Reversible, ReversibleHeun, Leapfrog and other methods that can be undone.",
)


@METHOD.variant()
@dataclass(frozen=True)
class ReversibleAdjoint:
    """Exact gradients of the discrete solution with memory that does not grow with its steps, but for 16 bytes a step.

    Needs a method that can be undone: `Reversible`, `ReversibleHeun`, `Leapfrog` and the other splittings. Step sizes
    count as constants. Not for strongly damped equations (the way back amplifies what was damped: an error says so),
    nor for second derivatives. Source: Kidger, Foster, Li and Lyons, arXiv 2105.13493; McCallum and Foster, arXiv
    2410.11648.

    Args:
        parameters: what the equation depends on besides its arguments, tensors or a module; by default they are
            searched for in it.

    Examples:
        >>> import torch
        >>> from isocline.integrators import Reversible, integrate
        >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
        >>> y1 = integrate(lambda t, y: -y, y0, 0.0, 2.0, method=Reversible(), dt0=0.01, gradient=ReversibleAdjoint()).y1
        >>> y1.sum().backward()
        >>> round(float(y0.grad), 4)  # exp(-2)
        0.1353
    """

    parameters: Parameters = None

    exact = True

    def solve(self, problem: Problem) -> Solution:
        """Return the solution with gradients."""
        name = type(problem.method).__name__
        if not hasattr(problem.method, "inverse"):
            raise InvalidInput(f"{name} cannot be undone: pass method=Reversible({name}()), or gradient=Checkpointed()")
        jumps = "steps cannot be undone across a jump of the field (Clip(jump_times=...)): pass gradient=Checkpointed()"
        require(not len(problem.controller.jumps), jumps)
        return solved(problem, None, self._backward, self.parameters, "ReversibleAdjoint", _check_growth)

    def _backward(self, pullback: Pullback, y0: Tensor) -> Tensor | None:
        tape = pullback.tape
        carry = tape.last
        size = (
            float(carry[0].detach().abs().max()) if carry and carry[0].numel() else 0.0
        )  # the first state may be zero
        cotangent: Grads = [None]
        for k in reversed(range(len(tape.grid))):
            if k == 0:
                what = "the undone steps do not lead back to the first state"
                check_repeats(carry[0], y0, pullback.mode, what, size)
                carry = (y0,)
            cotangent = pullback.back(k, k + 1, carry, cotangent)
            if k:
                with torch.no_grad():
                    carry = tape.retreat(pullback.terms, k - 1, carry)
        return cotangent[0]


def _check_growth(tape: Tape) -> None:
    """Raise where rounding would grow too large on the way back."""
    y, n = tape.problem.y0, len(tape.grid)
    log_growth = math.log(tape.problem.method.growth)  # type: ignore[attr-defined]
    most = -0.5 * math.log(torch.finfo(y.real.dtype if y.is_complex() else y.dtype).eps)
    if n * log_growth > most:
        raise InvalidInput(
            f"rounding errors would grow by {math.exp(min(700.0, n * log_growth)):.0e} over {n} undone steps: pass "
            f"Reversible(..., coupling={1 - most / n / 2:.6f}) or nearer to 1, y0.double(), or gradient=Checkpointed()"
        )
