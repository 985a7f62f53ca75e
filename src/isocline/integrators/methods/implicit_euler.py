r"""Implicit Euler, ``y1 = y + h f(t + h, y1)``, written with the slope at the start as a first stage for guess and error."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "implicit-euler",
    "Implicit Euler",
    "Solving Ordinary Differential Equations II",
    "Hairer, Wanner",
    1996,
    "",
    room="integrators.methods",
    when="Very stiff equations at low accuracy, and where nothing may oscillate.",
)

TABLEAU = Tableau(
    "implicit Euler",
    a=((0.0,), (0.0, 1.0)),
    b=(0.0, 1.0),
    c=(0.0, 1.0),
    order=1,
    error=(-0.5, 0.5),
    embedded_order=2,
)


@METHOD.variant(order=1)
@dataclass(frozen=True)
class ImplicitEuler(ESDIRK):
    """Implicit Euler: order 1, one implicit stage, L-stable.

    The error is half the step times the difference of the slopes at both ends. A step costs one to three evaluations,
    and a Jacobian (n evaluations) and its factors now and then. The interpolant is the cubic Hermite one. Not for
    accuracy. Source: Hairer, Wanner, "Solving Ordinary Differential Equations II", chapter IV.3.

    Args:
        solver: of the implicit stages.
    """

    tableau: Tableau = field(default=TABLEAU, init=False, repr=False)
