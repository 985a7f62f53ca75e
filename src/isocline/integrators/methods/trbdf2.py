r"""TR-BDF2: a trapezoidal step to ``t + (2 - sqrt 2) h``, then the backward difference formula of order 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from isocline._core.registry import Method
from isocline.integrators.methods.esdirk import ESDIRK
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "tr-bdf2",
    "TR-BDF2",
    "Analysis and implementation of TR-BDF2",
    "Hosea, Shampine",
    1996,
    "",
    room="integrators.methods",
    when="Stiff equations at loose tolerances, with two implicit stages a step.",
)

ROOT = 2**0.5
G, W = 1 - ROOT / 2, ROOT / 4
TABLEAU = Tableau(
    "TR-BDF2",
    a=((0.0,), (G, G), (W, W, G)),
    b=(W, W, G),
    c=(0.0, 2 * G, 1.0),
    order=2,
    error=(W - (1 - W) / 3, W - (3 * W + 1) / 3, G - G / 3),
    embedded_order=3,
)


@METHOD.variant(order=2)
@dataclass(frozen=True)
class TRBDF2(ESDIRK):
    """TR-BDF2: order 2, three stages, two of them implicit, L-stable and stiffly accurate.

    The error is measured against weights of order 3. Raw it grows with the stiffness, so it is filtered with ``(I - h
    gamma J)^{-1}`` as its authors advise. A step costs one to three evaluations for each of its two implicit stages,
    and a Jacobian (n evaluations) and its factors now and then. The interpolant is the cubic Hermite one. Not for tight
    tolerances. Source: Appl. Numer. Math. 20 (1996) 21.

    Args:
        solver: of the implicit stages.
    """

    tableau: Tableau = field(default=TABLEAU, init=False, repr=False)
    filtered: ClassVar[bool] = True
