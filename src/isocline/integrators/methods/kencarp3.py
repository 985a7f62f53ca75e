r"""Kennedy and Carpenter's additive pair of order 3(2), ARK3(2)4L[2]SA."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.imex import Additive
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "kencarp3",
    "Kennedy-Carpenter 3(2)",
    "Additive Runge-Kutta schemes for convection-diffusion-reaction equations",
    "Kennedy, Carpenter",
    2003,
    "",
    room="integrators.methods",
    when="Equations with a stiff and a smooth part, at loose tolerances.",
)

G = 1767732205903 / 4055673282236
B = (1471266399579 / 7840856788654, -4482444167858 / 7529755066697, 11266239266428 / 11593286722821, G)
LOWER = (
    2756255671327 / 12835298489170,
    -10771552573575 / 22201958757719,
    9247589265047 / 10645013368117,
    2193209047091 / 5459859503100,
)
C = (0.0, 2 * G, 3 / 5, 1.0)
ERROR = tuple(b - e for b, e in zip(B, LOWER, strict=True))
POWERS = (
    (
        4655552711362 / 22874653954995,
        -18682724506714 / 9892148508045,
        34259539580243 / 13192909600954,
        584795268549 / 6622622206610,
    ),
    (
        -215264564351 / 13552729205753,
        17870216137069 / 13817060693119,
        -28141676662227 / 17317692491321,
        2508943948391 / 7218656332882,
    ),
)
IMPLICIT = Tableau(
    "KenCarp3, implicit part",
    a=((0.0,), (G, G), (2746238789719 / 10658868560708, -640167445237 / 6845629431997, G), B),
    b=B,
    c=C,
    order=3,
    error=ERROR,
    embedded_order=2,
    powers=POWERS,
    dense_order=2,
)
EXPLICIT = Tableau(
    "KenCarp3, explicit part",
    a=(
        (2 * G,),
        (5535828885825 / 10492691773637, 788022342437 / 10882634858940),
        (6485989280629 / 16251701735622, -4246266847089 / 9704473918619, 10755448449292 / 10357097424841),
    ),
    b=B,
    c=C,
    order=3,
    error=ERROR,
    embedded_order=2,
    powers=POWERS,
    dense_order=2,
)


@METHOD.variant(order=3)
@dataclass(frozen=True)
class KenCarp3(Additive):
    """Kennedy and Carpenter's ARK3(2): 4 stages, three of them implicit, error estimate of order 2, interpolant of order 2.

    The implicit part is L-stable and stiffly accurate. `Split` and `Semilinear` terms are treated additively: 4
    evaluations of the explicit part, and one to three of the implicit part for each implicit stage, or none where it is
    linear; all other terms see the implicit tableau alone. Not for explicit parts that are stiff. Source: Appl. Numer.
    Math. 44 (2003) 139.

    Args:
        solver: of the implicit stages where the implicit part is not linear.
    """

    tableau: Tableau = field(default=IMPLICIT, init=False, repr=False)
    explicit: Tableau = field(default=EXPLICIT, init=False, repr=False)
