"""What all grids share: their ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.processes import GaussianProcess

End = Literal["t_min", "zero"]
Grid = Callable[..., Tensor]


def spread(
    process: GaussianProcess,
    n: int,
    forward: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
    t_max: float | None,
    t_min: float | None,
    end: End,
) -> Tensor:
    """Return ``n + 1`` times whose images under `forward` are equally spaced; ends are exact."""
    require(isinstance(n, int) and n >= 1, f"a grid needs at least one step, got {n}")
    if end not in ("t_min", "zero"):
        raise InvalidInput(f"a grid ends at 't_min' or at 'zero', got {end!r}")
    first = process.t_max if t_max is None else float(t_max)
    last = process.t_min if t_min is None else float(t_min)
    require(
        0 <= last < first <= process.t_max, f"a grid needs 0 <= t_min < t_max <= {process.t_max}, got {last}, {first}"
    )
    if end == "zero" and float(process.sigma(0.0)) != 0.0:
        raise InvalidInput(f"{process.describe()} has noise at time 0; end its grids at 't_min'")
    extra = end == "zero" and last > 0  # a grid that reaches 0 by itself needs no further row
    if extra and n == 1:
        return torch.tensor([first, 0.0], dtype=torch.float64)
    steps = n - 1 if extra else n
    ends = forward(torch.tensor([first, last], dtype=torch.float64))
    require(bool(torch.isfinite(ends).all()), _infinite(process, first, last))
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = inverse(ends[0] + ramp * (ends[1] - ends[0]))
    times[0], times[-1] = first, last
    return torch.cat([times, times.new_zeros(1)]) if extra else times


def _infinite(process: GaussianProcess, first: float, last: float) -> str:
    return (
        f"this grid needs finite noise levels, but {process.describe()} has none at t = {first:g} or t = {last:g}; "
        "pass t_max or t_min inside that range"
    )
