r"""Reversible Heun (Kidger, Foster, Li and Lyons, arXiv 2105.13493): one evaluation a step, undone in closed form.

    u' = 2 y - u + h f(t, u) ,        y' = y + h/2 (f(t, u) + f(t + h, u'))                  forward, u = y at the start
    u  = 2 y' - u' - h f(t + h, u') ,   y = y' - h/2 (f(t, u) + f(t + h, u'))                backward

For an SDE ``h f`` stands for ``h f + g W``. The two states are coupled by nothing but the field, which is why they can drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.integrators.dense import hermite, linear
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.sde import SDE

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
    """Reversible Heun: one evaluation a step (of each of drift and diffusion), error estimate, undone in closed form.

    Order 2 for ODEs; for Stratonovich SDEs strong order 1 with additive noise and 1/2 with general noise (with diagonal and
    commutative noise 1 is observed). Unstable for damped ODEs at every step size: on y' = -y the two states drift apart, by a
    factor of 1.10 a step at h = 0.1. Use it for short solutions or SDEs; `Reversible` is the stable choice for ODEs. Source:
    Kidger, Foster, Li and Lyons, arXiv 2105.13493.
    """

    order = 2
    error_order = 2
    growth = 1.0
    calculus = "stratonovich"
    strong = MappingProxyType({"additive": 1.0, "diagonal": 1.0, "commutative": 1.0, "general": 0.5})

    def start(self, terms: Any, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the second state and its slopes."""
        return y, *(_slopes(terms, t, y) if f is None else (f,))

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and the cubic through both ends, or the line for an SDE."""
        u, *slopes = state
        move = _moved(terms, h, slopes)
        u1 = 2 * y - u + move
        ends = _slopes(terms, t + h, u1)
        move1 = _moved(terms, h, ends)
        y1 = torch.add(y, move + move1, alpha=0.5)
        error = (move1 - move) * 0.5
        inside = linear(y, y1) if isinstance(terms, SDE) else hermite(y, y1, h, slopes[0], ends[0])
        return Step(y1, error, inside, (u1, *ends), (u, *slopes), len(ends))

    def inverse(self, terms: Any, t: Tensor, h: Tensor, y1: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        """Return both states and the slopes before the step from `t` to ``t + h``."""
        u1, *ends = state
        move1 = _moved(terms, h, ends)
        u = 2 * y1 - u1 - move1
        slopes = _slopes(terms, t, u)
        return torch.add(y1, _moved(terms, h, slopes) + move1, alpha=-0.5), (u, *slopes)


def _slopes(terms: Any, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return (terms.f(t, y), terms.g(t, y)) if isinstance(terms, SDE) else (terms.vf(t, y),)


def _moved(terms: Any, h: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """Return ``h f``, or ``h f + g W``."""
    return terms.moved(slopes[0] * h, slopes[1], terms.step.w) if isinstance(terms, SDE) else slopes[0] * h
