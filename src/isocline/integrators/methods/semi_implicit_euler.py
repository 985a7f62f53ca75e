r"""Semi-implicit (symplectic) Euler: a whole kick, then a whole drift.

    p' = p + h F(t, q) ,    q' = q + h V(t + h, p')

The map is symplectic: it keeps areas of phase space.
"""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.splitting import Splitting

METHOD = Method(
    "semi-implicit-euler",
    "Semi-implicit Euler",
    "Geometric Numerical Integration: Structure-Preserving Algorithms for Ordinary Differential Equations",
    "Hairer, Lubich, Wanner",
    2006,
    "",
    room="integrators.methods",
    when="The simplest symplectic step, for games and first tests; Leapfrog has order 2 at the same cost.",
)


@METHOD.variant(order=1)
class SemiImplicitEuler(Splitting):
    """Kick, then drift: order 1, one force and one velocity a step, symplectic, no error estimate; for `Separable` terms.

    `Leapfrog` costs the same and has order 2. Source: Hairer, Lubich and Wanner, Geometric Numerical Integration,
    I.1.2 and VI.3.
    """

    def __init__(self) -> None:
        super().__init__(kicks=(1.0, 0.0), drifts=(1.0,), order=1)
