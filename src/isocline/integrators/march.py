"""Steps of one size, made without a decision between them.

Where steps are of one size, nothing is looked at until a state is asked for, or the end: `march` then makes all steps up to
there in one go. If the state there is not finite, or a step was not solved, nothing of it is kept, and the loop makes the
same steps again to find the place.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import torch

from isocline.integrators.controllers.constant import Constant
from isocline.integrators.problem import Problem

if TYPE_CHECKING:
    from isocline.integrators.loop import Loop

STRETCH = 1 + 1e-6  # a step is stretched so far, rather than leaving a tiny last one


def plain(p: Problem) -> bool:
    """Return whether nobody looks at single steps."""
    watched = p.record or p.events or p.on_step is not None or p.attempt is not None or p.save.steps or p.save.dense
    return type(p.controller) is Constant and not p.shape and not watched


def march(loop: Loop) -> None:
    """Make the steps that fit before the next time at which something is asked for, as `Loop` would make them one by one."""
    limit, h = loop.next_call(), loop.h
    starts: list[float] = []
    s = loop.s
    while len(starts) < loop.problem.max_steps - loop.tried - 1 and s + h * STRETCH < limit:  # the loop makes one more
        starts.append(s)
        s = s + h
    if len(starts) < 2 or loop.failed_march:
        return
    at = loop.t0 + loop.sign * np.array(starts)
    times = torch.as_tensor(at).to(loop.y.device, loop.real).unbind(0)
    size, signed = loop.tensor(loop.sign * h), loop.sign * h
    y, state, step, terms = loop.y, loop.state, loop.problem.method.step, loop.terms
    before = 0 if loop.counter is None else loop.counter.evaluations
    evaluations, unsolved = 0, []
    each = terms.consecutive(at, signed) if loop.noisy else repeat(terms)
    for now, t in zip(each, times, strict=False):
        made = step(now, t, size, y, state)
        y, state = made.y, made.state
        evaluations += made.evaluations
        if made.failed is not None:
            unsolved.append(made.failed)
    if not bool(torch.isfinite(y.detach()).all()) or (unsolved and bool(torch.stack(unsolved).any())):
        loop.failed_march = True
        if loop.counter is not None:
            loop.counter.evaluations = before
        return
    loop.y, loop.state, loop.s = y, state, s
    loop.tried += len(starts)
    loop.accepted[0] += len(starts)
    loop.count(evaluations)
