r"""Rosenbrock methods: diagonally implicit methods whose stages are linear, so that nothing is iterated.

    (I - h gamma J) U_i = h gamma [ f(t + alpha_i h, y + sum_{j<i} a_ij U_j) + gamma_i h f_t ] + gamma sum_{j<i} c_ij U_j
    y_{n+1} = y + sum_i m_i U_i ,        error = sum_i e_i U_i ,        y(theta) = y + sum_i m_i(theta) U_i

``J`` and ``f_t`` are the derivatives by state and time at the start of the step (Hairer, Wanner II, IV.7, in the
variables ``U`` that need no products with ``J``). The order needs both exactly; with ``f_t`` left out a method has its
order on autonomous equations only.

A tableau checks the order conditions when it is made. With ``G^{-1} = I / gamma - c``, ``alpha = a G``, ``b = m G`` and
``beta = alpha + G`` they are those of rooted trees where a node with one branch counts ``beta`` and one with several
counts ``alpha`` for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.dense import Combination, Interpolant, hermite
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.explicit import combined
from isocline.integrators.methods.late import LateEnd
from isocline.integrators.methods.tableau import Array, Tree, density, trees
from isocline.integrators.solvers.base import Rows, Work, jacobian
from isocline.integrators.solvers.forward import along

TOLERANCE = 1e-12


@dataclass(frozen=True)
class RosenbrockTableau:
    """The coefficients of a Rosenbrock method, in the variables ``U``.

    Args:
        name: what people call it.
        gamma: the diagonal.
        a: rows below the first, ragged.
        c: rows below the first, ragged.
        m: weights of the solution.
        order: its order.
        error: weights of the error estimate.
        embedded_order: order of ``m - error``.
        powers: the interpolant, for each power 1, 2, ... of theta a weight for each stage; empty for the cubic Hermite
            interpolant.
        dense_order: order of the interpolant.
    """

    name: str
    gamma: float
    a: Sequence[Sequence[float]]
    c: Sequence[Sequence[float]]
    m: Sequence[float]
    order: int
    error: Sequence[float]
    embedded_order: int
    powers: Sequence[Sequence[float]] = ()
    dense_order: int = 3

    def __post_init__(self) -> None:
        m, worst = np.array(self.m), [self._defect(np.array(self.m), self.order)]
        worst.append(self._defect(m - np.array(self.error), self.embedded_order))
        if self.powers:
            powers = np.array(self.powers)
            worst.append(float(np.abs(powers.sum(0) - m).max()))
            for theta in (0.25, 0.5, 0.8):
                inside = theta ** np.arange(1, len(powers) + 1) @ powers
                worst.append(self._defect(inside, self.dense_order, theta))
        require(
            max(worst) < TOLERANCE, f"{self.name}: an order condition is violated: solution, error, interpolant {worst}"
        )

    @classmethod
    def of(
        cls,
        name: str,
        gamma: float,
        alpha: Sequence[Sequence[float]],
        rows: Sequence[Sequence[float]],
        b: Sequence[float],
        order: int,
        error: Sequence[float],
        embedded_order: int,
        powers: Sequence[Sequence[float]] = (),
        dense_order: int = 3,
    ) -> RosenbrockTableau:
        """Return the tableau from the coefficients ``alpha``, ``gamma_ij`` below the diagonal (`rows`) and weights of slopes."""
        inverse = np.linalg.inv(_square(rows, len(b)) + gamma * np.eye(len(b)))
        a = _square(alpha, len(b)) @ inverse
        c = np.eye(len(b)) / gamma - inverse
        below = range(1, len(b))
        return cls(
            name,
            gamma,
            [a[i, :i].tolist() for i in below],
            [c[i, :i].tolist() for i in below],
            (np.array(b) @ inverse).tolist(),
            order,
            (np.array(error) @ inverse).tolist(),
            embedded_order,
            [(np.array(p) @ inverse).tolist() for p in powers],
            dense_order,
        )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.m)

    @cached_property
    def gammas(self) -> Array:
        """The matrix ``gamma_ij``, diagonal included."""
        return np.asarray(np.linalg.inv(np.eye(self.stages) / self.gamma - _square(self.c, self.stages)))

    @cached_property
    def alphas(self) -> Array:
        """The matrix ``alpha_ij``."""
        return np.asarray(_square(self.a, self.stages) @ self.gammas)

    @cached_property
    def times(self) -> tuple[tuple[float, float], ...]:
        """For each stage the abscissa ``alpha_i`` and the factor ``gamma_i`` of the derivative by time."""
        return tuple(zip(_clean(self.alphas.sum(1)), _clean(self.gammas.sum(1)), strict=True))

    @cached_property
    def last_is_solution(self) -> bool:
        """Whether the last stage is evaluated at the solution."""
        last = np.array([*self.a[-1], 0.0])
        return bool(np.abs(last - np.array(self.m)).max() < 1e-13) and abs(self.times[-1][0] - 1.0) < 1e-13

    def _defect(self, m: Array, order: int, theta: float = 1.0) -> float:
        b, alpha, beta = m @ self.gammas, self.alphas, self.alphas + self.gammas
        return max(
            abs(float(b @ _weights(alpha, beta, tree)) - theta**n / density(tree))
            for n in range(1, order + 1)
            for tree in trees(n)
        )


def _square(rows: Sequence[Sequence[float]], size: int) -> Array:
    full = np.zeros((size, size))
    for i, row in enumerate(rows, start=1):
        full[i, : len(row)] = row
    return full


def _clean(x: Array) -> list[float]:
    """Return numbers with rounding errors near 0 and 1 removed."""
    near = np.round(x)
    return [float(v) for v in np.where(np.abs(x - near) < 1e-12, near, x)]


def _weights(alpha: Array, beta: Array, tree: Tree) -> Array:
    matrix, product = beta if len(tree) == 1 else alpha, np.ones(len(alpha))
    for branch in tree:
        product = product * (matrix @ _weights(alpha, beta, branch))
    return product


@dataclass(frozen=True)
class Rosenbrock:
    """A Rosenbrock method with a dense Jacobian.

    A Jacobian is n evaluations, one for each direction, made in one vectorised pass; the field must work under
    `torch.func.vmap` and `torch.func.jvp`. Where samples have steps of their own it is one (n, n) matrix a sample. The
    derivative by time counts as one evaluation. Both are kept for the repetition of a rejected step. Gradients go
    through all operations, Jacobian included.

    Args:
        tableau: its coefficients.
    """

    tableau: RosenbrockTableau

    @property
    def order(self) -> int:
        """Order of accuracy."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """Power of h in the error estimate: one more than the lower of both orders."""
        return min(self.tableau.order, self.tableau.embedded_order) + 1

    @property
    def dense_order(self) -> int:
        """Order of accuracy inside a step; never above that of the step itself."""
        return min(self.tableau.order, self.tableau.dense_order)

    def start(self, terms: Any, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the field at the start where it is known already."""
        return () if f is None else (f,)

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and its interpolant."""
        table, work, rows = self.tableau, Work(terms.vf, terms), Rows.of(y, terms)
        first = state[0] if state else work(t, y)
        matrix, slope = state[1:] if len(state) == 3 else (jacobian(work, rows, t, y), _by_time(work, t, y))
        scale = h * table.gamma
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        lu, pivots, _ = torch.linalg.lu_factor_ex(eye - rows.factor(scale, 2) * matrix)
        u: list[Tensor] = []
        f = first
        for i, (alpha, gamma) in enumerate(table.times):
            if i:
                at = y + combined(table.a[i - 1], u) if any(table.a[i - 1]) else y
                f = work(t + alpha * h, at)
            right = scale * (f + (gamma * h) * slope if gamma else f)
            if i:
                right = right + combined([table.gamma * c for c in table.c[i - 1]], u)
            u.append(rows.state(torch.linalg.lu_solve(lu, pivots, rows.rows(right)[..., None])[..., 0]))
        y1 = y + combined(table.m, u)
        ending = (f,) if table.last_is_solution else ()
        dense = self._dense(terms, t, h, y, y1, u, first, f)
        again = (first, matrix, slope)
        return Step(y1, combined(table.error, u), dense, ending, again, work.evaluations)

    def _dense(
        self, terms: Any, t: Tensor, h: Tensor, y: Tensor, y1: Tensor, u: list[Tensor], first: Tensor, last: Tensor
    ) -> Interpolant:
        if self.tableau.powers:
            return Combination(y, 1.0, self.tableau.powers, u)
        if self.tableau.last_is_solution:
            return hermite(y, y1, h, first, last)
        return LateEnd(terms, t, h, y, y1, first)


def _by_time(work: Work, t: Tensor, y: Tensor) -> Tensor:
    """Return the derivative of the field by time at a fixed state."""
    return along(lambda s: work(s, y), t, torch.ones_like(t))
