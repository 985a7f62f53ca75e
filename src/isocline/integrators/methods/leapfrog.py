r"""Leapfrog, also called velocity Verlet and Stormer-Verlet: half a kick, a drift, half a kick.

    p_{1/2} = p + h/2 F(t, q) ,    q' = q + h V(t + h/2, p_{1/2}) ,    p' = p_{1/2} + h/2 F(t + h, q')

Going back from the end by the same step leads to the start.
"""

from __future__ import annotations

from isocline._core.registry import Method
from isocline.integrators.methods.splitting import Splitting

METHOD = Method(
    "leapfrog",
    "Leapfrog (Stormer-Verlet)",
    'Computer "experiments" on classical fluids. I. Thermodynamical properties of Lennard-Jones molecules',
    "Verlet",
    1967,
    "",
    room="integrators.methods",
    when="Separable Hamiltonian systems over long times: bounded energy error, and reversible gradients without a wrapper.",
)


@METHOD.variant(order=2)
class Leapfrog(Splitting):
    """Velocity Verlet: order 2, one force and one velocity a step, symplectic and time-symmetric; for `Separable` terms.

    No error estimate; not for forces that depend on the momentum (friction). Source: Verlet, Phys. Rev. 159 (1967) 98.
    """

    def __init__(self) -> None:
        super().__init__(kicks=(0.5, 0.5), drifts=(1.0,), order=2)
