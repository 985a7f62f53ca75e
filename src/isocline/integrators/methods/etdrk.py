r"""Exponential Runge-Kutta methods for ``y' = L y + N(t, y)``: the linear part is integrated exactly.

    u_i     = e^{c_i z} y + h sum_{j<i} a_ij(z) N_j ,        N_i = N(t + c_i h, u_i) ,        z = h L
    y_{n+1} = e^z y + h sum_i b_i(z) N_i

where every coefficient is a combination of ``phi_k(c z)``. A table holds for each coefficient its terms ``(weight, k,
c)``. A method checks, when it is made, that ``sum_j a_ij(z) = c_i phi_1(c_i z)`` and ``sum_i b_i(z) = phi_1(z)``, so
that constant ``N`` is integrated exactly, and that at ``z = 0`` it is a Runge-Kutta method of its order.

The order counts as long as ``h |L|`` is moderate. On parabolic problems the stiff order is what is seen at large ``h
|L|`` if ``N(t, y(t))`` does not obey the boundary conditions: 1, 2, 3 (Krogstad) and 4 (Hochbruck and Ostermann), but 2
for Cox and Matthews' ETD4RK (Hochbruck and Ostermann, SIAM J. Numer. Anal. 43 (2005) 1069). Periodic problems in
Fourier space show the full order.

The coefficients depend on ``h L`` alone. They travel from step to step beside the state and are made again where ``h``
changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import factorial

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.late import LateEnd
from isocline.integrators.methods.phi import matrix_phi, phi
from isocline.integrators.methods.tableau import Tableau
from isocline.integrators.solvers.linear import linear_part
from isocline.integrators.terms import Semilinear

Weight = Mapping[tuple[int, float], float]
NORSETT = Method(
    "exponential-euler",
    "Exponential Euler",
    "An A-stable modification of the Adams-Bashforth methods",
    "Norsett",
    1969,
    "",
    room="integrators.methods",
    when="A stiff linear part and low accuracy.",
)
METHOD = Method(
    "etdrk",
    "Exponential time differencing Runge-Kutta",
    "Exponential time differencing for stiff systems",
    "Cox, Matthews",
    2002,
    "",
    room="integrators.methods",
    when="A stiff linear part that is diagonal, as in spectral methods, with constant steps.",
)
KROGSTAD = Method(
    "etdrk4-krogstad",
    "Krogstad's ETDRK4-B",
    "Generalized integrating factor methods for stiff PDEs",
    "Krogstad",
    2005,
    "",
    room="integrators.methods",
    when="A stiff linear part with boundary conditions that the nonlinear part does not obey.",
)
HOCHBRUCK = Method(
    "exprk-hochbruck-ostermann",
    "Hochbruck-Ostermann exponential Runge-Kutta",
    "Explicit exponential Runge-Kutta methods for semilinear parabolic problems",
    "Hochbruck, Ostermann",
    2005,
    "",
    room="integrators.methods",
    when="Parabolic problems where ETDRK4 loses its order.",
)


@dataclass(frozen=True)
class ExponentialTable:
    """The coefficients of an exponential Runge-Kutta method.

    Args:
        name: what people call it.
        c: abscissae, shape (s,).
        a: rows below the first; entry (i, j) maps ``(k, c)`` to the weight of ``phi_k(c z)``.
        b: weights of the solution, likewise.
        order: classical order.
    """

    name: str
    c: Sequence[float]
    a: Sequence[Sequence[Weight]]
    b: Sequence[Weight]
    order: int

    def __post_init__(self) -> None:
        z = torch.tensor([-40.0, -3.0, -0.2, 0.0, 1.5], dtype=torch.float64)
        for c, row in zip((*self.c[1:], 1.0), (*self.a, self.b), strict=True):
            total = sum((self.entry(weight, z) for weight in row), torch.zeros_like(z))
            worst = float((total - c * phi(c * z, 1)[1]).abs().max())
            require(worst < 1e-13, f"{self.name}: a row violates the condition for constant N by {worst:.1e}")
        Tableau(
            self.name, [[_at_zero(w) for w in r] for r in self.a], [_at_zero(w) for w in self.b], self.order, self.c
        )

    @staticmethod
    def entry(weight: Weight, z: Tensor) -> Tensor:
        """Return a coefficient at ``z``, entry by entry."""
        return sum((w * phi(c * z, k)[k] for (k, c), w in weight.items()), torch.zeros_like(z))

    @cached_property
    def highest(self) -> int:
        """The largest index of a phi function."""
        return max(k for row in (*self.a, self.b) for weight in row for k, _ in weight)

    @cached_property
    def entries(self) -> tuple[Weight, ...]:
        """The coefficients that are not zero, row by row, the weights of the solution last."""
        return tuple(weight for row in (*self.a, self.b) for weight in row if weight)


def _at_zero(weight: Weight) -> float:
    return sum(w / factorial(k) for (k, _), w in weight.items())


@dataclass(frozen=True)
class ExponentialRungeKutta:
    """An exponential Runge-Kutta method for `Semilinear` terms; no error estimate, so steps of one size.

    The linear part is a diagonal (real or complex) or a dense matrix that acts on the last axis. Between the ends of a
    step the solution is the cubic Hermite interpolant, which is poor where ``h |L|`` is large and the solution has not
    settled.

    Args:
        table: its coefficients.
    """

    table: ExponentialTable
    accepts = Semilinear

    @property
    def order(self) -> int:
        """Classical order of accuracy."""
        return self.table.order

    @property
    def error_order(self) -> int:
        """No error estimate."""
        return 0

    @property
    def dense_order(self) -> int:
        """Order of accuracy inside a step; never above that of the step itself."""
        return min(self.table.order, 3)

    def start(self, terms: Semilinear, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return nothing: the coefficients need the step size."""
        return ()

    def step(self, terms: Semilinear, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step and its interpolant."""
        table = self.table
        known = state if state and torch.equal(state[0], h) else (h.clone(), *self._coefficients(terms, h, y))
        powers, rest = known[1 : len(table.c) + 1], list(known[len(table.c) + 1 :])
        slopes = [terms.rest(t, y)]
        ends = []
        for power, c, row in zip(powers, (*table.c[1:], None), (*table.a, table.b), strict=True):
            total = None
            for weight, slope in zip(row, slopes, strict=True):
                if weight:
                    part = _applied(terms, rest.pop(0), slope)
                    total = part if total is None else total + part
            assert total is not None
            ends.append(torch.addcmul(_applied(terms, power, y), total, h))
            if c is not None:
                slopes.append(terms.rest(t + c * h, ends[-1]))
        y1 = ends[-1]
        dense = LateEnd(terms, t, h, y, y1, terms.apply(y) + slopes[0])
        return Step(y1, None, dense, known, known, len(slopes))

    def _coefficients(self, terms: Semilinear, h: Tensor, y: Tensor) -> list[Tensor]:
        """Return ``e^{c_i z}`` for all rows but the first, ``e^z``, and the coefficients that are not zero, row by row."""
        table = self.table
        z = (h[..., None] if h.ndim and terms.dense else h) * linear_part(terms, y)
        make = matrix_phi if terms.dense else phi
        times = {c for weight in table.entries for _, c in weight} | {*table.c[1:], 1.0}
        values = {c: make(c * z, table.highest) for c in times}
        found = [values[c][0] for c in (*table.c[1:], 1.0)]
        for weight in table.entries:
            found.append(sum(w * values[c][k] for (k, c), w in weight.items()))  # type: ignore[arg-type]
        return found


def _applied(terms: Semilinear, coefficient: Tensor, v: Tensor) -> Tensor:
    return (coefficient @ v[..., None])[..., 0] if terms.dense else coefficient * v


def _table(
    name: str, order: int, c: Sequence[float], a: Sequence[Sequence[Weight]], b: Sequence[Weight]
) -> ExponentialTable:
    return ExponentialTable(name, c, a, b, order)


NONE: Weight = {}
FOURTH: tuple[Weight, ...] = (
    {(1, 1.0): 1.0, (2, 1.0): -3.0, (3, 1.0): 4.0},
    {(2, 1.0): 2.0, (3, 1.0): -4.0},
    {(2, 1.0): 2.0, (3, 1.0): -4.0},
    {(2, 1.0): -1.0, (3, 1.0): 4.0},
)
HALF: Weight = {(1, 0.5): 0.5}
ETD1 = _table("ETD1", 1, (0.0,), (), ({(1, 1.0): 1.0},))
ETD2 = _table("ETD2RK", 2, (0.0, 1.0), (({(1, 1.0): 1.0},),), ({(1, 1.0): 1.0, (2, 1.0): -1.0}, {(2, 1.0): 1.0}))
ETD3 = _table(
    "ETD3RK",
    3,
    (0.0, 0.5, 1.0),
    ((HALF,), ({(1, 1.0): -1.0}, {(1, 1.0): 2.0})),
    (FOURTH[0], {(2, 1.0): 4.0, (3, 1.0): -8.0}, FOURTH[3]),
)
ETD4 = _table(
    "ETD4RK",
    4,
    (0.0, 0.5, 0.5, 1.0),
    ((HALF,), (NONE, HALF), ({(1, 1.0): 1.0, (1, 0.5): -1.0}, NONE, {(1, 0.5): 1.0})),
    FOURTH,
)
THIRD_ROW: tuple[Weight, ...] = ({(1, 0.5): 0.5, (2, 0.5): -1.0}, {(2, 0.5): 1.0})
ETD4B = _table(
    "ETDRK4-B",
    4,
    (0.0, 0.5, 0.5, 1.0),
    ((HALF,), THIRD_ROW, ({(1, 1.0): 1.0, (2, 1.0): -2.0}, NONE, {(2, 1.0): 2.0})),
    FOURTH,
)
SHARED: Weight = {(2, 0.5): 0.5, (3, 1.0): -1.0, (2, 1.0): 0.25, (3, 0.5): -0.5}
LAST_ROW: tuple[Weight, ...] = (
    {(1, 0.5): 0.5, (2, 0.5): -0.75, (3, 1.0): 1.0, (2, 1.0): -0.25, (3, 0.5): 0.5},
    SHARED,
    SHARED,
    {(2, 0.5): -0.25, (3, 1.0): 1.0, (2, 1.0): -0.25, (3, 0.5): 0.5},
)
STIFF4 = _table(
    "Hochbruck-Ostermann 4",
    4,
    (0.0, 0.5, 0.5, 1.0, 0.5),
    (
        (HALF,),
        THIRD_ROW,
        ({(1, 1.0): 1.0, (2, 1.0): -2.0}, {(2, 1.0): 1.0}, {(2, 1.0): 1.0}),
        LAST_ROW,
    ),
    (FOURTH[0], NONE, NONE, FOURTH[3], {(2, 1.0): 4.0, (3, 1.0): -8.0}),
)


@NORSETT.variant(order=1)
@dataclass(frozen=True)
class ETDRK1(ExponentialRungeKutta):
    """Exponential Euler: order 1 (stiff order 1), one evaluation a step. Not for accuracy. Source: Norsett (1969)."""

    table: ExponentialTable = field(default=ETD1, init=False, repr=False)


@METHOD.variant(order=2)
@dataclass(frozen=True)
class ETDRK2(ExponentialRungeKutta):
    """Cox and Matthews' ETD2RK: order 2 (stiff order 2), two evaluations a step. Source: J. Comput. Phys. 176 (2002) 430."""

    table: ExponentialTable = field(default=ETD2, init=False, repr=False)


@METHOD.variant(order=3)
@dataclass(frozen=True)
class ETDRK3(ExponentialRungeKutta):
    """Cox and Matthews' ETD3RK: order 3, three evaluations a step. Source: J. Comput. Phys. 176 (2002) 430."""

    table: ExponentialTable = field(default=ETD3, init=False, repr=False)


@METHOD.variant(order=4)
@dataclass(frozen=True)
class ETDRK4(ExponentialRungeKutta):
    """Cox and Matthews' ETD4RK: order 4 (stiff order 2), four evaluations a step.

    Here with phi functions that do not cancel, as Kassam and Trefethen (SIAM J. Sci. Comput. 26 (2005) 1214) found
    necessary. Not for boundary conditions that the nonlinear part does not obey. Source: J. Comput. Phys. 176 (2002)
    430.
    """

    table: ExponentialTable = field(default=ETD4, init=False, repr=False)


@KROGSTAD.variant(order=4)
@dataclass(frozen=True)
class Krogstad4(ExponentialRungeKutta):
    """Krogstad's ETDRK4-B: order 4 (stiff order 3), four evaluations a step. Source: J. Comput. Phys. 203 (2005) 72."""

    table: ExponentialTable = field(default=ETD4B, init=False, repr=False)


@HOCHBRUCK.variant(order=4)
@dataclass(frozen=True)
class HochbruckOstermann4(ExponentialRungeKutta):
    """Hochbruck and Ostermann's method: order 4 (stiff order 4), five evaluations a step.

    Source: SIAM J. Numer. Anal. 43 (2005) 1069.
    """

    table: ExponentialTable = field(default=STIFF4, init=False, repr=False)
