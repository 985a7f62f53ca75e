r"""The explicit midpoint rule 2(1), with an Euler step as embedded solution (Runge 1895)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "midpoint",
    "Midpoint 2(1)",
    "Ueber die numerische Aufloesung von Differentialgleichungen",
    "Runge",
    1895,
    "",
    room="integrators.methods",
    when="Fixed steps with two evaluations, where the field should not be evaluated at the end of the span.",
)

TABLEAU = Tableau(
    "Midpoint 2(1)",
    a=((1 / 2,),),
    b=(0.0, 1.0),
    order=2,
    error=(-1.0, 1.0),
    embedded_order=1,
)


@METHOD.variant(order=2)
class Midpoint(ExplicitRungeKutta):
    """The explicit midpoint rule: order 2, error estimate of order 1, two evaluations a step.

    Not for tolerances below 1e-3. States inside a step come from the cubic Hermite interpolant and cost one
    evaluation more. Source: Mathematische Annalen 46 (1895) 167.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
