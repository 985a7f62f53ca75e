r"""Rodas5P: a stiffly accurate Rosenbrock method of order 5(4) with an interpolant of order 4, made for parabolic problems too."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.rosenbrock import Rosenbrock, RosenbrockTableau

METHOD = Method(
    "rodas5p",
    "Rodas5P",
    "Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia Differential Equations package",
    "Steinebach",
    2023,
    "",
    room="integrators.methods",
    when="Stiff equations at tight tolerances, where nothing shall be iterated.",
)

ROW = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)
M = (*ROW, 1.0, 1.0, 1.0)
H2 = (
    25.948786856663858,
    -2.5579724845846235,
    10.433815404888879,
    -2.3679251022685204,
    0.524948541321073,
    1.1241088310450404,
    0.4272876194431874,
    -0.17202221070155493,
)
H3 = (
    -9.91568850695171,
    -0.9689944594115154,
    3.0438037242978453,
    -24.495224566215796,
    20.176138334709044,
    15.98066361424651,
    -6.789040303419874,
    -6.710236069923372,
)
H4 = (
    11.419903575922262,
    2.8879645146136994,
    72.92137995996029,
    80.12511834622643,
    -52.072871366152654,
    -59.78993625266729,
    -0.15582684282751913,
    4.883087185713722,
)
TABLEAU = RosenbrockTableau(
    "Rodas5P",
    0.21193756319429014,
    a=(
        (3.0,),
        (2.849394379747939, 0.45842242204463923),
        (-6.954028509809101, 2.489845061869568, -10.358996098473584),
        (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
        ROW,
        (*ROW, 1.0),
        (*ROW, 1.0, 1.0),
    ),
    c=(
        (-14.155112264123755,),
        (-17.97296035885952, -2.859693295451294),
        (147.12150275711716, -1.41221402718213, 71.68940251302358),
        (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
        (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
        (
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
        ),
        (
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ),
    ),
    m=M,
    order=5,
    error=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    embedded_order=4,
    powers=(
        tuple(m + a for m, a in zip(M, H2, strict=True)),
        tuple(b - a for a, b in zip(H2, H3, strict=True)),
        tuple(c - b for b, c in zip(H3, H4, strict=True)),
        tuple(-c for c in H4),
    ),
    dense_order=4,
)


@METHOD.variant(order=5)
@dataclass(frozen=True)
class Rodas5P(Rosenbrock):
    """Steinebach's Rodas5P: order 5, eight stages, stiffly accurate, error estimate and interpolant of order 4.

    A step costs eight evaluations, a Jacobian (n evaluations), a derivative by time (one) and one factorisation. Its
    coefficients also meet conditions that keep the order on linear parabolic problems. Source: BIT 63 (2023) 27.
    """

    tableau: RosenbrockTableau = field(default=TABLEAU, init=False, repr=False)
