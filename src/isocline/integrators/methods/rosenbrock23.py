r"""Rosenbrock 2(3) of Shampine and Reichelt (ode23s), as an ordinary Rosenbrock tableau with ``d = 1 / (2 + sqrt 2)``."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.rosenbrock import Rosenbrock, RosenbrockTableau

METHOD = Method(
    "rosenbrock23",
    "Rosenbrock 2(3)",
    "The MATLAB ODE suite",
    "Shampine, Reichelt",
    1997,
    "",
    room="integrators.methods",
    when="Stiff equations at loose tolerances, with a cheap Jacobian.",
)

D = 1 / (2 + 2**0.5)
E = 6 + 2**0.5
TABLEAU = RosenbrockTableau.of(
    "Rosenbrock 2(3)",
    D,
    alpha=((0.5,), (0.0, 1.0)),
    rows=((-D,), (D * (E - 2), -D * E)),
    b=(0.0, 1.0, 0.0),
    order=2,
    error=(1 / 6, -1 / 3, 1 / 6),
    embedded_order=2,
    powers=((1 / (1 - 2 * D), -2 * D / (1 - 2 * D), 0.0), (-1 / (1 - 2 * D), 1 / (1 - 2 * D), 0.0)),
    dense_order=2,
)


@METHOD.variant(order=2)
@dataclass(frozen=True)
class Rosenbrock23(Rosenbrock):
    """Shampine and Reichelt's method: order 2, three stages, L-stable, two new evaluations a step, interpolant of order 2.

    Besides, every step costs a Jacobian (n evaluations), a derivative by time (one) and one factorisation. The error
    estimate has the power 3 of h. Not for tight tolerances. Source: SIAM J. Sci. Comput. 18 (1997) 1.
    """

    tableau: RosenbrockTableau = field(default=TABLEAU, init=False, repr=False)
