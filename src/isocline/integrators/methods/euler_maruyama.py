r"""The Euler-Maruyama method, ``y + h f(t, y) + g(t, y) W`` (Maruyama 1955)."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.integrators.dense import linear
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.sde import SDE

METHOD = Method(
    "euler-maruyama",
    "Euler-Maruyama",
    "Continuous Markov processes and stochastic equations",
    "Maruyama",
    1955,
    "",
    room="integrators.methods",
    when="Ito SDEs with any noise; as the reference that others must beat.",
)


@METHOD.variant(order=1)
@dataclass(frozen=True)
class EulerMaruyama:
    """The Euler-Maruyama method for Ito SDEs: one evaluation of each of drift and diffusion, no error estimate.

    Strong order 1/2, and 1 for additive noise. Source: Maruyama, Rend. Circ. Mat. Palermo 4 (1955) 48.
    """

    accepts = SDE
    calculus = "ito"
    strong = MappingProxyType({"additive": 1.0, "diagonal": 0.5, "commutative": 0.5, "general": 0.5})
    order = 1
    error_order = 0

    def start(self, terms: SDE, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return nothing."""
        return ()

    def step(self, terms: SDE, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step and the line between its ends."""
        y1 = torch.addcmul(terms.moved(y, terms.g(t, y), terms.step.w), terms.f(t, y), h)
        return Step(y1, None, linear(y, y1), evaluations=2)
