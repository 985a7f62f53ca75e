r"""Kvaerno's 5(4) ESDIRK pair with gamma = 0.26."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "kvaerno5",
    "Kvaerno 5(4)",
    "Singly diagonally implicit Runge-Kutta methods with an explicit first stage",
    "Kvaerno",
    2004,
    "",
    room="integrators.methods",
    when="Stiff equations at tolerances below 1e-4.",
)

G = 0.26
TABLEAU = Tableau(
    "Kvaerno 5(4)",
    a=(
        (0.0,),
        (G, G),
        (0.13, 0.84033320996790809, G),
        (0.22371961478320505, 0.47675532319799699, -0.06470895363112615, G),
        (0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998, G),
        (0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676, G),
        (
            0.13659751177640291,
            0.0,
            -0.05496908796538376,
            -0.04118626728321046,
            0.62993304899016403,
            0.06962479448202728,
            G,
        ),
    ),
    b=(
        0.13659751177640291,
        0.0,
        -0.05496908796538376,
        -0.04118626728321046,
        0.62993304899016403,
        0.06962479448202728,
        G,
    ),
    c=(0.0, 0.52, 1.23033320996790809, 0.89576598435007588, 0.43639360985864756, 1.0, 1.0),
    order=5,
    error=(
        0.13659751177640291 - 0.13855640231268224,
        0.0,
        -0.05496908796538376 + 0.04245337201752043,
        -0.04118626728321046 - 0.02446657898003141,
        0.62993304899016403 - 0.61943039072480676,
        0.06962479448202728 - G,
        G,
    ),
    embedded_order=4,
)


@METHOD.variant(order=5)
@dataclass(frozen=True)
class Kvaerno5(ESDIRK):
    """Kvaerno's pair 5(4): seven stages, six of them implicit, L-stable and stiffly accurate, error estimate of order 4.

    A step costs one to three evaluations for each of its six implicit stages, and a Jacobian (n evaluations) and its
    factors now and then. The third stage lies 0.23 h past the end of the step. The interpolant is the cubic Hermite
    one. On stiff equations whose fast part is forced the order seen may fall to 2 (the stage order). Not for equations
    that are not stiff. Source: BIT 44 (2004) 489.

    Args:
        solver: of the implicit stages.
    """

    tableau: Tableau = field(default=TABLEAU, init=False, repr=False)
