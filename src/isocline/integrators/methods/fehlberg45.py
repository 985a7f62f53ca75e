r"""Fehlberg 4(5): the solution of order 4 goes on, the one of order 5 estimates its error (Fehlberg 1969)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "fehlberg45",
    "Fehlberg 4(5)",
    "Low-order classical Runge-Kutta formulas with stepsize control",
    "Fehlberg",
    1969,
    "",
    room="integrators.methods",
    when="To repeat results obtained with RKF45; for new work take Tsit5.",
)

TABLEAU = Tableau(
    "Fehlberg 4(5)",
    a=(
        (1 / 4,),
        (3 / 32, 9 / 32),
        (1932 / 2197, -7200 / 2197, 7296 / 2197),
        (439 / 216, -8.0, 3680 / 513, -845 / 4104),
        (-8 / 27, 2.0, -3544 / 2565, 1859 / 4104, -11 / 40),
    ),
    b=(25 / 216, 0.0, 1408 / 2565, 2197 / 4104, -1 / 5, 0.0),
    c=(0.0, 1 / 4, 3 / 8, 12 / 13, 1.0, 1 / 2),
    order=4,
    error=(-1 / 360, 0.0, 128 / 4275, 2197 / 75240, -1 / 50, -2 / 55),
    embedded_order=5,
)


@METHOD.variant(order=4)
class Fehlberg45(ExplicitRungeKutta):
    """Fehlberg's pair: order 4, error estimate with a solution of order 5, six evaluations a step.

    Not for new work: pairs that go on with the solution of higher order are more accurate for the same evaluations.
    States inside a step come from the cubic Hermite interpolant and cost one evaluation more. Source: NASA TR R-315
    (1969).
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
