"""What shall hold: differential equations with their conditions, their parameters and references."""

from __future__ import annotations

from isocline.equations.conditions import (
    Condition,
    Dirichlet,
    Initial,
    Interface,
    Neumann,
    On,
    Part,
    Periodic,
    Robin,
)
from isocline.equations.parameters import Free, Observations, Values
from isocline.equations.problem import Problem, Reference
from isocline.equations.spec import EquationSpec
from isocline.points import Ball as Ball
from isocline.points import Box as Box
from isocline.points import Simplex as Simplex

__all__ = [
    "Condition",
    "Dirichlet",
    "EquationSpec",
    "Free",
    "Initial",
    "Interface",
    "Neumann",
    "Observations",
    "On",
    "Part",
    "Periodic",
    "Problem",
    "Reference",
    "Robin",
    "Values",
]
