r"""SPaRK, the splitting path Runge-Kutta method (Foster, arXiv 2311.14201).

Three stages follow a path made of straight pieces with the increment and the area of the Brownian path.
"""

from __future__ import annotations

from collections.abc import Mapping

from isocline._core.registry import Method
from isocline.integrators.methods.stochastic import Part, StochasticRungeKutta, StochasticTableau

METHOD = Method(
    "spark",
    "SPaRK",
    "On the convergence of adaptive approximations for stochastic differential equations",
    "Foster, Jelinčič",
    2023,
    "2311.14201",
    room="integrators.methods",
    when="Adaptive steps for Stratonovich SDEs with any noise.",
)

ROOT = 3**0.5
END = (3 - ROOT) / 6
MAIN = (END, ROOT / 3, END)
DIFFERENCE = (END - 0.5, ROOT / 3, END - 0.5)
TABLEAU = StochasticTableau(
    "SPaRK",
    drift=Part(((0.5,), (0.0, 1.0)), MAIN, DIFFERENCE),
    increment=Part(((0.5,), (0.0, 1.0)), MAIN, DIFFERENCE),
    area=Part(((ROOT,), (0.0, 0.0)), (1.0, 0.0, -1.0), (1.0, 0.0, -1.0)),
)


@METHOD.variant(order=1)
class SPaRK(StochasticRungeKutta):
    """SPaRK: three evaluations of each of drift and diffusion, embedded error estimate, reads the space-time area.

    Strong order 3/2 for additive noise, 1 for diagonal and commutative noise, 1/2 for general noise. For fixed steps and
    additive noise `ShARK` has two stages. Source: Foster and Jelinčič, arXiv 2311.14201.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)

    @property
    def strong(self) -> Mapping[str, float]:
        """Strong order for each kind of noise."""
        return {"additive": 1.5, "diagonal": 1.0, "commutative": 1.0, "general": 0.5}
