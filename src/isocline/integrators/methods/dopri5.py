r"""Dormand-Prince 5(4): the pair most libraries start from (Dormand and Prince 1980; interpolant of Shampine 1986, order 4)."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "dopri5",
    "Dormand-Prince 5(4)",
    "A family of embedded Runge-Kutta formulae",
    "Dormand, Prince",
    1980,
    "",
    room="integrators.methods",
    when="Non-stiff equations at tolerances from 1e-3 to 1e-8.",
)

TABLEAU = Tableau(
    "Dormand-Prince 5(4)",
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    order=5,
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    embedded_order=4,
    powers=(
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (
            -8048581381 / 2820520608,
            0.0,
            131558114200 / 32700410799,
            -1754552775 / 470086768,
            127303824393 / 49829197408,
            -282668133 / 205662961,
            40617522 / 29380423,
        ),
        (
            8663915743 / 2820520608,
            0.0,
            -68118460800 / 10900136933,
            14199869525 / 1410260304,
            -318862633887 / 49829197408,
            2019193451 / 616988883,
            -110615467 / 29380423,
        ),
        (
            -12715105075 / 11282082432,
            0.0,
            87487479700 / 32700410799,
            -10690763975 / 1880347072,
            701980252875 / 199316789632,
            -1453857185 / 822651844,
            69997945 / 29380423,
        ),
    ),
    dense_order=4,
)


@METHOD.variant(order=5)
class Dopri5(ExplicitRungeKutta):
    """Dormand and Prince's pair: order 5, error estimate of order 4, six evaluations a step, interpolant of order 4.

    Not for stiff equations. Source: J. Comput. Appl. Math. 6 (1980) 19.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
