r"""RODAS: an L-stable, stiffly accurate Rosenbrock method of order 4(3) with an interpolant of order 3."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.rosenbrock import Rosenbrock, RosenbrockTableau

METHOD = Method(
    "rodas4",
    "RODAS4",
    "Solving Ordinary Differential Equations II",
    "Hairer, Wanner",
    1996,
    "",
    room="integrators.methods",
    when="Stiff equations at moderate tolerances, where nothing shall be iterated.",
)

M = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950, 1.0, 1.0)
H2 = (10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662, 0.0)
H3 = (-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872, 0.0)
TABLEAU = RosenbrockTableau(
    "RODAS4",
    0.25,
    a=(
        (1.544,),
        (0.9466785280815826, 0.2557011698983284),
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        M[:4],
        M[:5],
    ),
    c=(
        (-5.6688,),
        (-2.430093356833875, -0.2063599157091915),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
        (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
    ),
    m=M,
    order=4,
    error=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    embedded_order=3,
    powers=(
        tuple(m + a for m, a in zip(M, H2, strict=True)),
        tuple(b - a for a, b in zip(H2, H3, strict=True)),
        tuple(-b for b in H3),
    ),
    dense_order=3,
)


@METHOD.variant(order=4)
@dataclass(frozen=True)
class Rodas4(Rosenbrock):
    """RODAS: order 4, six stages, L-stable and stiffly accurate, error estimate and interpolant of order 3.

    A step costs six evaluations, a Jacobian (n evaluations), a derivative by time (one) and one factorisation. The
    order seen falls where stiff parts are forced in time. Source: Hairer, Wanner, "Solving Ordinary Differential
    Equations II", chapter IV.7.
    """

    tableau: RosenbrockTableau = field(default=TABLEAU, init=False, repr=False)
