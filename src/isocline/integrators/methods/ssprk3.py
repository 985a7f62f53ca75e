r"""The strong-stability-preserving method with three stages and order 3 (Shu and Osher 1988).

Written as convex combinations of Euler steps it keeps every convex bound (positivity, total variation) that one Euler
step of the same size keeps; its coefficient is 1.
"""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "ssprk3",
    "SSPRK(3,3)",
    "Efficient implementation of essentially non-oscillatory shock-capturing schemes",
    "Shu, Osher",
    1988,
    "",
    room="integrators.methods",
    when="Semi-discrete conservation laws, where Euler steps keep a bound that must not be lost.",
)

TABLEAU = Tableau(
    "SSPRK(3,3)",
    a=((1.0,), (1 / 4, 1 / 4)),
    b=(1 / 6, 1 / 6, 2 / 3),
    order=3,
)


@METHOD.variant(order=3)
class SSPRK3(ExplicitRungeKutta):
    """The method of Shu and Osher: order 3, three evaluations a step, no error estimate.

    Not where steps should adapt, and not for smooth solutions, where RK4 is more accurate. The cubic Hermite
    interpolant costs one evaluation more and does not keep bounds. Source: Journal of Computational Physics 77 (1988)
    439.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
