r"""ShARK, the shifted additive-noise Runge-Kutta method (Foster, dos Reis and Strange, arXiv 2210.17543, equation 6.1).

z = y + g H ,     y_1 = y + h (2/5 f(z) + 3/5 f(z + 5/6 (h f(z) + g W))) + g W
"""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.additive import AdditiveRungeKutta

METHOD = Method(
    "shark",
    "ShARK",
    "High order splitting methods for SDEs satisfying a commutativity condition",
    "Foster, dos Reis, Strange",
    2022,
    "2210.17543",
    room="integrators.methods",
    when="Additive noise, the first choice.",
)


@METHOD.variant(order=2)
class ShARK(AdditiveRungeKutta):
    """ShARK: strong order 3/2 for additive noise with two slopes a step. Source: Foster, dos Reis and Strange, arXiv 2210.17543."""

    def __init__(self) -> None:
        super().__init__(a=5 / 6, b=(2 / 5, 3 / 5), p=(0.0, 5 / 6), q=(1.0, 1.0))
