"""Gradients by recording every operation of every accepted step: exact for the discrete solution, memory grows with the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from isocline.integrators.loop import Loop
from isocline.integrators.problem import Problem
from isocline.integrators.solution import Solution


class Gradient(Protocol):
    """One way to have gradients.

    Attributes:
        exact: whether the gradient is that of the discrete solution, to rounding.
    """

    @property
    def exact(self) -> bool:
        """Whether the gradient is that of the discrete solution."""
        ...

    def solve(self, problem: Problem) -> Solution:
        """Return the solution, with gradients attached."""
        ...


@dataclass(frozen=True)
class Direct:
    """Backpropagation through the operations of the solver. The fastest where memory allows; step sizes count as constants."""

    exact = True

    def solve(self, problem: Problem) -> Solution:
        """Return the solution; autograd has recorded it."""
        return Loop(problem).run().solution()
