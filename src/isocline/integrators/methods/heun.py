r"""Heun's method 2(1): the trapezoidal rule, predicted by an Euler step, which is the embedded solution too (Heun 1900)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "heun",
    "Heun 2(1)",
    "Neue Methoden zur approximativen Integration der Differentialgleichungen einer unabhaengigen Veraenderlichen",
    "Heun",
    1900,
    "",
    room="integrators.methods",
    when="Rough tolerances, 1e-1 to 1e-2, or fixed steps with two evaluations.",
)

TABLEAU = Tableau(
    "Heun 2(1)",
    a=((1.0,),),
    b=(1 / 2, 1 / 2),
    order=2,
    error=(-1 / 2, 1 / 2),
    embedded_order=1,
)


@METHOD.variant(order=2)
class Heun(ExplicitRungeKutta):
    """Heun's method: order 2, error estimate of order 1, two evaluations a step.

    It is strong-stability preserving. Not for tolerances below 1e-3. States inside a step come from the cubic Hermite
    interpolant and cost one evaluation more. Source: Zeitschrift fuer Mathematik und Physik 45 (1900) 23.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
