r"""Kvaerno's 4(3) ESDIRK pair; gamma is the root of 24 g^4 - 96 g^3 + 72 g^2 - 16 g + 1 that makes it L-stable."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "kvaerno4",
    "Kvaerno 4(3)",
    "Singly diagonally implicit Runge-Kutta methods with an explicit first stage",
    "Kvaerno",
    2004,
    "",
    room="integrators.methods",
    when="Stiff equations at moderate tolerances.",
)

G = 0.572816062482135
P = 12 * G**2 - 6 * G + 1
Q = 12 * G**2 - 9 * G + 2
R = 3 * G - 1
SECOND = (
    (144 * G**4 - 180 * G**3 + 81 * G**2 - 15 * G + 1) * G / P**2,
    (-36 * G**3 + 39 * G**2 - 15 * G + 2) * G / P**2,
    G,
)
THIRD = (
    (-144 * G**5 + 396 * G**4 - 330 * G**3 + 117 * G**2 - 18 * G + 1) / (12 * G**2 * Q),
    (72 * G**4 - 126 * G**3 + 69 * G**2 - 15 * G + 1) / (12 * G**2 * R),
    (-6 * G**2 + 6 * G - 1) * P**2 / (12 * G**2 * Q * R),
    G,
)
FOURTH = (
    (288 * G**4 - 312 * G**3 + 120 * G**2 - 18 * G + 1) / (48 * G**2 * Q),
    (24 * G**2 - 12 * G + 1) / (48 * G**2 * R),
    -(P**3) / (48 * G**2 * R * Q * (6 * G**2 - 6 * G + 1)),
    (-24 * G**3 + 36 * G**2 - 12 * G + 1) / (24 * G**2 - 24 * G + 4),
    G,
)
TABLEAU = Tableau(
    "Kvaerno 4(3)",
    a=((0.0,), (G, G), SECOND, THIRD, FOURTH),
    b=FOURTH,
    c=(0.0, 2 * G, sum(SECOND), 1.0, 1.0),
    order=4,
    error=(*(a - b for a, b in zip(FOURTH, (*THIRD, 0.0), strict=True)),),
    embedded_order=3,
)


@METHOD.variant(order=4)
@dataclass(frozen=True)
class Kvaerno4(ESDIRK):
    """Kvaerno's pair 4(3): five stages, four of them implicit, L-stable and stiffly accurate, error estimate of order 3.

    A step costs one to three evaluations for each of its four implicit stages, and a Jacobian (n evaluations) and its
    factors now and then. The second stage lies 0.15 h past the end of the step. The interpolant is the cubic Hermite
    one. Not for equations that are not stiff. Source: BIT 44 (2004) 489.

    Args:
        solver: of the implicit stages.
    """

    tableau: Tableau = field(default=TABLEAU, init=False, repr=False)
