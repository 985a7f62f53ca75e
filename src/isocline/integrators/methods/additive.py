r"""Explicit Runge-Kutta methods for additive noise, ``dy = f(t, y) dt + g(t) dW``, of strong order 3/2.

    z_i = y + h sum_j a_ij f_j + g(t) (p_i W + q_i H) ,       y_1 = y + h sum_j b_j f_j + G ,     error = h sum_j e_j f_j
    G   = g(t) W + (g(t + h) - g(t)) (W / 2 - H)

G is the integral of g against the path where g is a straight line in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from isocline.integrators.dense import linear
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.explicit import combined
from isocline.integrators.sde import SDE


@dataclass(frozen=True)
class AdditiveRungeKutta:
    """A two-stage method for additive noise: strong order 3/2, error estimate of the drift, reads the space-time area.

    Two evaluations of each of drift and diffusion. States inside a step are on the straight line between its ends.

    Args:
        a: weight of the first slope in the second stage; also its time.
        b: weights of both slopes.
        p: weight of the increment in each stage.
        q: weight of the area in each stage.
    """

    a: float
    b: tuple[float, float]
    p: tuple[float, float]
    q: tuple[float, float]

    accepts = SDE
    calculus = None
    strong = MappingProxyType({"additive": 1.5})
    order = 2
    error_order = 1.5
    area = True

    def start(self, terms: SDE, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return nothing."""
        return ()

    def step(self, terms: SDE, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and the line between its ends."""
        w, area = terms.step
        assert area is not None
        g, g1 = terms.g(t, y), terms.g(t + h, y)
        first, second = (
            terms.moved(y, g, p * w + q * area) if p or q else y for p, q in zip(self.p, self.q, strict=True)
        )
        f = terms.f(t, first)
        f1 = terms.f(torch.add(t, h, alpha=self.a), torch.addcmul(second, f, h, value=self.a))
        noise = terms.moved(terms.moved(y, g, 0.5 * w + area), g1, 0.5 * w - area)
        y1 = torch.addcmul(noise, combined(self.b, [f, f1]), h)
        return Step(y1, (f1 - f) * (self.b[1] * h), linear(y, y1), evaluations=4)
