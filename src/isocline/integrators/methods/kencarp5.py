r"""Kennedy and Carpenter's additive pair of order 5(4), ARK5(4)8L[2]SA.

One coefficient circulates with a misprint: the sixth entry of the seventh implicit row is ``-4269925059573 /
7827059040749``. With the denominator 7827059040719, as some libraries have it, the row sum is off by 2.1e-12.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from isocline._core.registry import Method
from isocline.integrators.methods.imex import Additive
from isocline.integrators.methods.tableau import Tableau

METHOD = Method(
    "kencarp5",
    "Kennedy-Carpenter 5(4)",
    "Additive Runge-Kutta schemes for convection-diffusion-reaction equations",
    "Kennedy, Carpenter",
    2003,
    "",
    room="integrators.methods",
    when="Equations with a stiff and a smooth part, at tight tolerances.",
)

G = 41 / 200
B = (
    -872700587467 / 9133579230613,
    0.0,
    0.0,
    22348218063261 / 9555858737531,
    -1143369518992 / 8141816002931,
    -39379526789629 / 19018526304540,
    32727382324388 / 42900044865799,
    G,
)
LOWER = (
    -975461918565 / 9796059967033,
    0.0,
    0.0,
    78070527104295 / 32432590147079,
    -548382580838 / 3424219808633,
    -33438840321285 / 15594753105479,
    3629800801594 / 4656183773603,
    4035322873751 / 18575991585200,
)
C = (0.0, 41 / 100, 2935347310677 / 11292855782101, 1426016391358 / 7196633302097, 92 / 100, 24 / 100, 3 / 5, 1.0)
ERROR = tuple(b - e for b, e in zip(B, LOWER, strict=True))
POWERS = (
    (
        -17674230611817 / 10670229744614,
        0.0,
        0.0,
        65168852399939 / 7868540260826,
        15494834004392 / 5936557850923,
        -99329723586156 / 26959484932159,
        -19024464361622 / 5461577185407,
        -6511271360970 / 6095937251113,
    ),
    (
        43486358583215 / 12773830924787,
        0.0,
        0.0,
        -91478233927265 / 11067650958493,
        -79368583304911 / 10890268929626,
        -12239297817655 / 9152339842473,
        115839755401235 / 10719374521269,
        5843115559534 / 2180450260947,
    ),
    (
        -9257016797708 / 5021505065439,
        0.0,
        0.0,
        26096422576131 / 11239449250142,
        92396832856987 / 20362823103730,
        30029262896817 / 10175596800299,
        -26136350496073 / 3983972220547,
        -5289405421727 / 3760307252460,
    ),
)
IMPLICIT = Tableau(
    "KenCarp5, implicit part",
    a=(
        (0.0,),
        (G, G),
        (41 / 400, -567603406766 / 11931857230679, G),
        (683785636431 / 9252920307686, 0.0, -110385047103 / 1367015193373, G),
        (3016520224154 / 10081342136671, 0.0, 30586259806659 / 12414158314087, -22760509404356 / 11113319521817, G),
        (
            218866479029 / 1489978393911,
            0.0,
            638256894668 / 5436446318841,
            -1179710474555 / 5321154724896,
            -60928119172 / 8023461067671,
            G,
        ),
        (
            1020004230633 / 5715676835656,
            0.0,
            25762820946817 / 25263940353407,
            -2161375909145 / 9755907335909,
            -211217309593 / 5846859502534,
            -4269925059573 / 7827059040749,
            G,
        ),
        B,
    ),
    b=B,
    c=C,
    order=5,
    error=ERROR,
    embedded_order=4,
    powers=POWERS,
    dense_order=3,
)
EXPLICIT = Tableau(
    "KenCarp5, explicit part",
    a=(
        (41 / 100,),
        (367902744464 / 2072280473677, 677623207551 / 8224143866563),
        (1268023523408 / 10340822734521, 0.0, 1029933939417 / 13636558850479),
        (14463281900351 / 6315353703477, 0.0, 66114435211212 / 5879490589093, -54053170152839 / 4284798021562),
        (
            14090043504691 / 34967701212078,
            0.0,
            15191511035443 / 11219624916014,
            -18461159152457 / 12425892160975,
            -281667163811 / 9011619295870,
        ),
        (
            19230459214898 / 13134317526959,
            0.0,
            21275331358303 / 2942455364971,
            -38145345988419 / 4862620318723,
            -1 / 8,
            -1 / 8,
        ),
        (
            -19977161125411 / 11928030595625,
            0.0,
            -40795976796054 / 6384907823539,
            177454434618887 / 12078138498510,
            782672205425 / 8267701900261,
            -69563011059811 / 9646580694205,
            7356628210526 / 4942186776405,
        ),
    ),
    b=B,
    c=C,
    order=5,
    error=ERROR,
    embedded_order=4,
    powers=POWERS,
    dense_order=3,
)


@METHOD.variant(order=5)
@dataclass(frozen=True)
class KenCarp5(Additive):
    """Kennedy and Carpenter's ARK5(4): 8 stages, seven of them implicit, error estimate of order 4, interpolant of order 3.

    The implicit part is L-stable and stiffly accurate. `Split` and `Semilinear` terms are treated additively: 8
    evaluations of the explicit part, and one to three of the implicit part for each implicit stage, or none where it is
    linear; all other terms see the implicit tableau alone. Not for explicit parts that are stiff. Source: Appl. Numer.
    Math. 44 (2003) 139.

    Args:
        solver: of the implicit stages where the implicit part is not linear.
    """

    tableau: Tableau = field(default=IMPLICIT, init=False, repr=False)
    explicit: Tableau = field(default=EXPLICIT, init=False, repr=False)
