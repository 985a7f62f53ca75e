r"""Heun's method for SDEs: with ``z = y + h f + g W``, ``y + h (f + f(z)) / 2 + (g + g(z)) W / 2`` (Ruemelin 1982)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.stochastic import Part, StochasticRungeKutta, StochasticTableau

METHOD = Method(
    "stochastic-heun",
    "Stochastic Heun",
    "Numerical treatment of stochastic differential equations",
    "Rümelin",
    1982,
    "",
    room="integrators.methods",
    when="Stratonovich SDEs with fixed steps; the simplest method with an error estimate.",
)

PART = Part(((1.0,),), (0.5, 0.5), (-0.5, 0.5))
TABLEAU = StochasticTableau("Stochastic Heun", PART, PART)


@METHOD.variant(order=1)
class StochasticHeun(StochasticRungeKutta):
    """Heun's method for Stratonovich SDEs: two evaluations of each of drift and diffusion, error estimate from Euler's step.

    Strong order 1 for additive, diagonal and commutative noise, 1/2 for general noise. Source: Rümelin, SIAM J. Numer. Anal. 19
    (1982) 604.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
