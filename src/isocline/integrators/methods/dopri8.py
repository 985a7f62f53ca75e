r"""Dormand-Prince 8(5,3): order 8 with two error estimates and an interpolant of order 7 (DOP853).

The pair of Prince and Dormand (1981) with the embedded solutions and the interpolant of Hairer, Norsett and Wanner
(I, chapter II.10). With ``e5`` the difference to an embedded solution of order 5 and ``e3`` that to one of order 3,
the estimate is

    e = e5 |e5| / sqrt(|e5|^2 + 0.01 |e3|^2) ,      of size h^8, as h^6 h^6 / h^4

with Euclidean norms over the state, of each sample where samples have steps of their own. Hairer's program takes the
norms in units of what is tolerated: the two are the same where all components are tolerated alike. Combined component
by component instead, the estimate would be larger (Cauchy-Schwarz): by 10 % in evaluations on the problems of
`benchmarks/ode_work_precision.py`.

The interpolant reads three more stages. They are evaluated only in steps of which an inside state is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta, combined
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "dopri8",
    "Dormand-Prince 8(5,3)",
    "Solving Ordinary Differential Equations I: Nonstiff Problems",
    "Hairer, Norsett, Wanner",
    1993,
    "",
    room="integrators.methods",
    when="Smooth non-stiff equations at tolerances below 1e-6.",
)

TABLEAU = Tableau(
    "Dormand-Prince 8(5,3)",
    a=(
        (0.05260015195876773,),
        (0.0197250569845379, 0.0591751709536137),
        (0.02958758547680685, 0.0, 0.08876275643042054),
        (0.2413651341592667, 0.0, -0.8845494793282861, 0.924834003261792),
        (0.037037037037037035, 0.0, 0.0, 0.17082860872947386, 0.12546768756682242),
        (0.037109375, 0.0, 0.0, 0.17025221101954405, 0.06021653898045596, -0.017578125),
        (
            0.03709200011850479,
            0.0,
            0.0,
            0.17038392571223998,
            0.10726203044637328,
            -0.015319437748624402,
            0.008273789163814023,
        ),
        (
            0.6241109587160757,
            0.0,
            0.0,
            -3.3608926294469414,
            -0.868219346841726,
            27.59209969944671,
            20.154067550477894,
            -43.48988418106996,
        ),
        (
            0.47766253643826434,
            0.0,
            0.0,
            -2.4881146199716677,
            -0.590290826836843,
            21.230051448181193,
            15.279233632882423,
            -33.28821096898486,
            -0.020331201708508627,
        ),
        (
            -0.9371424300859873,
            0.0,
            0.0,
            5.186372428844064,
            1.0914373489967295,
            -8.149787010746927,
            -18.52006565999696,
            22.739487099350505,
            2.4936055526796523,
            -3.0467644718982196,
        ),
        (
            2.273310147516538,
            0.0,
            0.0,
            -10.53449546673725,
            -2.0008720582248625,
            -17.9589318631188,
            27.94888452941996,
            -2.8589982771350235,
            -8.87285693353063,
            12.360567175794303,
            0.6433927460157636,
        ),
        (
            0.054293734116568765,
            0.0,
            0.0,
            0.0,
            0.0,
            4.450312892752409,
            1.8915178993145003,
            -5.801203960010585,
            0.3111643669578199,
            -0.1521609496625161,
            0.20136540080403034,
            0.04471061572777259,
        ),
        (
            0.056167502283047954,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.25350021021662483,
            -0.2462390374708025,
            -0.12419142326381637,
            0.15329179827876568,
            0.00820105229563469,
            0.007567897660545699,
            -0.008298,
        ),
        (
            0.03183464816350214,
            0.0,
            0.0,
            0.0,
            0.0,
            0.028300909672366776,
            0.053541988307438566,
            -0.05492374857139099,
            0.0,
            0.0,
            -0.00010834732869724932,
            0.0003825710908356584,
            -0.00034046500868740456,
            0.1413124436746325,
        ),
        (
            -0.42889630158379194,
            0.0,
            0.0,
            0.0,
            0.0,
            -4.697621415361164,
            7.683421196062599,
            4.06898981839711,
            0.3567271874552811,
            0.0,
            0.0,
            0.0,
            -0.0013990241651590145,
            2.9475147891527724,
            -9.15095847217987,
        ),
    ),
    b=(
        0.054293734116568765,
        0.0,
        0.0,
        0.0,
        0.0,
        4.450312892752409,
        1.8915178993145003,
        -5.801203960010585,
        0.3111643669578199,
        -0.1521609496625161,
        0.20136540080403034,
        0.04471061572777259,
        0.0,
        0.0,
        0.0,
        0.0,
    ),
    c=(
        0.0,
        0.05260015195876773,
        0.0789002279381516,
        0.1183503419072274,
        0.2816496580927726,
        0.3333333333333333,
        0.25,
        0.3076923076923077,
        0.6512820512820513,
        0.6,
        0.8571428571428571,
        1.0,
        1.0,
        0.1,
        0.2,
        0.7777777777777778,
    ),
    order=8,
    error=(
        0.01312004499419488,
        0.0,
        0.0,
        0.0,
        0.0,
        -1.2251564463762044,
        -0.4957589496572502,
        1.6643771824549864,
        -0.35032884874997366,
        0.3341791187130175,
        0.08192320648511571,
        -0.022355307863886294,
        0.0,
        0.0,
        0.0,
        0.0,
    ),
    embedded_order=5,
    powers=(
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (
            -10.266057073759306,
            0.0,
            0.0,
            0.0,
            0.0,
            13.917653631776604,
            2.6056037519936095,
            -15.018944223519684,
            3.050527683318488,
            -1.3278744327655212,
            2.844533632672879,
            0.7657106259527866,
            -1.0889903364513334,
            18.148505520854727,
            -9.194632392478356,
            -4.436036387594894,
        ),
        (
            48.161850968566455,
            0.0,
            0.0,
            0.0,
            0.0,
            -154.78787266663716,
            -21.622822384626506,
            160.09447708973047,
            -38.54396729189063,
            16.661770430049543,
            -36.55829548991012,
            -9.906995535619366,
            14.097013042320002,
            -127.63310949253875,
            93.3567459327894,
            56.68120539776666,
        ),
        (
            -114.93304874997833,
            0.0,
            0.0,
            0.0,
            0.0,
            522.9219089608218,
            2.535182028966755,
            -474.3071826037644,
            174.47140009219885,
            -74.44027814126304,
            170.69007169147514,
            46.8029919188744,
            -66.68230591294363,
            357.3419516129657,
            -282.6272618704363,
            -261.77342902691703,
        ),
        (
            147.46446875669767,
            0.0,
            0.0,
            0.0,
            0.0,
            -456.25918840208783,
            292.25417465990404,
            135.96036916173838,
            -337.0513470238771,
            140.75210016191608,
            -345.9748485480496,
            -96.5198694669957,
            137.96299063474376,
            -500.7031507909224,
            361.14007718803333,
            520.9742236688993,
        ),
        (
            -97.06685363011368,
            0.0,
            0.0,
            0.0,
            0.0,
            -75.53193732135753,
            -505.40999933296894,
            545.1091945264187,
            291.78987509083254,
            -119.2562021040512,
            313.299553623578,
            88.74316650017616,
            -127.82216401767992,
            349.17035710882897,
            -201.85219053352347,
            -461.17279991013964,
        ),
        (
            25.69393346270375,
            0.0,
            0.0,
            0.0,
            0.0,
            154.18974869023643,
            231.5293791760455,
            -357.6391179106141,
            -93.40532418362432,
            37.45832313645163,
            -104.0996495089623,
            -29.8402934266605,
            43.53345659001114,
            -96.32455395918828,
            39.17726167561544,
            149.72683625798564,
        ),
    ),
    dense_order=7,
    late=3,
)

# weights of the difference to the embedded solution of order 3
THIRD = (
    -0.18980075407240762,
    0.0,
    0.0,
    0.0,
    0.0,
    4.450312892752409,
    1.8915178993145003,
    -5.801203960010585,
    -0.42268232132379197,
    -0.1521609496625161,
    0.20136540080403034,
    0.022651792198360825,
    0.0,
)


@METHOD.variant(order=8)
class Dopri8(ExplicitRungeKutta):
    """Dormand and Prince's method: order 8, twelve evaluations a step, error estimate of size h^8, interpolant of order 7.

    Not for stiff equations, for fields of low smoothness, or in float32, where its error sinks below rounding. A step
    of which an inside state is asked for costs three evaluations more. Source: Hairer, Norsett, Wanner, Solving ODEs
    I (1993), chapter II.10; Prince and Dormand, J. Comput. Appl. Math. 7 (1981) 67.
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)

    @property
    def error_order(self) -> int:
        """Power of h in the error estimate."""
        return 8

    @property
    def plain_error(self) -> bool:
        """False: the estimate is not a sum of stages."""
        return False

    def error(self, h: Tensor, k: Sequence[Tensor]) -> Tensor:
        """Return the combined estimate, shape (*)."""
        fifth, third = combined(self.tableau.error, k), combined(THIRD, k)
        large, small = _norm(fifth, h), _norm(third, h)
        tiny = torch.finfo(large.dtype).tiny  # no division by zero, neither here nor in the gradient
        return h * fifth * (large / (large.square() + 0.01 * small.square() + tiny).sqrt())


def _norm(x: Tensor, h: Tensor) -> Tensor:
    """Return the Euclidean norm, with axes of length one, of each sample where samples have steps of their own."""
    axes = tuple(range(1 if h.ndim else 0, x.ndim))
    return torch.linalg.vector_norm(x, dim=axes, keepdim=True) if axes else x.abs()
