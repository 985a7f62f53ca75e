r"""The classical Runge-Kutta method of order 4 (Kutta 1901)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "rk4",
    "Classical Runge-Kutta",
    "Beitrag zur naeherungsweisen Integration totaler Differentialgleichungen",
    "Kutta",
    1901,
    "",
    room="integrators.methods",
    when="Fixed steps, smooth fields, four evaluations a step.",
)

TABLEAU = Tableau(
    "Classical Runge-Kutta",
    a=((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    order=4,
)


@METHOD.variant(order=4)
class RK4(ExplicitRungeKutta):
    """The classical method: order 4, four evaluations a step, no error estimate, stable on the real axis down to -2.785.

    Not where steps should adapt: it has no error estimate. States inside a step come from the cubic Hermite
    interpolant and cost one evaluation more. Source: Zeitschrift fuer Mathematik und Physik 46 (1901) 435.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
