r"""Reversible Heun (Kidger, Foster, Li and Lyons, arXiv 2105.13493): one evaluation a step, undone in closed form.

    u' = 2 y - u + h f(t, u) ,        y' = y + h/2 (f(t, u) + f(t + h, u'))                  forward, u = y at the start
    u  = 2 y' - u' - h f(t + h, u') ,   y = y' - h/2 (f(t, u) + f(t + h, u'))                backward

The two states are coupled by nothing but the field, which is why they can drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.integrators.dense import hermite
from isocline.integrators.methods.base import Carry, Step

METHOD = Method(
    "reversible-heun",
    "Reversible Heun",
    "Efficient and Accurate Gradients for Neural SDEs",
    "Kidger, Foster, Li, Lyons",
    2021,
    "2105.13493",
    room="integrators.methods",
    when="Neural SDEs, or short undamped ODEs; for other ODEs take Reversible, which is stable.",
)


@METHOD.variant(order=2)
@dataclass(frozen=True)
class ReversibleHeun:
    """Reversible Heun: order 2, error estimate of order 1, one evaluation a step, undone in closed form.

    Unstable for damped ODEs at every step size: on y' = -y the two states drift apart, by a factor of 1.10 a step at
    h = 0.1. Use it for short solutions or SDEs; `Reversible` is the stable choice for ODEs. Source: Kidger, Foster,
    Li and Lyons, arXiv 2105.13493.
    """

    order = 2
    error_order = 2
    growth = 1.0

    def start(self, terms: Any, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the second state and its slope."""
        return y, terms.vf(t, y) if f is None else f

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and the cubic through both ends."""
        u, f = state
        u1 = torch.addcmul(2 * y - u, f, h)
        f1 = terms.vf(t + h, u1)
        y1 = torch.addcmul(y, f + f1, 0.5 * h)
        error = (f1 - f) * (0.5 * h)
        return Step(y1, error, hermite(y, y1, h, f, f1), (u1, f1), (u, f), 1)

    def inverse(self, terms: Any, t: Tensor, h: Tensor, y1: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        """Return both states and the slope before the step from `t` to ``t + h``."""
        u1, f1 = state
        u = torch.addcmul(2 * y1 - u1, f1, -h)
        f = terms.vf(t, u)
        return torch.addcmul(y1, f + f1, -0.5 * h), (u, f)
