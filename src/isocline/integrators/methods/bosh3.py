r"""Bogacki-Shampine 3(2) (Bogacki and Shampine 1989)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "bosh3",
    "Bogacki-Shampine 3(2)",
    "A 3(2) pair of Runge-Kutta formulas",
    "Bogacki, Shampine",
    1989,
    "",
    room="integrators.methods",
    when="Tolerances above 1e-3, fields of low smoothness, mildly stiff equations.",
)

TABLEAU = Tableau(
    "Bogacki-Shampine 3(2)",
    a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    order=3,
    error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    embedded_order=2,
)


@METHOD.variant(order=3)
class Bosh3(ExplicitRungeKutta):
    """Bogacki and Shampine's pair: order 3, error estimate of order 2, three evaluations a step.

    Not for tolerances below 1e-4. The cubic Hermite interpolant costs nothing, as both slopes are known.
    Source: Applied Mathematics Letters 2 (1989) 321.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
