r"""Splitting methods for separable Hamiltonian systems: kicks of the momenta and drifts of the positions in turn.

    p <- p + b_i h F(t + C_i h, q)          kicks  b_0 ... b_m ,    C_i = a_1 + ... + a_i
    q <- q + a_i h V(t + D_i h, p)          drifts a_1 ... a_m ,    D_i = b_0 + ... + b_{i-1}

The order is kick, drift, kick, ..., kick. Every part is a shear, so each step is symplectic and is undone by the same
shears in reverse. A last kick uses the force of the next first one, which is therefore carried over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.hamiltonian import Separable
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.late import Late

TOLERANCE = 1e-13


@dataclass(frozen=True)
class Splitting:
    """A splitting method. It has no error estimate: pass ``dt0`` and constant steps, which is what keeps the energy near its start.

    Args:
        kicks: ``b``, one more than drifts; the first or the last may be zero.
        drifts: ``a``.
        order: order of accuracy.
    """

    kicks: Sequence[float]
    drifts: Sequence[float]
    order: int

    accepts = Separable
    error_order = 0
    growth = 1.0

    def __post_init__(self) -> None:
        require(len(self.kicks) == len(self.drifts) + 1, "a splitting has one more kick than drifts; the last may be 0")
        for name, parts in (("kicks", self.kicks), ("drifts", self.drifts)):
            require(abs(sum(parts) - 1.0) < TOLERANCE, f"the {name} of a splitting add up to 1, got {sum(parts)}")

    @property
    def carries(self) -> bool:
        """Whether the last force of a step is the first one of the next."""
        return self.kicks[0] != 0.0 and self.kicks[-1] != 0.0

    @cached_property
    def _parts(self) -> list[tuple[float, float, float, float]]:
        """Return a drift and the kick after it, with the clocks of positions and momenta at each; the first drift is empty."""
        moved = [*accumulate(self.drifts[:-1], initial=0.0), 1.0]
        pushed = [0.0, *accumulate(self.kicks[:-1])]
        return list(zip((0.0, *self.drifts), self.kicks, moved, pushed, strict=True))

    def start(self, terms: Separable, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the force at the start where it is carried over."""
        return (terms.push(t, terms.halves(y)[0]),) if self.carries else ()

    def step(self, terms: Separable, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step; its interpolant is the cubic through both ends."""
        q, p = terms.halves(y)
        first = force = state[0] if state else None
        calls = 0
        for a, b, moved, pushed in self._parts:
            if a:
                q = torch.addcmul(q, terms.speed(t + pushed * h, p), a * h)
                force, calls = None, calls + 1
            if b:
                calls += force is None
                force = terms.push(t + moved * h, q) if force is None else force
                p = torch.addcmul(p, force, b * h)
        y1 = torch.cat([q, p], dim=-1)
        carry = (force,) if self.carries and force is not None else ()
        return Step(y1, None, Late(terms, t, h, y, y1), carry, () if first is None else (first,), calls)

    def inverse(self, terms: Separable, t: Tensor, h: Tensor, y1: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        """Return state and carry before the step from `t` to ``t + h`` that ended in `y1`."""
        q, p = terms.halves(y1)
        force = state[0] if state else None
        for a, b, moved, pushed in reversed(self._parts):
            if b:
                force = terms.push(t + moved * h, q) if force is None else force
                p = torch.addcmul(p, force, -b * h)
            if a:
                q = torch.addcmul(q, terms.speed(t + pushed * h, p), -a * h)
                force = None
        return torch.cat([q, p], dim=-1), (force,) if self.carries and force is not None else ()
