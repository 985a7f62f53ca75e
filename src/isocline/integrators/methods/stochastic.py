r"""Explicit Runge-Kutta methods for ``dy = f dt + g dW``, driven by the increment W of the Brownian path and its space-time area H.

    z_i    = y + h sum_j a_ij f_j + (sum_j p_ij g_j) W + (sum_j q_ij g_j) H ,       f_j = f(t + c_j h, z_j) ,  g_j = g(t + c_j h,
    z_j) y_1    = y + h sum_j b_j f_j + (sum_j p_j g_j) W + (sum_j q_j g_j) H
    error  = h sum_j e_j f_j + (sum_j d_j g_j) W + (sum_j k_j g_j) H

With H = 0 and p = a this is a Runge-Kutta method for an equation in which W / h is a slope, and converges in the sense of
Stratonovich.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Controller
from isocline.integrators.dense import linear
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.explicit import combined
from isocline.integrators.methods.tableau import Tableau
from isocline.integrators.sde import SDE, Calculus

Weights: TypeAlias = tuple[float, ...]
Rows: TypeAlias = tuple[Weights, ...]
Row: TypeAlias = tuple[Weights, Weights, Weights]


@dataclass(frozen=True)
class Part:
    """Weights of one driver, of the drift, of W or of H.

    Args:
        a: for each stage but the first, weights of the stages before it.
        b: weights of the solution.
        error: weights of the error estimate; empty where there is none.
    """

    a: Rows
    b: tuple[float, ...]
    error: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = [len(row) for row in self.a]
        require(sizes == list(range(1, len(self.b))), f"stage rows must have 1, 2, ... entries, got {sizes}")
        require(len(self.error) in (0, len(self.b)), "the error estimate needs a weight for each stage")


@dataclass(frozen=True)
class StochasticTableau:
    """The coefficients above.

    Args:
        name: of the method.
        drift: weights a, b and e of the drift.
        increment: weights p and d of the increment.
        area: weights q and k of the area, or None where the method does not read it.
    """

    name: str
    drift: Part
    increment: Part
    area: Part | None = None

    def __post_init__(self) -> None:
        for part, total in ((self.drift, 1.0), (self.increment, 1.0), (self.area, 0.0)):
            if part is None:
                continue
            require(len(part.b) == self.stages, f"{self.name}: every driver needs {self.stages} weights")
            require(abs(sum(part.b) - total) < 1e-12, f"{self.name}: weights must add up to {total:g}")
            require(abs(sum(part.error)) < 1e-12, f"{self.name}: weights of the error must add up to 0")

    @classmethod
    def plain(cls, table: Tableau) -> StochasticTableau:
        """Return the method that treats ``W / h`` as a slope."""
        count = table.stages - table.late
        matrix = table.matrix[:count, :count].tolist()
        a = tuple(tuple(matrix[i][:i]) for i in range(1, count))
        part = Part(a, tuple(table.b[:count]), tuple(table.error[:count]))
        return cls(table.name, part, part)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.drift.b)

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Weights of the drift, of the increment and of the area; empty where the area is not read."""
        return (
            self.drift,
            self.increment,
            self.area or Part(tuple((0.0,) * len(row) for row in self.drift.a), (0.0,) * self.stages),
        )

    @cached_property
    def stage_rows(self) -> list[Row]:
        """For each stage but the first, the weights of the stages before it in each part."""
        return list(zip(*(part.a for part in self.parts), strict=True))

    @cached_property
    def solution_row(self) -> Row:
        """The weights of the solution in each part."""
        drift, increment, area = self.parts
        return drift.b, increment.b, area.b

    @cached_property
    def error_row(self) -> Row:
        """The weights of the error estimate in each part."""
        drift, increment, area = self.parts
        return drift.error, increment.error, area.error

    @cached_property
    def bare(self) -> StochasticTableau:
        """The tableau without its error estimate."""
        area = None if self.area is None else replace(self.area, error=())
        return replace(
            self, drift=replace(self.drift, error=()), increment=replace(self.increment, error=()), area=area
        )

    @cached_property
    def abscissae(self) -> tuple[float, ...]:
        """Times of the stages, in steps."""
        return (0.0, *(sum(row) for row in self.drift.a))


@dataclass(frozen=True)
class StochasticRungeKutta:
    """A method with the coefficients of a tableau, for SDEs in the sense of Stratonovich.

    Strong order 1 for commutative noise and 1/2 for general noise, whatever the deterministic order of a plain tableau. States
    inside a step are on the straight line between its ends.

    Args:
        tableau: its coefficients; ``StochasticTableau.plain(Midpoint().tableau)`` for a method for ODEs.

    Examples:
        >>> from isocline.integrators import Midpoint
        >>> StochasticRungeKutta(StochasticTableau.plain(Midpoint().tableau)).strong["diagonal"]
        1.0
    """

    tableau: StochasticTableau

    accepts = SDE
    calculus: Calculus = "stratonovich"
    order = 1

    @property
    def strong(self) -> Mapping[str, float]:
        """Strong order for each kind of noise."""
        return {"additive": 1.0, "diagonal": 1.0, "commutative": 1.0, "general": 0.5}

    @property
    def error_order(self) -> int:
        """Power of h in the error estimate; 0 where there is none."""
        return 1 if self.tableau.drift.error else 0

    @property
    def area(self) -> bool:
        """Whether the space-time area is read."""
        return self.tableau.area is not None

    def measured(self, controller: Controller) -> StochasticRungeKutta:
        """Return the method without its error estimate where nobody reads it."""
        if controller.adaptive or not self.tableau.drift.error:
            return self
        bare = copy(self)
        object.__setattr__(bare, "tableau", self.tableau.bare)
        return bare

    def start(self, terms: SDE, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return nothing."""
        return ()

    def step(self, terms: SDE, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and the line between its ends."""
        table = self.tableau
        drifts, diffusions = [terms.f(t, y)], [terms.g(t, y)]
        for row, abscissa in zip(table.stage_rows, table.abscissae[1:], strict=True):
            z = _moved(terms, h, y, drifts, diffusions, row)
            at = torch.add(t, h, alpha=abscissa)
            drifts.append(terms.f(at, z))
            diffusions.append(terms.g(at, z))
        y1 = _moved(terms, h, y, drifts, diffusions, table.solution_row)
        known = bool(table.drift.error)
        error = _moved(terms, h, torch.zeros_like(y), drifts, diffusions, table.error_row) if known else None
        return Step(y1, error, linear(y, y1), evaluations=2 * table.stages)


def _moved(terms: SDE, h: Tensor, y: Tensor, drifts: list[Tensor], diffusions: list[Tensor], row: Row) -> Tensor:
    """Return `y` plus the sums of a row of weights."""
    drift, increment, area = row
    w = terms.step
    total = terms.moved(y, weighted(increment, diffusions), w.w)
    if any(drift):
        total = torch.addcmul(total, weighted(drift, drifts), h)
    if any(area):
        assert w.h is not None
        total = terms.moved(total, weighted(area, diffusions), w.h)
    return total


def weighted(weights: Weights, vectors: list[Tensor]) -> Tensor:
    """Return ``sum_i weights[i] vectors[i]``; one vector of weight one as it is."""
    return vectors[0] if weights == (1.0,) else combined(weights, vectors)
