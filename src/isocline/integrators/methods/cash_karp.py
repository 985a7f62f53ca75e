r"""Cash-Karp 5(4) (Cash and Karp 1990)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "cash-karp",
    "Cash-Karp 5(4)",
    "A variable order Runge-Kutta method for initial value problems with rapidly varying right-hand sides",
    "Cash, Karp",
    1990,
    "",
    room="integrators.methods",
    when="To repeat results obtained with it; for new work take Tsit5.",
)

TABLEAU = Tableau(
    "Cash-Karp 5(4)",
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (3 / 10, -9 / 10, 6 / 5),
        (-11 / 54, 5 / 2, -70 / 27, 35 / 27),
        (1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096),
    ),
    b=(37 / 378, 0.0, 250 / 621, 125 / 594, 0.0, 512 / 1771),
    c=(0.0, 1 / 5, 3 / 10, 3 / 5, 1.0, 7 / 8),
    order=5,
    error=(-277 / 64512, 0.0, 6925 / 370944, -6925 / 202752, -277 / 14336, 277 / 7084),
    embedded_order=4,
)


@METHOD.variant(order=5)
class CashKarp(ExplicitRungeKutta):
    """Cash and Karp's pair: order 5, error estimate of order 4, six evaluations a step.

    Its embedded solutions of lower order are not used. States inside a step come from the cubic Hermite interpolant,
    of order 3 only, and cost one evaluation more. Source: ACM TOMS 16 (1990) 201.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
