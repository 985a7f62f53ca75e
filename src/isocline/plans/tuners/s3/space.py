"""The space that S3 searches: which of a fine set of times are nodes, and a strategy for each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.plans import grids
from isocline.plans.plan import Plan
from isocline.plans.tuners.paths import refined
from isocline.plans.tuners.s3.usf import CHOICES, Strategy, usf

Kind = Callable[[int], Strategy]  # step -> strategy


@dataclass(frozen=True)
class Schedule:
    """One point of the space: places (n-1,) of the inner nodes in the fine set, ascending, and ``n`` strategies."""

    places: tuple[int, ...]
    strategies: tuple[Strategy, ...]


def known_strategies() -> list[Kind]:
    """Return published solvers as strategies: DDIM, DPM-Solver++, exponential Adams, lam-Adams, UniPC, DPM-Solver single-step."""
    kinds: list[Kind] = [
        lambda i: Strategy(),
        lambda i: Strategy(order=2, scaling="bh2"),
        lambda i: Strategy(order=3, scaling="bh2"),
        lambda i: Strategy(order=2),
        lambda i: Strategy(order=3),
        lambda i: Strategy("noise", order=2),
        lambda i: Strategy("noise", order=3),
        lambda i: Strategy(order=2, scaling="bh2", corrected=True),
        lambda i: Strategy(order=2, scaling="bh1", corrected=True),
        lambda i: Strategy(order=3, scaling="bh2" if i < 2 else "exact", corrected=True),
        lambda i: Strategy("noise", order=2, scaling="bh2", corrected=True),
        lambda i: Strategy(start=i % 2, order=1 + i % 2, scaling="bh2"),
    ]
    return kinds


class Space:
    """Schedules with the process, ends and number of calls of a base plan.

    Args:
        base: a plan.
        resolution: equal steps of the fine set; the nodes of `base` and of the usual grids are added to it.

    Attributes:
        fine: (M,) times of the fine set, decreasing, with both ends.
        steps: number of steps, and calls, of a schedule.
    """

    def __init__(self, base: Plan, resolution: int = 64) -> None:
        self.process, self.steps = base.process, base.calls
        nodes = base.nodes.detach()
        even = refined(base.process, float(nodes[0]), float(nodes[-1]), resolution)
        self._grids = _usual_grids(base)
        self.fine = _merged([even, *self._grids])
        self._even = self._places(even)
        require(len(self._even) >= self.steps, f"a fine set of {resolution} steps is too small for {self.steps} calls")
        lam = base.process.half_log_snr(self.fine)
        inner = lam[torch.isfinite(lam)]
        self._lam = lam.clamp(inner.min() - 1, inner.max() + 1)

    def plan(self, schedule: Schedule) -> Plan:
        """Return the plan of a schedule."""
        return usf(self.process, self.fine[[0, *schedule.places, len(self.fine) - 1]], schedule.strategies)

    def described(self, schedule: Schedule) -> dict[str, Any]:
        """Return a schedule as plain data."""
        times = self.fine[list(schedule.places)].tolist()
        return {"inner_times": times, "strategies": [asdict(strategy) for strategy in schedule.strategies]}

    def known(self) -> list[Schedule]:
        """Return every published solver on every usual grid."""
        known = [[kind(i) for i in range(self.steps)] for kind in known_strategies()]
        return list(dict.fromkeys(self._schedule(self._places(grid), s) for grid in self._grids for s in known))

    def random(self, rng: np.random.Generator) -> Schedule:
        """Return a random schedule: nodes equally likely among the equal steps of the fine set, strategies among all."""
        places = sorted(rng.choice(self._even, self.steps - 1, replace=False).tolist())
        return self._schedule(places, [_random_strategy(rng) for _ in range(self.steps)])

    def mutated(self, schedule: Schedule, rng: np.random.Generator) -> Schedule:
        """Return a schedule with one to three changes, each of a node or of one choice of one strategy."""
        places, strategies = list(schedule.places), list(schedule.strategies)
        for _ in range(rng.integers(1, 4)):
            if places and rng.random() < 0.5:
                self._move(places, int(rng.integers(len(places))), rng)
            else:
                i, name = int(rng.integers(self.steps)), list(CHOICES)[rng.integers(len(CHOICES))]
                strategies[i] = replace(strategies[i], **{name: _choice(rng, CHOICES[name])})
        return self._schedule(places, strategies)

    def crossed(self, first: Schedule, second: Schedule, rng: np.random.Generator) -> Schedule:
        """Return the first steps of one schedule with the later ones of another, cut at a random step.

        Nodes that would not fall in order are drawn from those of both.
        """
        cut = int(rng.integers(1, self.steps)) if self.steps > 1 else 0
        places = [*first.places[:cut], *second.places[cut:]]
        if not all(a < b for a, b in pairwise(places)):
            both = sorted({*first.places, *second.places})
            places = sorted(rng.choice(both, self.steps - 1, replace=False).tolist())
        return self._schedule(places, [*first.strategies[:cut], *second.strategies[cut:]])

    def encoded(self, schedules: Sequence[Schedule]) -> Tensor:
        """Return features (len, steps, 12) in float32: place and length of each step, and its choices."""
        return torch.stack([self._features(schedule) for schedule in schedules])

    def _features(self, schedule: Schedule) -> Tensor:
        lam = self._lam[[0, *schedule.places, len(self.fine) - 1]]
        span = lam[-1] - lam[0]
        where, length = (lam[1:] - lam[0]) / span, torch.log(lam.diff() / span * self.steps)
        choices = torch.tensor([_flags(strategy) for strategy in schedule.strategies])
        return torch.cat([torch.stack([where, length], 1).float(), choices], 1)

    def _places(self, times: Tensor) -> list[int]:
        """Return where the inner ones of `times` (k,) are in the fine set."""
        return (times[1:-1, None] - self.fine).abs().argmin(1).tolist()

    def _move(self, places: list[int], k: int, rng: np.random.Generator) -> None:
        """Move node `k` somewhere between its neighbours, half of the time by at most three places."""
        low = places[k - 1] + 1 if k > 0 else 1
        high = places[k + 1] - 1 if k + 1 < len(places) else len(self.fine) - 2
        if rng.random() < 0.5:
            low, high = max(low, places[k] - 3), min(high, places[k] + 3)
        places[k] = int(rng.integers(low, high + 1))

    def _schedule(self, places: Sequence[int], strategies: Sequence[Strategy]) -> Schedule:
        """Return the schedule with each strategy reduced to what matters, so that schedules that do the same are equal."""
        return Schedule(tuple(places), tuple(s.reduced(i, self.steps) for i, s in enumerate(strategies)))


def _usual_grids(base: Plan) -> list[Tensor]:
    """Return the usual grids with the ends and number of calls of `base`, and its own where it has as many steps."""
    nodes = base.nodes.detach()
    clean = float(nodes[-1]) == 0.0
    ends: dict[str, Any] = {"t_max": float(nodes[0]), "t_min": float(nodes[-2 if clean else -1])}
    found = [nodes] if len(nodes) == base.calls + 1 else []
    for grid in (grids.karras, grids.log_snr, grids.exponential, grids.quadratic, grids.uniform):
        with suppress(InvalidInput):  # not all of them take a start without signal
            times = grid(base.process, base.calls, **ends, end="zero" if clean else "t_min")
            found.append(torch.cat([nodes[:1], times[1:-1], nodes[-1:]]))
    return found


def _merged(grids: list[Tensor]) -> Tensor:
    """Return all times, decreasing; those that differ by rounding are one."""
    times = torch.cat(grids).unique().flip(0)
    apart = times[:-1] - times[1:] > 1e-9 * times[:-1]
    return torch.cat([times[:1], times[1:][apart]])


def _random_strategy(rng: np.random.Generator) -> Strategy:
    return Strategy(**{name: _choice(rng, known) for name, known in CHOICES.items()})


def _choice(rng: np.random.Generator, known: tuple[Any, ...]) -> Any:
    return known[rng.integers(len(known))]


def _flags(strategy: Strategy) -> list[float]:
    """Return the choices as numbers: one-hot where there are three."""
    return [
        float(strategy.prediction == "noise"),
        *(float(strategy.start == k) for k in (1, 2)),
        *(float(strategy.order == k) for k in (1, 2, 3)),
        float(strategy.estimator == "low"),
        *(float(strategy.scaling == name) for name in ("bh1", "bh2")),
        float(strategy.corrected),
    ]
