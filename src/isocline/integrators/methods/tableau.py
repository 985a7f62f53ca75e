r"""Butcher tableaux that prove themselves.

    k_i     = f(t_n + c_i h, y_n + h sum_j a_ij k_j)
    y_{n+1} = y_n + h sum_i b_i k_i ,        error = h sum_i e_i k_i ,        y(theta) = y_n + h sum_i b_i(theta) k_i

A tableau checks, when it is made, that its row sums are its abscissae, that its weights satisfy the order conditions
of every rooted tree up to the order it claims, that the embedded weights ``b - e`` satisfy those up to its embedded
order, and that the interpolant does, at every theta, up to its own order and ends in ``b``. With ``gamma(tau)`` the
density and ``Phi(tau)`` the elementary weight of a tree, the conditions are ``sum_i b_i(theta) Phi_i(tau) =
theta^|tau| / gamma(tau)`` (Butcher; Hairer, Norsett, Wanner I, chapter II.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from isocline._core.errors import require

Array = NDArray[np.float64]
Tree = tuple["Tree", ...]
TOLERANCE = 2e-13


@lru_cache(maxsize=16)
def trees(order: int) -> tuple[Tree, ...]:
    """Return all rooted trees with `order` nodes, each as the sorted tuple of the trees that hang on its root.

    >>> [len(trees(n)) for n in range(1, 9)]
    [1, 1, 2, 4, 9, 20, 48, 115]
    """
    return tuple(sorted(set(_forests(order - 1, order - 1)), key=repr))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        for count in range(nodes // size, 0, -1):
            for rest in _forests(nodes - size * count, size - 1):
                for chosen in combinations_with_replacement(trees(size), count):
                    yield tuple(sorted((*chosen, *rest), key=repr))


def size(tree: Tree) -> int:
    """Return the number of nodes."""
    return 1 + sum(map(size, tree))


def density(tree: Tree) -> int:
    """Return ``gamma``: the number of nodes times the densities of the branches."""
    product = size(tree)
    for branch in tree:
        product *= density(branch)
    return product


def elementary_weights(a: Array, order: int) -> Array:
    """Return ``Phi`` (trees, stages) for all trees up to `order`: the product over branches of ``sum_j a_ij Phi_j``."""
    known: dict[Tree, Array] = {}
    branches: dict[Tree, Array] = {}
    for tree in _up_to(order):
        known[tree] = np.prod([branches[branch] for branch in tree], axis=0) if tree else np.ones(len(a))
        branches[tree] = a @ known[tree]
    return np.array(list(known.values()))


@lru_cache(maxsize=16)
def _up_to(order: int) -> tuple[Tree, ...]:
    return tuple(tree for n in range(1, order + 1) for tree in trees(n))


@lru_cache(maxsize=16)
def _sizes_and_densities(order: int) -> tuple[Array, Array]:
    return tuple(np.array([[size(tree), density(tree)] for tree in _up_to(order)], float).T)


def defect(a: Array, weights: Array, order: int, theta: float = 1.0, phi: Array | None = None) -> float:
    """Return the largest violation of an order condition up to `order` by `weights` at `theta`; `phi` may be given."""
    phi = elementary_weights(a, order) if phi is None else phi
    sizes, densities = _sizes_and_densities(order)
    return float(np.abs(phi[: len(sizes)] @ weights - theta**sizes / densities).max(initial=0.0))


@dataclass(frozen=True, eq=False)
class Tableau:
    """The coefficients of a Runge-Kutta method.

    Args:
        name: what people call it.
        a: the rows below the first of an explicit method, or all rows, diagonal included, of a diagonally implicit one; ragged.
        b: weights of the solution.
        order: order of `b`.
        c: abscissae; the sums of the rows where they are not given. Given ones must agree with them.
        error: weights of the error estimate, ``b`` minus the embedded weights; empty where there is none.
        embedded_order: order of the embedded weights.
        powers: the interpolant, for each power 1, 2, ... of theta a weight for each stage; empty for the cubic Hermite interpolant.
        dense_order: order of the interpolant.
        late: number of stages, the last ones, that only the interpolant reads; evaluated where an inside state is asked for.
    """

    name: str
    a: Sequence[Sequence[float]]
    b: Sequence[float]
    order: int
    c: Sequence[float] = ()
    error: Sequence[float] = ()
    embedded_order: int = 0
    powers: Sequence[Sequence[float]] = ()
    dense_order: int = 3
    late: int = 0

    def __post_init__(self) -> None:
        s = self.stages
        rows = [len(row) for row in self.a]
        explicit, implicit = list(range(1, s)), list(range(1, s + 1))
        require(rows in (explicit, implicit), f"{self.name}: the rows of a have lengths {rows}, expected {explicit}")
        require(not self.error or len(self.error) == s, f"{self.name}: the error estimate needs {s} weights")
        require(
            not any(self.b[s - self.late :]), f"{self.name}: the solution reads stages that only the interpolant may"
        )
        self._check_row_sums()
        self._check(np.array(self.b), self.order, 1.0, "weights")
        if self.error:
            self._check(np.array(self.b) - np.array(self.error), self.embedded_order, 1.0, "embedded weights")
        if self.powers:
            self._check_interpolant()
        _ = self.abscissae, self.last_is_solution, self.twice_at_end  # known before a step is compiled

    @property
    def stages(self) -> int:
        """Number of stages, late ones included."""
        return len(self.b)

    @cached_property
    def matrix(self) -> Array:
        """The square matrix ``a``, shape (s, s)."""
        full = np.zeros((self.stages, self.stages))
        for i, row in enumerate(self.a, start=self.stages - len(self.a)):
            full[i, : len(row)] = row
        return full

    @cached_property
    def abscissae(self) -> tuple[float, ...]:
        """The times of the stages in units of the step, shape (s,)."""
        return tuple(map(float, self.c)) if len(self.c) else tuple(self.matrix.sum(1).tolist())

    @cached_property
    def last_is_solution(self) -> bool:
        """Whether the last stage is evaluated at the solution, so that the next step can start from it (FSAL)."""
        last = self.stages - self.late - 1
        return self.abscissae[last] == 1.0 and np.array_equal(self.matrix[last], np.array(self.b))

    @cached_property
    def twice_at_end(self) -> tuple[float, ...]:
        """Last row minus the one before it, where both stages are at the end of the step; otherwise empty."""
        last = self.stages - self.late - 1
        both = last > 1 and self.abscissae[last] == self.abscissae[last - 1] == 1.0
        return tuple((self.matrix[last] - self.matrix[last - 1])[:last].tolist()) if both else ()

    def _check_row_sums(self) -> None:
        worst = float(np.abs(self.matrix.sum(1) - np.array(self.abscissae)).max())
        require(worst < TOLERANCE * self._scale, f"{self.name}: row sums of a differ from c by {worst:.1e}")

    def _check(self, weights: Array, order: int, theta: float, what: str) -> None:
        found = defect(self.matrix, weights, order, theta, self._phi)
        bar = TOLERANCE * self._scale
        require(found < bar, f"{self.name}: the {what} violate an order condition up to {order} by {found:.1e}")

    def _check_interpolant(self) -> None:
        powers = np.array(self.powers)
        ends = float(np.abs(powers.sum(0) - np.array(self.b)).max())
        require(ends < TOLERANCE * self._scale, f"{self.name}: the interpolant ends {ends:.1e} away from the solution")
        for theta in (0.25, 0.5, 0.8):
            weights = theta ** np.arange(1, len(powers) + 1) @ powers
            self._check(weights, self.dense_order, theta, f"weights of the interpolant at {theta}")

    @cached_property
    def _phi(self) -> Array:
        return elementary_weights(
            self.matrix, max(self.order, self.embedded_order, self.dense_order if self.powers else 0)
        )

    @cached_property
    def _scale(self) -> float:
        """Rounding grows with the coefficients: the largest of them, at least one."""
        return max(1.0, float(np.abs(self.matrix).max()))
