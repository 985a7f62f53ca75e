r"""S3: search for a solver schedule by evolution, with a predictor that decides what is worth measuring (arXiv 2312.07243).

    measure the known solvers on the usual grids, and random schedules
    until the budget is spent:
        fit the predictor to all measured schedules
        breed litters from the best of them, by crossover and mutation
        measure that of each litter which the predictor ranks first

Measuring a schedule means running it on the training noises; nothing is differentiated. After each round the best schedule so far
is tried on the validation noises. The paper's predictor reads a schedule step by step and ranks all candidates together; here it is
a small MLP on all steps at once, and ranks within a litter, which keeps the population varied.

Evolution does most of the work. On the smooth exact mixture, 8 calls and 300 evaluations, it left about half of the error of random
schedules with or without the predictor; what the predictor adds was within the scatter between seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import IsoclineError, require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.stream import Stream, as_stream
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.s3.objective import rms_error
from isocline.plans.tuners.s3.predictor import fitted_predictor
from isocline.plans.tuners.s3.space import Schedule, Space
from isocline.plans.tuners.s3.usf import USF
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

FINALISTS = 10  # schedules that are tried on the validation noises at the end

Objective = Callable[[Tensor, Tensor], float]


@USF.variant()
@dataclass(frozen=True)
class S3:
    """Search times and strategies of each step. Works with any model and any measure of quality; needs no gradients.

    The base plan gives process, ends and number of calls; its nodes are among the times.

    Args:
        evaluations: schedules that are measured, at most.
        initial: how many of them make the first population: the known solvers, then random schedules.
        each: measured in each round.
        pool: size of a litter: schedules bred for each one measured, among which the predictor chooses; with 1 it is off.
        parents: best schedules that breed.
        objective: ``(samples, teacher's samples) -> error``; see `isocline.plans.tuners.s3.objective`.
        resolution: size of the fine set of times.
        batch: noises run at once.
    """

    evaluations: int = 1000
    initial: int = 100
    each: int = 25
    pool: int = 20
    parents: int = 30
    objective: Objective = rms_error
    resolution: int = 64
    batch: int = 64

    def __post_init__(self) -> None:
        for name in ("evaluations", "each", "pool", "resolution", "batch"):
            require(getattr(self, name) >= 1, f"S3 needs {name} of at least 1, got {getattr(self, name)}")
        least = min(self.initial, self.parents)
        require(least >= 2, f"S3 needs initial and parents of at least 2, got {self.initial} and {self.parents}")

    def fit(
        self,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream | int,
        *,
        seconds: float | None = None,
        bar: Progress | None = None,
    ) -> Tuned:
        """Return the best plan found.

        Args:
            base: a deterministic plan with the teacher's ends.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: random schedules, changes and the predictor's start.
            seconds: stop after so much wall time, keeping the best plan.
            bar: progress to advance by one for each evaluation.
        """
        calibration.check_comparable(base)
        require(not base.stochastic, "only deterministic plans can be compared with a teacher's end point")
        start, calls = time.monotonic(), denoiser.calls
        deadline = math.inf if seconds is None else start + seconds
        search = _Search(self, base, denoiser, calibration, as_stream(rng, "s3"), deadline, bar)
        search.run()
        return Tuned(search.best, search.history, Cost(denoiser.calls - calls, 0, time.monotonic() - start))


class _Search:
    """The state of a search."""

    def __init__(
        self,
        settings: S3,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream,
        deadline: float,
        bar: Progress | None,
    ) -> None:
        self.settings, self.base, self.denoiser, self.calibration = settings, base, denoiser, calibration
        self.stream, self.deadline, self.bar = rng, deadline, bar
        self.rng = np.random.default_rng(rng.bits((4,)).tolist())
        self.space = Space(base, settings.resolution)
        self.measured: dict[Schedule, float] = {}
        self.tried: set[Schedule] = set()
        self.best, self.error = base, self._error(base, calibration.validation)
        self.history = [(0, self.error)]

    def run(self) -> None:
        """Spend the budget."""
        population = self.space.known()[: self.settings.initial]
        population += [self.space.random(self.rng) for _ in range(self.settings.initial - len(population))]
        self._measure(population)
        self._try_best(1)
        while not self._over() and (pool := self._bred()):
            self._measure(self._chosen(pool))
            self._try_best(1)
        self._try_best(FINALISTS)

    def _over(self) -> bool:
        return len(self.measured) >= self.settings.evaluations or time.monotonic() > self.deadline

    def _measure(self, schedules: list[Schedule]) -> None:
        for schedule in schedules:
            if self._over() and self.measured:
                return
            self.measured[schedule] = self._error(self.space.plan(schedule), self.calibration.train)
            if self.bar is not None:
                self.bar.advance(1, f"validation error {self.error:.4f}")

    def _ranked(self) -> list[Schedule]:
        return sorted(self.measured, key=lambda schedule: self.measured[schedule])

    def _bred(self) -> list[Schedule]:
        """Return new schedules, `pool` times as many as will be measured."""
        parents = self._ranked()[: self.settings.parents]
        pool: dict[Schedule, None] = {}
        wanted = self.settings.each * self.settings.pool
        for _ in range(20 * wanted):  # a space of one or two calls may have no more to offer
            if len(pool) == wanted:
                break
            first, second = (parents[k] for k in self.rng.integers(len(parents), size=2))
            child = self.space.crossed(first, second, self.rng) if self.rng.random() < 0.5 else first
            child = self.space.mutated(child, self.rng)
            if child not in self.measured:
                pool[child] = None
        return list(pool)

    @torch.no_grad()
    def _chosen(self, pool: list[Schedule]) -> list[Schedule]:
        """Return that of each litter which the predictor ranks first."""
        if len(pool) <= self.settings.each:
            return pool
        errors = torch.tensor(list(self.measured.values()))
        rng = self.stream.child(len(self.measured))
        predictor = fitted_predictor(self.space.encoded(list(self.measured)), errors, rng)
        size = math.ceil(len(pool) / self.settings.each)
        litters = predictor(self.space.encoded(pool)).squeeze(1).split(size)
        return [pool[k * size + int(scores.argmin())] for k, scores in enumerate(litters)]

    def _try_best(self, count: int) -> None:
        """Try the best schedules on the validation noises, those that were not tried before."""
        for schedule in self._ranked()[:count]:
            if schedule not in self.tried:
                self.tried.add(schedule)
                plan = self._labelled(schedule)
                error = self._error(plan, self.calibration.validation)
                self.history.append((len(self.measured), error))
                if error < self.error:
                    self.best, self.error = plan, error

    def _error(self, plan: Plan, noises: NoiseSet) -> float:
        """Return the objective on some noises; infinity where the run fails."""
        plan = replace(plan, guidance=self.base.guidance, threshold=self.base.threshold)
        parts = [noises.take(slice(k, k + self.settings.batch)) for k in range(0, len(noises), self.settings.batch)]
        try:
            samples = [plan.run(self.denoiser, part.x, cond=part.cond).x for part in parts]
        except IsoclineError:
            return math.inf
        error = self.settings.objective(torch.cat(samples), noises.target)
        return error if math.isfinite(error) else math.inf

    def _labelled(self, schedule: Schedule) -> Plan:
        settings: dict[str, Any] = {f.name: getattr(self.settings, f.name) for f in fields(self.settings)}
        settings |= {"objective": self.settings.objective.__name__, "base": self.base.provenance.method}
        settings |= self.space.described(schedule)
        origin = Provenance("S3", USF.arxiv, settings)
        plan = self.space.plan(schedule)
        return replace(plan, provenance=origin, guidance=self.base.guidance, threshold=self.base.threshold)
