r"""Choosing nodes out of a fine grid: what tuners of times by dynamic programming share.

The fine grid divides each step of the base plan, so the base's own grid is one of those a search can find, and the ends are the
base's, a clean one at time 0 and a start without signal included. A step of the search is Euler's, in ``(y, s)``

    y' = r y + (1 - r) D ,   r = s' / s ,      that is   x' = (sigma' / sigma) x + alpha' (1 - r) D ,

from one node to all later ones with one network call. Steps of other solvers depend on more than where they start and end, which
no such search can carry; the times found serve the base's own solver.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline.plans.plan import Plan
from isocline.plans.solvers.rows import Levels
from isocline.plans.tuners.best import Best
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.paths import refined
from isocline.plans.tuners.recompile import solver_of
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser
from isocline.processes.wrapper import Wrapper


class OutOfTime(Exception):
    """The time for a search is over."""


class Timed(Wrapper):
    """A denoiser that refuses calls after a time.

    Args:
        inner: the denoiser that does the work.
        end: monotonic time of the last call in seconds, or None.
    """

    def __init__(self, inner: Denoiser, end: float | None) -> None:
        super().__init__(inner)
        self.end = end

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the inner denoiser's output, or raise `OutOfTime`."""
        if self.end is not None and time.monotonic() > self.end:
            raise OutOfTime
        return self.inner(x, t, cond)


class Search:
    """What every search keeps: the best plan, the calls and the time.

    Args:
        base: the deterministic plan to start from; same ends as the teacher.
        denoiser: the model.
        calibration: train and validation noises.
        seconds: wall time after which no network call is made but those that measure a plan, or None.

    Raises:
        InvalidInput: the base is stochastic, has other ends than the teacher, or no solver made it.
    """

    def __init__(self, base: Plan, denoiser: Denoiser, calibration: Calibration, seconds: float | None) -> None:
        require(not base.stochastic, "only deterministic plans can be tuned against a teacher's end point")
        calibration.check_comparable(base)
        solver_of(base)
        self._start, self._calls = time.monotonic(), denoiser.calls
        self.denoiser = Timed(denoiser, None if seconds is None else self._start + seconds)
        self.train = calibration.train
        self.best = Best(base, denoiser, calibration.validation)

    def for_each(self, size: int, work: Callable[[NoiseSet], Tensor], bar: Progress | None) -> list[Tensor]:
        """Return what `work` makes of the training noises in parts of `size`: of those that were finished in time."""
        found = []
        with suppress(OutOfTime):
            for first in range(0, len(self.train), size):
                part = self.train.take(slice(first, first + size))
                found.append(work(part))
                if bar is not None:
                    bar.advance(len(part))
        return found

    def result(self) -> Tuned:
        """Return the best plan with its cost so far."""
        cost = Cost(self.denoiser.calls - self._calls, 0, time.monotonic() - self._start)
        return Tuned(self.best.plan, self.best.history, cost)


def fine_grid(base: Plan, nodes: int) -> Tensor:
    """Return at least ``nodes + 1`` times: the nodes of `base`, and as many between each two, equally spaced in log noise level.

    A step that ends clean is divided down to ``t_min``, as `refined` does, and a step from ``t_min`` or below it is left whole.
    """
    grid = base.nodes.detach()
    each = -(-nodes // (len(grid) - 1))
    parts = []
    for first, last in pairwise(grid.tolist()):
        whole = last == 0 and first <= base.process.t_min
        parts.append(grid.new_tensor([first]) if whole else refined(base.process, first, last, each)[:-1])
    return torch.cat([*parts, grid[-1:]])


@torch.no_grad()
def clean(base: Plan, denoiser: Denoiser, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
    """Return the data prediction at states `x` (B, *) and time `t`, with the plan's threshold; one network call."""
    x0 = denoiser.predict(x, t, cond).x0
    return x0 if base.threshold is None else base.threshold(x0)


def euler_to_all(levels: Levels, i: int, x: Tensor, x0: Tensor) -> Tensor:
    """Return where Euler's step with data prediction `x0` (B, *) leads from `x` (B, *) at node `i`: (n - i, B, *)."""
    share = 1 - levels.s[i + 1 :] / levels.s[i]
    return per_node(levels.sigma[i + 1 :] / levels.sigma[i], x) * x + per_node(levels.alpha[i + 1 :] * share, x) * x0


def per_node(values: Tensor, x: Tensor) -> Tensor:
    """Return `values` (m,) so that they multiply `x` (B, *) into (m, B, *)."""
    return values.to(x).reshape(-1, *([1] * x.ndim))
