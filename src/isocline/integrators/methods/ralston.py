r"""Ralston's method 2(1): of all with two stages, the one with the smallest bound on its local error (Ralston 1962)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "ralston",
    "Ralston 2(1)",
    "Runge-Kutta methods with minimum error bounds",
    "Ralston",
    1962,
    "",
    room="integrators.methods",
    when="Fixed steps with two evaluations, smooth fields.",
)

TABLEAU = Tableau(
    "Ralston 2(1)",
    a=((2 / 3,),),
    b=(1 / 4, 3 / 4),
    order=2,
    error=(-3 / 4, 3 / 4),
    embedded_order=1,
)


@METHOD.variant(order=2)
class Ralston(ExplicitRungeKutta):
    """Ralston's method: order 2, error estimate of order 1, two evaluations a step.

    Not for tolerances below 1e-3. States inside a step come from the cubic Hermite interpolant and cost one
    evaluation more. Source: Mathematics of Computation 16 (1962) 431.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
