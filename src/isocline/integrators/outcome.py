"""From the loop's books to a `Solution`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isocline.integrators.collect import Index, joined
from isocline.integrators.controllers.base import Array
from isocline.integrators.solution import Dense, Solution, Stats, Status, StepRecord

if TYPE_CHECKING:
    from isocline.integrators.loop import Loop


def solution_of(loop: Loop) -> Solution:
    """Return what was kept, in the user's structure."""
    p = loop.problem
    elapsed, states = _kept(loop)
    unpack = p.packing.unpack if p.save.fn is None else lambda y: y
    final = loop.kept[3].stacked()[1]
    ends = loop.ends if loop.batched else loop.ends[0]
    plain = (lambda x: x) if loop.batched else (lambda x: int(x[0]))
    return Solution(
        ts=torch.as_tensor(p.t0[..., None] + loop.sign * elapsed),
        ys=None if states is None else unpack(states),
        y1=p.packing.unpack(final[:, 0] if loop.batched else final[0]),
        stats=Stats(*map(plain, (loop.nfe, loop.accepted, loop.rejected))),
        status=Status(tuple(loop.reasons), tuple(np.atleast_1d(p.t0 + loop.sign * ends).tolist())),
        error_estimate=_error(loop),
        events=tuple(loop.named),
        record=_record(loop) if p.record else None,
        dense=Dense(*loop.pieces, p.packing) if p.save.dense else None,
        final_carry=() if loop.batched else loop.state,
        t1=loop.t_final,
    )


def _kept(loop: Loop) -> tuple[Array, Tensor | None]:
    """Return elapsed times and what was kept at them, in the order of the request."""
    p = loop.problem
    total = p.save.times(p.shape, p.t0, p.t1).shape[-1]
    wanted = (p.save.t0, total > 0, p.save.steps, p.save.t1)
    chosen = [(held, total if k == 1 else None) for k, held in enumerate(loop.kept) if wanted[k]]
    if not chosen:
        return np.zeros((*p.shape, 0)), None
    elapsed, states = joined([held.stacked(count) for held, count in chosen], loop.batched)
    return elapsed, states if states is None or loop.batched else p.view(elapsed, states)


def _error(loop: Loop) -> Any:
    if loop.errors is None:
        return None
    return loop.errors.double().cpu().numpy() if loop.batched else float(loop.errors)


def _record(loop: Loop) -> StepRecord:
    def column(k: int, fill: float) -> Tensor:
        found = [_spread(loop, entry[k], entry[0], fill) for entry in loop.records]
        return torch.stack(found) if found else torch.zeros(0)

    known = bool(loop.records) and all(entry[5] is not None for entry in loop.records)
    return StepRecord(
        t=column(1, torch.nan),
        h=column(2, 0.0),
        ratio=column(3, 0.0),
        accepted=column(4, 0),
        stiffness=column(5, 0.0) if known else None,
        evaluations=torch.tensor([entry[6] for entry in loop.records]),
    )


def _spread(loop: Loop, values: Any, active: Index, fill: float) -> Tensor:
    """Return one number a sample, `fill` for those that had ended."""
    values = torch.as_tensor(values)
    if not loop.batched:
        return values
    out = torch.full(loop.problem.shape, fill, dtype=values.dtype, device=values.device)
    return out.index_put((torch.as_tensor(active, device=values.device),), values)
