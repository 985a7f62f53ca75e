"""Finding where an event happened inside a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators.controllers.base import Array, Flags
from isocline.integrators.events import Event
from isocline.integrators.methods.base import Step
from isocline.integrators.packing import Packing

if TYPE_CHECKING:
    from isocline.integrators.loop import Loop

HALVINGS = 54


@dataclass(frozen=True)
class Crossing:
    """Where events happened inside a step.

    Args:
        hit: which samples met one, shape () or (m,).
        which: the number of the event, the same shape.
        theta: where in the step, the same shape.
        y: the states there, shape (*); those of samples without an event are the ends of their steps.
        t: the time, float64, shape () or (m,); carries gradients.
    """

    hit: Flags
    which: Any
    theta: Array
    y: Tensor
    t: Tensor


def value(event: Event, terms: Any, t: Tensor, y: Tensor, packing: Packing, batched: bool) -> Tensor:
    """Return the event's condition, shape () or (m,)."""
    binding = terms.binding
    state = packing.unpack(y)
    found = (
        event.condition(t, state) if binding.args is None else event.condition(t, state, binding.rows_of(binding.args))
    )
    expected = y.shape[:1] if batched else ()
    found = torch.as_tensor(found)
    if found.numel() != (expected[0] if expected else 1):
        raise InvalidInput(
            f"the condition of {event.name!r} returned shape {tuple(found.shape)}, expected {tuple(expected)}"
        )
    return found.reshape(expected)


def signs(events: Sequence[Event], terms: Any, t: Tensor, y: Tensor, packing: Packing, batched: bool) -> list[Array]:
    """Return the values of all conditions as numbers, each of shape () or (m,)."""
    with torch.no_grad():
        return [value(e, terms, t, y, packing, batched).double().cpu().numpy() for e in events]


def located(
    events: Sequence[Event],
    before: list[Array],
    after: list[Array],
    accept: Flags,
    loop: Loop,
    step: Step,
    t: Tensor,
    size: Array,
) -> Crossing | None:
    """Return the earliest crossing of an accepted step, or None."""
    hits = [event.crossed(a, b) & accept for event, a, b in zip(events, before, after, strict=True)]
    if not any(hit.any() for hit in hits):
        return None
    thetas = [
        np.where(hit, _bisected(event, low, loop, step, t, size), np.inf)
        for event, hit, low in zip(events, hits, before, strict=True)
    ]
    theta, which = np.min(thetas, axis=0), np.argmin(thetas, axis=0)
    hit = np.isfinite(theta)
    return corrected(events, hit, which, np.where(hit, theta, 1.0), loop, step, t, size)


def _inside(loop: Loop, step: Step, theta: Tensor) -> Tensor:
    """Return the states at `theta`, shape () or (m,)."""
    if not loop.batched:
        return step.dense(theta.reshape(1))[0]
    return step.dense.rows(torch.arange(len(theta), device=step.y.device), theta)


def _at(event: Event, loop: Loop, step: Step, t: Tensor, h: Tensor, theta: Tensor) -> Tensor:
    shaped = theta.to(t.dtype) if not loop.batched else theta.to(t.dtype).reshape(-1, *[1] * (t.ndim - 1))
    y = _inside(loop, step, theta)
    return value(event, loop.terms, t + shaped * h, y, loop.problem.packing, loop.batched)


@torch.no_grad()
def _bisected(event: Event, low_value: Array, loop: Loop, step: Step, t: Tensor, size: Array) -> Array:
    """Return where the condition changes sign, by halving; meaningless where it does not."""
    h, sign = loop.tensor(loop.sign * size), np.sign(low_value)
    low, high = np.zeros_like(size), np.ones_like(size)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = _at(event, loop, step, t, h, torch.as_tensor(middle)).double().cpu().numpy()
        same = np.sign(found) == sign
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return high


def corrected(
    events: Sequence[Event], hit: Flags, which: Any, theta: Array, loop: Loop, step: Step, t: Tensor, size: Array
) -> Crossing:
    """Return the crossing with the gradient of its time, by one Newton step whose value is zero."""
    h = loop.tensor(loop.sign * size)
    place = torch.as_tensor(np.asarray(theta))
    start = torch.as_tensor(np.asarray(loop.t0 + loop.sign * loop.s))
    y = _inside(loop, step, place)
    time = start + place * torch.as_tensor(np.asarray(loop.sign * size))
    if not torch.is_grad_enabled() or not y.requires_grad:
        return Crossing(hit, which, theta, y, time)
    shift = torch.zeros_like(place)
    for number, event in enumerate(events):
        mine = torch.as_tensor(np.asarray(hit & (which == number)))
        if bool(mine.any()):
            g = _at(event, loop, step, t, h, place)
            slope = _slope(lambda x, e=event: _at(e, loop, step, t, h, x), place)
            shift = torch.where(mine, -(g / torch.where(mine, slope, 1.0)).to(shift.dtype), shift)
    direction = _slope(lambda x: _inside(loop, step, x), place)
    wide = shift.to(y.dtype).reshape(shift.shape + (1,) * (y.ndim - shift.ndim))
    return Crossing(hit, which, theta, y + direction * wide, time + shift * torch.as_tensor(loop.sign * size))


def _slope(function: Any, theta: Tensor) -> Tensor:
    """Return the derivative by `theta`, detached, where every entry depends on its own theta only."""
    return torch.autograd.functional.jvp(function, theta, torch.ones_like(theta))[1].detach()
