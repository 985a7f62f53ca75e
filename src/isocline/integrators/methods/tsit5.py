r"""Tsitouras 5(4): a pair chosen for small error coefficients, with a free interpolant of order 4 (Tsitouras 2011)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "tsit5",
    "Tsitouras 5(4)",
    "Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption",
    "Tsitouras",
    2011,
    "",
    room="integrators.methods",
    when="Non-stiff equations at tolerances from 1e-3 to 1e-8; usually fewer evaluations than Dopri5.",
)

TABLEAU = Tableau(
    "Tsitouras 5(4)",
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    b=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    order=5,
    error=(
        0.0017800110522257714,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -0.015151515151515152,
    ),
    embedded_order=4,
    powers=(
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (
            -2.763706197274826,
            0.13169999999999998,
            3.9302962368947516,
            -12.411077166933676,
            37.50931341651104,
            -27.896526289197286,
            1.5,
        ),
        (
            2.9132554618219126,
            -0.2234,
            -5.941033872131505,
            30.33818863028232,
            -88.1789048947664,
            65.09189467479366,
            -4.0,
        ),
        (
            -1.0530884977290216,
            0.1017,
            2.490627285651253,
            -16.548102889244902,
            47.37952196281928,
            -34.87065786149661,
            2.5,
        ),
    ),
    dense_order=4,
)


@METHOD.variant(order=5)
class Tsit5(ExplicitRungeKutta):
    """Tsitouras' pair: order 5, error estimate of order 4, six evaluations a step, interpolant of order 4 without further ones.

    Not for stiff equations. Source: Computers and Mathematics with Applications 62 (2011) 770.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
