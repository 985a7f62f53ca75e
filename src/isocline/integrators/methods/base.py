"""What a method is: one pure step.

A step reads the time, the step size and what is carried from step to step (the state and, for some methods, more), and returns
the same one step later, with an error estimate and an interpolant. Nothing is kept in the method itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from isocline.integrators.dense import Interpolant

Carry = tuple[Tensor, ...]


class Step(NamedTuple):
    """The result of one step.

    Args:
        y: state at the end of the step, shape (*).
        error: estimate of the local error, shape (*), or None where the method has none.
        dense: the solution inside the step.
        state: what the next step reads besides ``y``, if this one is accepted; tensors of the shape of ``y``.
        again: what a repetition of this step with a smaller size reads.
        evaluations: how many evaluations of the vector field this step made.
        failed: samples for which the step has no result (an implicit equation that was not solved), bool of shape () or (B,).
    """

    y: Tensor
    error: Tensor | None
    dense: Interpolant
    state: Carry = ()
    again: Carry = ()
    evaluations: int = 0
    failed: Tensor | None = None


class Method(Protocol):
    """One way to make a step.

    Attributes:
        order: order of accuracy of the solution.
        error_order: power of h in the error estimate; 0 where there is none.
    """

    @property
    def order(self) -> int:
        """Order of accuracy of the solution."""
        ...

    @property
    def error_order(self) -> int:
        """Power of h in the error estimate; 0 where there is none."""
        ...

    def start(self, terms: Any, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return what the first step reads besides ``y``; `f` is the field at the start where it is known already."""
        ...

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return the step from `t` to ``t + h``; `t` and `h` have shape () or (B, 1, ..., 1), `h` may be negative."""
        ...
