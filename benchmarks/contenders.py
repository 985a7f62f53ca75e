"""What takes part in the comparisons: one sampler with all its settings, run on an exact denoiser with exactly `calls` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.exact_beds import Bed, End

Run = Callable[[Bed, Tensor, int], Tensor | None]
OURS = "isocline"


@dataclass(frozen=True)
class Contender:
    """One row of the tables.

    Args:
        package: whose sampler it is.
        name: sampler, grid and settings; unique within a package and an end.
        end: where it ends, and which reference it is compared with.
        run: ``(bed, start, calls) -> end states``, or None where it cannot use exactly so many calls.
    """

    package: str
    name: str
    end: End
    run: Run

    @property
    def key(self) -> str:
        """What names the row in files."""
        return f"{self.package} | {self.name} | {self.end}"


@torch.no_grad()
def checked_run(contender: Contender, bed: Bed, start: Tensor, calls: int) -> Tensor | None:
    """Return end states, or None; refuse a contender that made another number of calls."""
    before = bed.model.calls
    x = contender.run(bed, start, calls)
    if x is None:
        return None
    made = bed.model.calls - before
    if made != calls:
        raise RuntimeError(f"{contender.key} made {made} calls instead of {calls}")
    return x.double()
