r"""Kennedy and Carpenter's additive pair of order 4(3), ARK4(3)6L[2]SA."""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.imex import Additive
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "kencarp4",
    "Kennedy-Carpenter 4(3)",
    "Additive Runge-Kutta schemes for convection-diffusion-reaction equations",
    "Kennedy, Carpenter",
    2003,
    "",
    room="integrators.methods",
    when="Equations with a stiff and a smooth part, at moderate tolerances.",
)

G = 0.25
B = (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, G)
LOWER = (
    4586570599 / 29645900160,
    0.0,
    178811875 / 945068544,
    814220225 / 1159782912,
    -3700637 / 11593932,
    61727 / 225920,
)
C = (0.0, 1 / 2, 83 / 250, 31 / 50, 17 / 20, 1.0)
ERROR = tuple(b - e for b, e in zip(B, LOWER, strict=True))
POWERS = (
    (
        6943876665148 / 7220017795957,
        0.0,
        7640104374378 / 9702883013639,
        -20649996744609 / 7521556579894,
        8854892464581 / 2390941311638,
        -11397109935349 / 6675773540249,
    ),
    (-54480133 / 30881146, 0.0, -11436875 / 14766696, 174696575 / 18121608, -12120380 / 966161, 3843 / 706),
    (
        6818779379841 / 7100303317025,
        0.0,
        2173542590792 / 12501825683035,
        -31592104683404 / 5083833661969,
        61146701046299 / 7138195549469,
        -17219254887155 / 4939391667607,
    ),
)
IMPLICIT = Tableau(
    "KenCarp4, implicit part",
    a=(
        (0.0,),
        (G, G),
        (8611 / 62500, -1743 / 31250, G),
        (5012029 / 34652500, -654441 / 2922500, 174375 / 388108, G),
        (15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768, 2285395 / 8070912, G),
        B,
    ),
    b=B,
    c=C,
    order=4,
    error=ERROR,
    embedded_order=3,
    powers=POWERS,
    dense_order=3,
)
EXPLICIT = Tableau(
    "KenCarp4, explicit part",
    a=(
        (1 / 2,),
        (13861 / 62500, 6889 / 62500),
        (-116923316275 / 2393684061468, -2731218467317 / 15368042101831, 9408046702089 / 11113171139209),
        (
            -451086348788 / 2902428689909,
            -2682348792572 / 7519795681897,
            12662868775082 / 11960479115383,
            3355817975965 / 11060851509271,
        ),
        (
            647845179188 / 3216320057751,
            73281519250 / 8382639484533,
            552539513391 / 3454668386233,
            3354512671639 / 8306763924573,
            4040 / 17871,
        ),
    ),
    b=B,
    c=C,
    order=4,
    error=ERROR,
    embedded_order=3,
    powers=POWERS,
    dense_order=3,
)


@METHOD.variant(order=4)
@dataclass(frozen=True)
class KenCarp4(Additive):
    """Kennedy and Carpenter's ARK4(3): 6 stages, five of them implicit, error estimate of order 3, interpolant of order 3.

    The implicit part is L-stable and stiffly accurate. `Split` and `Semilinear` terms are treated additively: 6
    evaluations of the explicit part, and one to three of the implicit part for each implicit stage, or none where it is
    linear; all other terms see the implicit tableau alone. Not for explicit parts that are stiff. Source: Appl. Numer.
    Math. 44 (2003) 139.

    Args:
        solver: of the implicit stages where the implicit part is not linear.
    """

    tableau: Tableau = field(default=IMPLICIT, init=False, repr=False)
    explicit: Tableau = field(default=EXPLICIT, init=False, repr=False)
