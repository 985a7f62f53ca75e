"""What is kept while the loop runs, and how it becomes one tensor at the end.

Where the whole state shares its steps the kept states are pieces along a time axis. Where samples have steps of their own each
piece comes with the samples and the places it belongs to, and everything is put in place once, at the end, so that gradients see
one operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isocline.integrators.controllers.base import Array
from isocline.integrators.methods.base import Step

Index = NDArray[np.int64]


@dataclass
class Shared:
    """States that are kept where the whole state shares its steps.

    Args:
        want: elapsed times, sorted, shape (T,).
    """

    want: Array
    times: list[Array] = field(default_factory=list)
    pieces: list[Tensor] = field(default_factory=list)

    def add(self, elapsed: Array, states: Tensor) -> None:
        """Keep states (m, *) at elapsed times (m,)."""
        self.times.append(np.asarray(elapsed))
        self.pieces.append(states)

    def inside(self, s: Array, h: Array, step: Step, reached: Array) -> None:
        """Keep the wanted states of one accepted step, up to the elapsed time `reached`."""
        low = np.searchsorted(self.want, s, side="right")
        high = np.searchsorted(self.want, reached, side="right")
        if high > low:
            self.add(self.want[low:high], _states(step, (self.want[low:high] - s) / h))

    def stacked(self, total: int | None = None) -> tuple[Array, Tensor | None]:
        """Return elapsed times (T,) and states (T, *), NaN up to `total` where fewer were reached."""
        if not self.pieces:
            return np.zeros(0), None
        times, states = np.concatenate(self.times), torch.cat(self.pieces)
        missing = (total or 0) - len(times)
        if missing > 0:
            times = np.concatenate([times, self.want[-missing:]])
            states = torch.cat([states, states.new_full((missing, *states.shape[1:]), torch.nan)])
        return times, states


@dataclass
class Separate:
    """States that are kept where samples have steps of their own.

    Args:
        batch: number of samples.
        want: elapsed times, shape (B, T); NaN where nothing is asked for.
    """

    batch: int
    want: Array
    samples: list[Index] = field(default_factory=list)
    slots: list[Index] = field(default_factory=list)
    times: list[Array] = field(default_factory=list)
    pieces: list[Tensor] = field(default_factory=list)

    def add(self, samples: Index, slots: Index, elapsed: Array, states: Tensor) -> None:
        """Keep states (m, *): row j is sample ``samples[j]`` at place ``slots[j]``."""
        self.samples.append(samples)
        self.slots.append(slots)
        self.times.append(np.asarray(elapsed))
        self.pieces.append(states)

    def inside(self, active: Index, s: Array, h: Array, step: Step, reached: Array) -> None:
        """Keep the wanted states of one step of the active samples, up to the elapsed times `reached` (``s`` where rejected)."""
        if not self.want.shape[1]:
            return
        mine = self.want[active]
        row, slot = np.nonzero((mine > s[:, None]) & (mine <= reached[:, None]))
        if len(row):
            elapsed = mine[row, slot]
            theta = torch.as_tensor((elapsed - s[row]) / h[row])
            states = step.dense.rows(torch.as_tensor(row, device=step.y.device), theta.to(step.y.device))
            self.add(active[row], slot, elapsed, states)

    def stacked(self, total: int | None = None) -> tuple[Array, Tensor | None]:
        """Return elapsed times (B, T) and states (B, T, *), NaN where nothing was reached, zero where nothing was asked for."""
        if not self.pieces:
            return np.zeros((self.batch, 0)), None
        samples, slots = np.concatenate(self.samples), np.concatenate(self.slots)
        values = torch.cat(self.pieces)
        width = int(slots.max()) + 1 if total is None else total
        times = np.full((self.batch, width), np.nan)
        if total is not None:
            times[:] = self.want
        times[samples, slots] = np.concatenate(self.times)
        out = values.new_full((self.batch, width, *values.shape[1:]), torch.nan)
        if total is not None:
            out[torch.as_tensor(np.isnan(self.want), device=values.device)] = 0.0
        index = tuple(torch.as_tensor(i, device=values.device) for i in (samples, slots))
        return times, out.index_put(index, values)


def _states(step: Step, theta: Array) -> Tensor:
    """Return the states (m, *) inside a step; its end exactly."""
    if theta[-1] < 1.0:
        return step.dense(torch.as_tensor(theta))
    if len(theta) == 1:
        return step.y[None]
    return torch.cat([step.dense(torch.as_tensor(theta[:-1])), step.y[None]])


def joined(parts: Sequence[tuple[Array, Tensor | None]], batched: bool) -> tuple[Array, Tensor | None]:
    """Return the times and states of all parts, along the time axis."""
    axis = 1 if batched else 0
    held: list[Any] = [(times, states) for times, states in parts if states is not None]
    if not held:
        return parts[0][0], None
    return np.concatenate([t for t, _ in held], axis), torch.cat([y for _, y in held], axis)
