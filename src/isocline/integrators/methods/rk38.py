r"""Kutta's 3/8 rule of order 4 (Kutta 1901): mostly smaller error coefficients than the classical method."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "rk38",
    "Kutta's 3/8 rule",
    "Beitrag zur naeherungsweisen Integration totaler Differentialgleichungen",
    "Kutta",
    1901,
    "",
    room="integrators.methods",
    when="As the classical method; what other libraries often mean by rk4.",
)

TABLEAU = Tableau(
    "Kutta's 3/8 rule",
    a=((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    order=4,
)


@METHOD.variant(order=4)
class RK38(ExplicitRungeKutta):
    """The 3/8 rule: order 4, four evaluations a step, no error estimate.

    Not where steps should adapt: it has no error estimate. States inside a step come from the cubic Hermite
    interpolant and cost one evaluation more. Source: Zeitschrift fuer Mathematik und Physik 46 (1901) 435.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
