"""The teacher's states between start and end, at any nodes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.plan import Plan
from isocline.plans.solvers import flow_heun, heun
from isocline.plans.tuners.calibration import NoiseSet
from isocline.processes import Denoiser, GaussianProcess


class TeacherPaths:
    """States on the model's own flow, by Heun's method with `substeps` steps between neighbouring nodes; any start is allowed.

    Paths are kept, so that several tuners that ask for the same nodes pay once.

    Args:
        denoiser: the model.
        noises: start states and conditions; the targets are not used.
        substeps: steps between neighbouring nodes, equal in log noise level.
        batch: samples in each run.

    Attributes:
        calls: network calls that were made for each sample.
    """

    def __init__(self, denoiser: Denoiser, noises: NoiseSet, substeps: int = 10, batch: int = 64) -> None:
        require(substeps >= 1, f"a teacher needs at least 1 step between nodes, got {substeps}")
        self.denoiser, self.noises, self.substeps, self.batch = denoiser, noises, substeps, batch
        self.calls = 0
        self._kept: dict[tuple[float, ...], Tensor] = {}

    def at(self, nodes: Tensor) -> Tensor:
        """Return the states (n+1, N, *) at strictly decreasing `nodes` (n+1,); the first is the start itself."""
        key = tuple(nodes.detach().tolist())
        if key not in self._kept:
            plans = [self._between(a, b) for a, b in pairwise(key)]
            parts = [self._walk(plans, slice(k, k + self.batch)) for k in range(0, len(self.noises), self.batch)]
            self._kept[key] = torch.cat(parts, dim=1)
            self.calls += sum(plan.calls for plan in plans)
        return self._kept[key]

    def _between(self, first: float, last: float) -> Plan:
        process = self.denoiser.process
        method = heun if float(process.alpha(first)) > 0 else flow_heun  # from a start without signal, for the velocity
        return method(process, refined(process, first, last, self.substeps)).for_guidance(self.denoiser.guidance)

    def _walk(self, plans: list[Plan], rows: slice) -> Tensor:
        part = self.noises.take(rows)
        states = [part.x]
        for plan in plans:
            states.append(plan.run(self.denoiser, states[-1], cond=part.cond).x)
        return torch.stack(states)


def refined(process: GaussianProcess, first: float, last: float, steps: int) -> Tensor:
    """Return ``steps + 1`` times from `first` to `last`, equally spaced in log noise level where both levels are finite.

    Towards a clean end the steps shrink down to ``t_min`` and one more leads to 0; from a start without signal they are equal
    in time.
    """
    least = min(process.t_min or first / 100, first / 2)
    ends = torch.tensor([first, last if last > 0 else least], dtype=torch.float64)
    share = torch.linspace(0, 1, (steps if last > 0 else max(steps - 1, 1)) + 1, dtype=torch.float64)
    lam = process.half_log_snr(ends)
    if bool(torch.isfinite(lam).all()):
        times = process.time_of(lam[0] + share * (lam[1] - lam[0]))
    else:
        times = ends[0] + share * (ends[1] - ends[0])
    times[0], times[-1] = ends
    return times if last > 0 else torch.cat([times, times.new_zeros(1)])
