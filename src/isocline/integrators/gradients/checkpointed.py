r"""Gradients from few stored states: the steps between them are made again in the backward pass.

With n accepted steps,

    memory="sqrt"    about sqrt(n) states and the graphs of about sqrt(n) steps; every step is made twice
    memory="log"     about log2(n) states and the graphs of 8 steps; a segment is halved until it is that short, so
    that every step
                     is made about 2 + log2(n / 8 log2(n)) / 2 times

n is not known beforehand: states are held at a stride that doubles, and every second one is dropped, whenever there
are too many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.integrators.gradients.parameters import Parameters
from isocline.integrators.gradients.pullback import Grads, Pullback, solved
from isocline.integrators.gradients.tape import COARSEST
from isocline.integrators.methods.base import Carry
from isocline.integrators.problem import Problem
from isocline.integrators.solution import Solution

METHOD = Method(
    "checkpointed-gradient",
    "Checkpointed gradient",
    "Algorithm 799: Revolve, an implementation of checkpointing for the reverse or adjoint mode of computational differentiation",
    "Griewank, Walther",
    2000,
    "",
    room="integrators.gradients",
    when="Exact gradients of long solutions with any method, at one or a few more forward passes.",
)


@METHOD.variant()
@dataclass(frozen=True)
class Checkpointed:
    """Exact gradients of the discrete solution with memory for about sqrt(n) or log2(n) of its n steps.

    Step sizes count as constants. Not for fields that differ from call to call (dropout), nor for second derivatives, nor for
    gradients of ``record=("steps",)``: use `Direct`. Source: Griewank and Walther, ACM TOMS 26 (2000) 19; sqrt(n)
    segments as by Chen, Xu, Zhang and Guestrin, arXiv 1604.06174.

    Args:
        memory: ``"sqrt"`` or ``"log"``.
        parameters: what the equation depends on besides its arguments, tensors or a module; by default they are
            searched for in it.

    Examples:
        >>> import torch
        >>> from isocline.integrators import integrate
        >>> rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        >>> y0 = torch.ones(1, dtype=torch.float64)
        >>> y1 = integrate(lambda t, y: -rate * y, y0, 0.0, 2.0, dt0=0.01, gradient=Checkpointed()).y1
        >>> y1.sum().backward()
        >>> round(float(rate.grad), 6)  # -2 exp(-1)
        -0.735759
    """

    memory: Literal["sqrt", "log"] = "sqrt"
    parameters: Parameters = None

    exact = True

    def __post_init__(self) -> None:
        require(self.memory in ("sqrt", "log"), f'memory is "sqrt" or "log", got {self.memory!r}')

    def held(self, n: int) -> float:
        """Return how many states may be held after n steps."""
        return 2 * math.sqrt(n) if self.memory == "sqrt" else 2 + math.log2(n)

    def solve(self, problem: Problem) -> Solution:
        """Return the solution with gradients."""
        return solved(problem, self.held, self._backward, self.parameters, "Checkpointed")

    def _backward(self, pullback: Pullback, y0: Tensor) -> Tensor | None:
        tape = pullback.tape
        n = len(tape.grid)
        cotangent: Grads = [None]
        if not n:
            return None
        starts = sorted(tape.states)
        for start, stop in reversed(list(zip(starts, [*starts[1:], n], strict=True))):
            carry = (y0,) if start == 0 else tape.states[start]
            longest = COARSEST if self.memory == "log" else stop - start
            cotangent = _halved(pullback, start, stop, carry, cotangent, longest)
        return cotangent[0]


def _halved(pullback: Pullback, start: int, stop: int, carry: Carry, cotangent: Grads, longest: int) -> Grads:
    """Go back over a segment; one that is too long is halved, its second half first."""
    if stop - start <= longest:
        return pullback.back(start, stop, carry, cotangent)
    middle = (start + stop) // 2
    now = carry
    for k in range(start, middle):
        now = pullback.forth(k, now)
    cotangent = _halved(pullback, middle, stop, now, cotangent, longest)
    return _halved(pullback, start, middle, carry, cotangent, longest)
