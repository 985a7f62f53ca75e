"""What is integrated, and one attempt at a step of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isocline.integrators.collect import Index
from isocline.integrators.controllers.base import Array, Controller, Flags
from isocline.integrators.controllers.pid import plain, rms_norm
from isocline.integrators.events import Event
from isocline.integrators.methods.base import Carry, Method, Step
from isocline.integrators.packing import Packing
from isocline.integrators.save import SaveAt
from isocline.integrators.terms import Terms

if TYPE_CHECKING:
    from isocline.integrators.loop import Loop

Attempt = tuple[Step, Tensor, Tensor | None]


@dataclass(frozen=True)
class Problem:
    """Everything that is decided before the loop starts.

    Args:
        terms: the equation, not yet bound.
        method: makes the steps.
        controller: chooses them.
        y0: packed state.
        packing: how it is packed.
        args: what the field is given besides time and state.
        t0: start, float64, shape () or (B,).
        t1: end, the same shape.
        dt0: size of the first step, or None.
        save: what is kept.
        events: what ends the integration early.
        max_steps: cap on attempts.
        record: whether attempts are recorded.
        attempt: what makes an attempt; `isocline.integrators.compiled` replaces it.
        sprint: makes many attempts at once that need no decision of the loop; `isocline.integrators.compiled` gives one.
        counted: whether evaluations are counted at the boundary of the field; otherwise methods say how many they made.
        on_step: is told of every attempt.
    """

    terms: Terms
    method: Method
    controller: Controller
    y0: Tensor
    packing: Packing
    args: Any
    t0: Array
    t1: Array
    dt0: float | None = None
    save: SaveAt = field(default_factory=SaveAt)
    events: Sequence[Event] = ()
    max_steps: int = 4096
    record: bool = False
    attempt: Callable[..., Attempt] | None = None
    sprint: Callable[[Loop, Array], None] | None = None
    counted: bool = True
    on_step: Callable[[StepTaken], None] | None = None

    @property
    def sign(self) -> float:
        """1 forward in time, -1 backward."""
        return 1.0 if bool((self.t1 >= self.t0).all()) else -1.0

    def view(self, elapsed: Array, states: Tensor) -> Tensor:
        """Return what is kept of states (m, *) at elapsed times (m,), where the whole state shares its steps."""
        if self.save.fn is None:
            return states
        times = torch.as_tensor(self.t0 + self.sign * elapsed).to(states.device, self.real)
        seen = [self.save.fn(t, self.packing.unpack(y)) for t, y in zip(times, states, strict=True)]
        return torch.stack(seen)

    @property
    def real(self) -> torch.dtype:
        """The precision in which times are shown to the field: that of the state."""
        return self.y0.real.dtype if self.y0.is_complex() else self.y0.dtype

    @property
    def inside(self) -> bool:
        """Whether states inside of steps can be asked for."""
        return self.save.ts is not None or self.save.dense or bool(self.events) or self.record

    @property
    def shape(self) -> tuple[int, ...]:
        """() where the whole state shares its steps, (B,) where every sample has its own."""
        return self.t0.shape

    @property
    def event_dims(self) -> int:
        """Number of axes over which errors are averaged."""
        return self.y0.ndim - len(self.shape)


@dataclass(frozen=True)
class StepTaken:
    """One attempt, as gradient modes need it to make the same step again.

    Args:
        active: samples under way, (m,), or None where the whole state shares its steps.
        accept: which of them took the step, shape () or (m,).
        t: its start.
        h: its size, signed.
        elapsed: start in elapsed time.
        size: positive size.
        y: state before.
        state: what the method carried before.
    """

    active: Index | None
    accept: Flags
    t: Array
    h: Array
    elapsed: Array
    size: Array
    y: Tensor
    state: Carry


def attempt(
    method: Method,
    controller: Controller,
    terms: Any,
    t: Tensor,
    h: Tensor,
    y: Tensor,
    state: Carry,
    event_dims: int,
    inside: bool,
) -> Attempt:
    """Return a step, its error in units of what is tolerated, and the size of its error (root mean square).

    `inside` says whether states inside the step may be asked for; the eager step has them either way.
    """
    step = method.step(terms, t, h, y, state)
    ratio = controller.ratio(step.error, y, step.y, event_dims)
    if step.failed is not None:
        ratio = torch.where(step.failed, torch.inf, ratio)
    seen = step.error is not None and controller.adaptive
    return step, ratio, rms_norm(plain(step.error), event_dims) if seen else None  # type: ignore[arg-type]
