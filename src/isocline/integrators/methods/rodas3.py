r"""RODAS3: an L-stable, stiffly accurate Rosenbrock method of order 3(2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.rosenbrock import Rosenbrock, RosenbrockTableau

METHOD = Method(
    "rodas3",
    "RODAS3",
    "Benchmarking stiff ODE solvers for atmospheric chemistry problems II: Rosenbrock solvers",
    "Sandu, Verwer, Blom, Spee, Carmichael, Potra",
    1997,
    "",
    room="integrators.methods",
    when="Stiff equations at loose tolerances, where nothing shall be iterated.",
)

TABLEAU = RosenbrockTableau(
    "RODAS3",
    0.5,
    a=((0.0,), (2.0, 0.0), (2.0, 0.0, 1.0)),
    c=((4.0,), (1.0, -1.0), (1.0, -1.0, -8 / 3)),
    m=(2.0, 0.0, 1.0, 1.0),
    order=3,
    error=(0.0, 0.0, 0.0, 1.0),
    embedded_order=2,
)


@METHOD.variant(order=3)
@dataclass(frozen=True)
class Rodas3(Rosenbrock):
    """RODAS3: order 3, four stages, L-stable and stiffly accurate, error estimate of order 2, cubic Hermite interpolant.

    A step costs four evaluations, a Jacobian (n evaluations), a derivative by time (one) and one factorisation. Not for
    tight tolerances. Source: Atmos. Environ. 31 (1997) 3459.
    """

    tableau: RosenbrockTableau = field(default=TABLEAU, init=False, repr=False)
