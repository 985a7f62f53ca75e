r"""The trapezoidal rule, ``y1 = y + h (f(t, y) + f(t + h, y1)) / 2``."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "trapezoid",
    "Trapezoidal rule",
    "A practical method for numerical evaluation of solutions of partial differential equations of the heat-conduction type",
    "Crank, Nicolson",
    1947,
    "",
    room="integrators.methods",
    when="Oscillations that must not be damped.",
)

TABLEAU = Tableau(
    "trapezoidal rule",
    a=((0.0,), (0.5, 0.5)),
    b=(0.5, 0.5),
    c=(0.0, 1.0),
    order=2,
    error=(0.5, -0.5),
    embedded_order=1,
)


@METHOD.variant(order=2)
@dataclass(frozen=True)
class Trapezoid(ESDIRK):
    """The trapezoidal rule: order 2, one implicit stage, A-stable, keeps the size of oscillations.

    The error estimate has order 1 (implicit Euler). A step costs one to three evaluations, and a Jacobian (n
    evaluations) and its factors now and then. The interpolant is the cubic Hermite one. It does not damp: what is very
    stiff rings (not L-stable). Source: Proc. Cambridge Philos. Soc. 43 (1947) 50.

    Args:
        solver: of the implicit stages.
    """

    tableau: Tableau = field(default=TABLEAU, init=False, repr=False)
