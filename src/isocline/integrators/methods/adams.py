r"""Adams methods: the slope is extended as a polynomial through earlier slopes, and integrated over the step.

    predict    p       = y_n + int_0^h P(tau) d tau         P through f_n, f_{n-1}, ..., of k slopes: order k
    evaluate   f_p     = f(t_n + h, p)
    correct    y_{n+1} = y_n + int_0^h Q(tau) d tau         Q through f_p too: order k + 1
    evaluate   f_{n+1} = f(t_n + h, y_{n+1})

Adams-Bashforth takes p as the solution and leaves the two lines in the middle out. The weights are found anew in each
step from the sizes of the last steps, so steps may be of any size (Krogh 1969; Hairer, Norsett, Wanner I, chapter
III.5); with equal steps they are the classical ones. Steps of Dormand-Prince 5(4) make the first slopes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.integrators.dense import hermite
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.dopri5 import Dopri5
from isocline.integrators.terms import ODE

METHOD = Method(
    "adams",
    "Adams-Bashforth-Moulton",
    "An attempt to test the theories of capillary action",
    "Bashforth, Adams",
    1883,
    "",
    room="integrators.methods",
    when="Fields that are dear to evaluate and smooth: fixed steps with one or two evaluations, whatever the order.",
)
STARTER = Dopri5()


def integral(sizes: list[Tensor], slopes: list[Tensor], h: Tensor, predicted: Tensor | None = None) -> Tensor:
    """Return the integral over the step of the polynomial through the slopes, shape (*).

    Args:
        sizes: of the last steps, the latest first, one fewer than there are slopes.
        slopes: at the start of this step, of the last one, ...
        h: size of this step.
        predicted: slope at the end of this step, where it is to count.
    """
    places = torch.stack([torch.zeros_like(h), *sizes]).double().cumsum(0).neg()
    if predicted is not None:
        places, slopes = torch.cat([places, h.double()[None]]), [*slopes, predicted]
    span = h.double() - places[len(sizes)]
    powers = torch.arange(len(slopes), device=h.device)
    nodes = (places / span).movedim(0, -1)[..., None, :] ** powers[:, None]
    moments = (h / span)[..., None] ** (powers + 1) / (powers + 1)
    weights = torch.linalg.solve(nodes, moments) * span[..., None]
    first, *rest = (w * f for w, f in zip(weights.to(h.dtype).unbind(-1), slopes, strict=True))
    return sum(rest, first)


@dataclass(frozen=True)
class _Adams:
    """What both kinds share: the history, as (slope, slope, size, slope, size, ...) from the latest on."""

    order: int

    @property
    def error_order(self) -> int:
        """Zero: there is no error estimate."""
        return 0

    @property
    def dense_order(self) -> int:
        """Order of accuracy inside a step."""
        return min(self.order, 3)

    @property
    def slopes(self) -> int:
        """Number of slopes that are kept."""
        return self.order

    def start(self, terms: ODE, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the first slope where it is known already."""
        return () if f is None else (f,)

    def step(self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step; while the history is short, one of Dormand and Prince's."""
        known = state or (terms.vf(t, y),)
        if len(known) < 2 * self.slopes - 1:
            first = STARTER.step(terms, t, h, y, known[:1])
            y1, f1, cost = first.y, first.state[0], first.evaluations
        else:
            y1, f1, cost = self._advanced(terms, t, h, y, [known[0], *known[1::2]], list(known[2::2]))
        history = (f1, known[0], h, *known[1:])[: 2 * self.slopes - 1]
        return Step(y1, None, hermite(y, y1, h, known[0], f1), history, known, cost + (0 if state else 1))

    def _advanced(
        self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, slopes: list[Tensor], sizes: list[Tensor]
    ) -> tuple[Tensor, Tensor, int]:
        """Return the next state, its slope and the number of evaluations."""
        raise NotImplementedError


@METHOD.variant(order=None)
@dataclass(frozen=True)
class AdamsBashforth(_Adams):
    """Adams-Bashforth of order 1 to 6: one evaluation a step, no error estimate.

    Not where the field is stiff or damped: the region of stability shrinks quickly with the order, on the real axis
    from -2 (order 1) over -0.3 (4) to -0.088 (6). Each of the first ``order - 1`` steps costs six evaluations, and so
    does the start after a jump. States inside a step come from the cubic Hermite interpolant. Source: Hairer,
    Norsett, Wanner, Solving ODEs I (1993), chapter III.1.

    Args:
        order: order of accuracy, 1 to 6.
    """

    order: int = 4

    def __post_init__(self) -> None:
        require(1 <= self.order <= 6, f"Adams-Bashforth methods have order 1 to 6 here, got {self.order}")

    def _advanced(
        self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, slopes: list[Tensor], sizes: list[Tensor]
    ) -> tuple[Tensor, Tensor, int]:
        y1 = y + integral(sizes, slopes, h)
        return y1, terms.vf(t + h, y1), 1


@METHOD.variant(order=None)
@dataclass(frozen=True)
class AdamsBashforthMoulton(_Adams):
    """Adams-Bashforth-Moulton of order 2 to 6 (predict, evaluate, correct, evaluate): two evaluations a step, no error estimate.

    Smaller errors and a larger region of stability than Adams-Bashforth of the same order. Not where the field is
    stiff. Each of the first ``order - 2`` steps costs six evaluations, and so does the start after a jump. States
    inside a step come from the cubic Hermite interpolant. Source: Hairer, Norsett, Wanner, Solving ODEs I (1993),
    chapter III.1.

    Args:
        order: order of accuracy, 2 to 6, one more than the number of slopes that are kept.
    """

    order: int = 4

    def __post_init__(self) -> None:
        require(2 <= self.order <= 6, f"Adams-Bashforth-Moulton methods have order 2 to 6 here, got {self.order}")

    @property
    def slopes(self) -> int:
        """Number of slopes that are kept."""
        return self.order - 1

    def _advanced(
        self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, slopes: list[Tensor], sizes: list[Tensor]
    ) -> tuple[Tensor, Tensor, int]:
        predicted = y + integral(sizes, slopes, h)
        y1 = y + integral(sizes, slopes, h, terms.vf(t + h, predicted))
        return y1, terms.vf(t + h, y1), 2
