r"""SRA1, a stochastic Runge-Kutta method for additive noise (Roessler 2010).

y_1 = y + h (1/3 f(y) + 2/3 f(y + 3/4 h f(y) + g (3/4 W + 3/2 H))) + g W
"""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.additive import AdditiveRungeKutta

METHOD = Method(
    "sra1",
    "SRA1",
    "Runge-Kutta methods for the strong approximation of solutions of stochastic differential equations",
    "Rößler",
    2010,
    "",
    room="integrators.methods",
    when="Additive noise, as an alternative to ShARK whose first stage is the state itself.",
)


@METHOD.variant(order=2)
class SRA1(AdditiveRungeKutta):
    """SRA1: strong order 3/2 for additive noise with two slopes a step. Source: Rößler, SIAM J. Numer. Anal. 48 (2010) 922."""

    def __init__(self) -> None:
        super().__init__(a=3 / 4, b=(1 / 3, 2 / 3), p=(0.0, 3 / 4), q=(0.0, 3 / 2))
