r"""Milstein's method (Milstein 1974), for diagonal and commutative noise.

    y_1 = y + h f + g W + 1/2 sum_jk (g_j . grad) g_k (W_j W_k - h delta_jk)        Ito; without h in the sense of Stratonovich

The sum over j is one derivative of g in the direction g W, in forward mode; the h term of Ito costs one such derivative more for
diagonal noise, and one for each column of a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.integrators.dense import linear
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.sde import SDE
from isocline.integrators.solvers.forward import along

METHOD = Method(
    "milstein",
    "Milstein",
    "Approximate integration of stochastic differential equations",
    "Milstein",
    1974,
    "",
    room="integrators.methods",
    when="Ito SDEs with diagonal or commutative noise and a diffusion that forward mode can differentiate.",
)


@METHOD.variant(order=1)
@dataclass(frozen=True)
class Milstein:
    """Milstein's method: strong order 1 in either calculus, for additive, diagonal and commutative noise; no error estimate.

    The diffusion is differentiated in forward mode, along one direction (diagonal noise), or along one for each channel (matrices,
    Ito). Source: Milstein, Theory Probab. Appl. 19 (1974) 557.
    """

    accepts = SDE
    calculus = None
    strong = MappingProxyType({"additive": 1.0, "diagonal": 1.0, "commutative": 1.0})
    order = 1
    error_order = 0

    def start(self, terms: SDE, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return nothing."""
        return ()

    def step(self, terms: SDE, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step and the line between its ends."""
        g, w = terms.g(t, y), terms.step.w
        y1 = torch.addcmul(terms.moved(y, g, w), terms.f(t, y), h)
        count = 2
        if terms.noise != "additive":
            second, more = self._second(terms, t, h, y, g, w)
            y1, count = torch.add(y1, second, alpha=0.5), count + more
        return Step(y1, None, linear(y, y1), evaluations=count)

    @staticmethod
    def _second(terms: SDE, t: Tensor, h: Tensor, y: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, int]:
        """Return the sum above without the half, and how many evaluations it made."""

        def diffusion(z: Tensor) -> Tensor:
            return terms.g(t, z)

        ito = terms.calculus == "ito"
        if terms.channels is None:
            return along(diffusion, y, g * (w * w - h if ito else w * w)), 1
        total = terms.times(along(diffusion, y, terms.times(g, w)), w)
        columns = range(terms.channels if ito else 0)
        for j in columns:
            total = torch.addcmul(total, along(diffusion, y, g[..., j])[..., j], h, value=-1)
        return total, 1 + len(columns)
