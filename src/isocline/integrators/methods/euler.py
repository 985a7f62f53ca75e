r"""Euler's method, the simplest of all (Euler 1768): ``y + h f(t, y)``."""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "euler",
    "Euler",
    "Institutionum calculi integralis volumen primum",
    "Euler",
    1768,
    "",
    room="integrators.methods",
    when="Fields that are not smooth, or one evaluation a step and no more; as the reference that others must beat.",
)

TABLEAU = Tableau(
    "Euler",
    a=(),
    b=(1.0,),
    order=1,
)


@METHOD.variant(order=1)
class Euler(ExplicitRungeKutta):
    """Euler's method: order 1, one evaluation a step, no error estimate, stable for ``|1 + h lambda| <= 1``.

    Not where accuracy matters: every method of order 2 needs fewer evaluations for the same error. States inside a
    step come from the cubic Hermite interpolant and cost one evaluation more. Source: Institutionum calculi
    integralis I (1768).
    """

    def __init__(self) -> None:
        super().__init__(TABLEAU)
