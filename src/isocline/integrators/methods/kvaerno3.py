r"""Kvaerno's 3(2) ESDIRK pair; gamma is the root of 6 g^3 - 18 g^2 + 9 g - 1 that makes it L-stable."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "kvaerno3",
    "Kvaerno 3(2)",
    "Singly diagonally implicit Runge-Kutta methods with an explicit first stage",
    "Kvaerno",
    2004,
    "",
    room="integrators.methods",
    when="Stiff equations at tolerances above 1e-4.",
)

G = 0.4358665215084590
SECOND = ((-4 * G**2 + 6 * G - 1) / (4 * G), (1 - 2 * G) / (4 * G), G)
THIRD = ((6 * G - 1) / (12 * G), -1 / ((24 * G - 12) * G), (-6 * G**2 + 6 * G - 1) / (6 * G - 3), G)
TABLEAU = Tableau(
    "Kvaerno 3(2)",
    a=((0.0,), (G, G), SECOND, THIRD),
    b=THIRD,
    c=(0.0, 2 * G, 1.0, 1.0),
    order=3,
    error=(THIRD[0] - SECOND[0], THIRD[1] - SECOND[1], THIRD[2] - G, G),
    embedded_order=2,
)


@METHOD.variant(order=3)
@dataclass(frozen=True)
class Kvaerno3(ESDIRK):
    """Kvaerno's pair 3(2): four stages, three of them implicit, L-stable and stiffly accurate, error estimate of order 2.

    A step costs one to three evaluations for each of its three implicit stages, and a Jacobian (n evaluations) and its
    factors now and then. The interpolant is the cubic Hermite one. Not for tight tolerances. Source: BIT 44 (2004) 489.

    Args:
        solver: of the implicit stages.
    """

    tableau: Tableau = field(default=TABLEAU, init=False, repr=False)
