r"""Yoshida's compositions of leapfrog steps, of order 4 (also found by Forest and Ruth) and 6.

A symmetric sequence of leapfrog steps of sizes ``w_1 h, ..., w_m h`` keeps order 2 and gains two orders whenever the
leading error terms cancel:

    order 4    sum w = 1,  sum w^3 = 0                  m = 3,  w_1 = w_3 = 1 / (2 - 2^(1/3)),  w_2 = 1 - 2 w_1
    order 6    and  sum w^5 = 0  and one more           m = 7,  "solution A"

Some of the steps go backwards. Neighbouring half kicks are joined.
"""

from __future__ import annotations

from collections.abc import Sequence

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.integrators.methods.splitting import Splitting

METHOD = Method(
    "yoshida",
    "Yoshida's symplectic compositions",
    "Construction of higher order symplectic integrators",
    "Yoshida",
    1990,
    "",
    room="integrators.methods",
    when="Separable Hamiltonian systems where leapfrog would need very small steps.",
)

_OUTER = 1 / (2 - 2 ** (1 / 3))
FOURTH = (_OUTER, 1 - 2 * _OUTER, _OUTER)
_A = (0.78451361047755726382, 0.23557321335935813368, -1.17767998417887100695)
SIXTH = (*_A, 1 - 2 * sum(_A), *reversed(_A))


def composed(weights: Sequence[float], order: int) -> tuple[list[float], list[float]]:
    """Return kicks and drifts of leapfrog steps of the sizes `weights`, after checking what symmetry does not give.

    >>> composed((1.0,), 2)
    ([0.5, 0.5], [1.0])
    """
    require(list(weights) == list(reversed(weights)), "the steps of a composition must read the same from both ends")
    for power in range(1, order, 2):
        total = sum(w**power for w in weights)
        require(abs(total - (power == 1)) < 1e-13, f"the powers {power} of the steps add up to {total}")
    kicks = [(a + b) / 2 for a, b in zip((0.0, *weights), (*weights, 0.0), strict=True)]
    return kicks, list(weights)


@METHOD.variant(order=4)
class Yoshida4(Splitting):
    """Three leapfrog steps: order 4, three forces and three velocities a step; for `Separable` terms.

    Symplectic and time-symmetric. No error estimate; its backward substep makes the error constant large. Source:
    Yoshida, Phys. Lett. A 150 (1990) 262; Forest and Ruth, Physica D 43 (1990) 105.
    """

    def __init__(self) -> None:
        super().__init__(*composed(FOURTH, 4), order=4)


@METHOD.variant(order=6)
class Yoshida6(Splitting):
    """Seven leapfrog steps: order 6, seven forces and seven velocities a step; for `Separable` terms.

    Symplectic and time-symmetric. No error estimate. Source: Yoshida, Phys. Lett. A 150 (1990) 262, solution A.
    """

    def __init__(self) -> None:
        super().__init__(*composed(SIXTH, 6), order=6)
