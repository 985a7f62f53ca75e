"""The verb `tune_portfolio`: try every family that fits, and keep the simplest plan that nothing beats.

Three rounds, each of which starts from the best plan before it: classical solvers on their grids; tuners without
gradients; tuners with gradients. Of a long list of classical plans only those that do best on a few noises are compared on
all. Everything is fitted on training noises and compared on validation noises; only the chosen plan and the best classical
one are measured on held-out noises. A more complicated plan is chosen only where its advantage on the validation noises
exceeds the interval of the paired ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from isocline._core.errors import IsoclineError, require
from isocline._core.estimate import Budget, Cost, Estimate
from isocline._core.progress import progress
from isocline._core.stream import Stream, as_stream
from isocline.plans.candidate import Candidate
from isocline.plans.grids.span import End
from isocline.plans.plan import Plan
from isocline.plans.tuners import (
    DODE,
    DSS,
    GITS,
    IIA,
    LD3,
    S3,
    Bespoke,
    Calibration,
    DCSolver,
    DPMSolverV3,
    EndToEnd,
    Free,
    Measured,
    NoiseSet,
    OptimalSteps,
    TimeAligner,
    draw_noises,
    measure,
)
from isocline.plans.tuners.recompile import solver_of
from isocline.plans.tuners.tuner import Tuner
from isocline.processes import Denoiser
from isocline.recipes.search_store import Store
from isocline.recipes.shortlist import every_classical
from isocline.recipes.tried import Statistic, Tried, estimated, paired_ratio
from isocline.recipes.tune import heun_teacher
from isocline.recipes.workers import Mapping, serially


@dataclass(frozen=True)
class Entry:
    """One tuner of the portfolio.

    Args:
        name: how reports call it.
        tuner: the method with its settings.
        gradients: whether it needs a differentiable model; such entries come last.
        share: of the time of its round, where time is limited, relative to that of the others.
    """

    name: str
    tuner: Tuner
    gradients: bool = False
    share: float = 1.0


SCREEN = 16  # validation noises on which a long list of classical plans is screened
KEPT = 24  # plans of it that are then compared on all
GRADIENT_FREE = 0.4  # of the seconds may be gone when the tuners with gradients begin
PORTFOLIO: tuple[Entry, ...] = (
    Entry("GITS", GITS()),
    Entry("optimal steps", OptimalSteps()),
    Entry("D-ODE", DODE()),
    Entry("IIA", IIA()),
    Entry("DC-Solver", DCSolver()),
    Entry("DPM-Solver-v3", DPMSolverV3()),
    Entry("S3", S3(evaluations=200)),
    Entry("end to end", EndToEnd(steps=1000), gradients=True, share=3.0),
    Entry("times and model times", EndToEnd(free=Free(weights=False)), gradients=True),
    Entry("end to end, squared", EndToEnd(steps=300, power=2.0), gradients=True, share=2.0),
    Entry("LD3", LD3(), gradients=True),
    Entry("DSS", DSS(), gradients=True),
    Entry("Bespoke", Bespoke(), gradients=True),
    Entry("time aligner", TimeAligner(), gradients=True),
)


class Chosen(NamedTuple):
    """The result of `tune_portfolio`.

    Attributes:
        plan: the plan to use; its provenance holds the held-out error and the cost of the whole search.
        name: of the entry that made it.
        held_out: it on held-out noises.
        classical: the best classical plan on the same noises.
        ratio: of their errors in the statistic of the search, paired by noise, with its interval.
        statistic: by which the search compared plans.
        tried: everything that was tried, the classical plans first.
        calibration: noises and teacher.
        cost: of the whole search: network calls of all batches, seconds.
        complete: False where the budget ended the search early; the best plan so far is the result.
        distances: Fréchet distances by `isocline.recipes.quality`, where they were measured.
    """

    plan: Plan
    name: str
    held_out: Measured
    classical: Measured
    ratio: Estimate
    statistic: Statistic
    tried: list[Tried]
    calibration: Calibration
    cost: Cost
    complete: bool
    distances: dict[str, Estimate] | None = None


def tune_portfolio(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    budget: Budget | int,
    *,
    rng: Stream | int,
    cond: Callable[[int], Any] | None = None,
    end: End = "zero",
    sizes: tuple[int, int, int] = (64, 64, 256),
    statistic: Statistic = "median",
    teacher: Plan | None = None,
    shortlist: Sequence[Candidate] | None = None,
    calibration: Calibration | None = None,
    entries: Sequence[Entry] = PORTFOLIO,
    dtype: torch.dtype = torch.float32,
    folder: str | Path | None = None,
    mapping: Mapping = serially,
) -> Chosen:
    """Search all families for the best plan of so many calls.

    Args:
        denoiser: the model. Entries that need gradients are skipped with a reason where it has none.
        shape: of one datum.
        budget: ``Budget(calls=6)`` or just 6: network calls of the plan; with ``seconds`` the search ends in time, with
            ``evaluations`` after so many calls of the network on a batch. What was found so far is the result.
        rng: stream or seed of everything.
        cond: ``n -> conditions`` of n samples, a tensor (n, ...) or `Conditions`, for conditional models.
        end: where sampling ends, ``"zero"`` noise or the process's ``"t_min"``.
        sizes: numbers of training, validation and held-out noises.
        statistic: of the distances to the teacher by which plans are compared: ``"median"``, or ``"rms"`` where the few large
            errors of sharp problems matter.
        teacher: what defines the target; 100 Heun steps by default.
        shortlist: classical plans of the first round; those of `every_classical` by default.
        calibration: noises and teacher of another search for the same model and the same arguments, which saves the teacher's runs.
        entries: tuners of the other rounds.
        dtype: precision of the states.
        folder: keeps every plan that was tried; the same call continues an interrupted search.
        mapping: how the entries of a round are run; `isocline.recipes.workers.on_ray` spreads them over processes.
    """
    budget = Budget(calls=budget) if isinstance(budget, int) else budget
    require(statistic in ("median", "rms"), f"plans are compared by 'median' or 'rms', not {statistic!r}")
    require(budget.calls is not None, "tuning a sampler needs a budget of calls, for example Budget(calls=6)")
    stream, began, calls = as_stream(rng), time.monotonic(), denoiser.calls
    teacher = teacher or heun_teacher(denoiser, end=end)
    store = Store(folder, _identity(denoiser, shape, budget.calls, sizes, teacher, stream, dtype, statistic))  # type: ignore[arg-type]
    stored = store.calibration()
    calibration = stored or calibration
    if calibration is None:
        with progress("teacher", sum(sizes)) as bar:
            calibration = draw_noises(teacher, denoiser, shape, sizes, stream, cond=cond, dtype=dtype, bar=bar)
    if stored is None:
        store.keep_calibration(calibration)
    search = _Search(denoiser, calibration, budget, stream, store, mapping, began, calls, statistic)
    search.classical(every_classical(denoiser.process, end) if shortlist is None else shortlist, end)
    search.round(1, [entry for entry in entries if not entry.gradients])
    search.round(2, [entry for entry in entries if entry.gradients])
    return search.result()


def _identity(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    calls: int,
    sizes: tuple[int, ...],
    teacher: Plan,
    rng: Stream,
    dtype: torch.dtype,
    statistic: Statistic,
) -> dict[str, Any]:
    return {
        "process": denoiser.process.describe(),
        "guidance": denoiser.guidance,
        "shape": list(shape),
        "calls": calls,
        "sizes": list(sizes),
        "teacher": [teacher.provenance.method, teacher.calls, float(teacher.times[-1])],
        "rng": [rng.seed, rng.name],
        "dtype": str(dtype),
        "statistic": statistic,
    }


@dataclass
class _Search:
    denoiser: Denoiser
    calibration: Calibration
    budget: Budget
    rng: Stream
    store: Store
    mapping: Mapping
    began: float
    calls: int
    statistic: Statistic
    tried: list[Tried] = field(default_factory=list)
    complete: bool = True

    def classical(self, shortlist: Sequence[Candidate], end: End) -> None:
        """Try the candidates, of a long list those that do best on a few noises; those that cannot use so many calls say why."""
        if len(shortlist) > KEPT:
            few = self.calibration.validation.take(slice(SCREEN))
            screened = [self._candidate(candidate, end, few) for candidate in shortlist]
            order = sorted(range(len(shortlist)), key=lambda k: self._score(screened[k]))
            shortlist = [shortlist[k] for k in order[:KEPT]]
        for candidate in shortlist:
            self.tried.append(
                self.store.recalled(candidate.name, 0) or self._candidate(candidate, end, self.calibration.validation)
            )
            self.store.keep(self.tried[-1])
        reasons = [one.reason for one in self.tried if one.plan is None]
        require(
            any(one.plan is not None for one in self.tried), f"no classical plan fits: {reasons[-1] if reasons else ''}"
        )

    def _candidate(self, candidate: Candidate, end: End, noises: NoiseSet) -> Tried:
        process, guidance = self.denoiser.process, self.denoiser.guidance
        try:
            plan = candidate.compile(process, self.budget.calls, end).for_guidance(guidance)  # type: ignore[arg-type]
            return Tried(candidate.name, 0, plan, measure(plan, self.denoiser, noises).errors)
        except IsoclineError as error:
            return Tried(candidate.name, 0, None, reason=str(error))

    def round(self, number: int, entries: Sequence[Entry]) -> None:
        """Try `entries` from the best plan so far that a solver made."""
        base = min((one for one in self.tried if one.plan and _compiled(one.plan)), key=self._score).plan
        assert base is not None
        known = {entry.name: self.store.recalled(entry.name, number) for entry in entries}
        self.tried += [one for one in known.values() if one is not None]
        open_entries = [entry for entry in entries if known[entry.name] is None]
        jobs = self._jobs(base, number, open_entries)
        with progress("tuning with gradients" if number == 2 else "tuning", len(open_entries)) as bar:
            for one in self.mapping(_fit, jobs):
                self.tried.append(one)
                self.store.keep(one)
                bar.advance(1, f"best so far {min(map(self._score, self.tried)):.4f}")

    def _score(self, one: Tried) -> float:
        return one.score(self.statistic)

    def _jobs(self, base: Plan, number: int, entries: Sequence[Entry]) -> Iterator[tuple[Any, ...]]:
        """Yield what `_fit` takes, as long as the budget lasts; each entry may use its share of the time left."""
        limit = GRADIENT_FREE if number == 1 else 1.0
        for place, entry in enumerate(entries):
            left = None
            if self.budget.seconds is not None:
                share = entry.share / sum(other.share for other in entries[place:])
                left = share * (limit * self.budget.seconds - (time.monotonic() - self.began))
            spent = self.budget.evaluations is not None and self.denoiser.calls - self.calls >= self.budget.evaluations
            if spent or (left is not None and left <= 0):
                self.complete = False
                return
            yield entry, number, base, self.denoiser, self.calibration, self.rng, left

    def result(self) -> Chosen:
        """Choose on the validation noises, then measure on the held-out ones."""
        best = simplest(self.tried, self.statistic)
        first = min((one for one in self.tried if one.round == 0), key=self._score)
        assert best.plan is not None
        assert first.plan is not None
        classical = measure(first.plan, self.denoiser, self.calibration.held_out)
        held_out = measure(best.plan, self.denoiser, self.calibration.held_out)
        fits = sum((one.cost for one in self.tried), Cost())
        calls = max(self.denoiser.calls - self.calls, int(fits.calls))
        cost = Cost(calls, fits.vjps, time.monotonic() - self.began)
        origin = replace(best.plan.provenance, error=estimated(held_out.errors, self.statistic), cost=cost.as_dict())
        plan = replace(best.plan, provenance=origin)
        self.store.keep_result(plan)
        return Chosen(
            plan,
            best.name,
            replace(held_out, plan=plan),
            classical,
            paired_ratio(held_out.errors, classical.errors, self.statistic),
            self.statistic,
            self.tried,
            self.calibration,
            cost,
            self.complete,
        )


def _fit(
    entry: Entry,
    number: int,
    base: Plan,
    denoiser: Denoiser,
    calibration: Calibration,
    rng: Stream,
    seconds: float | None,
) -> Tried:
    """Run one entry; what goes wrong there is its reason, not the end of the search."""
    try:
        tuned = entry.tuner.fit(base, denoiser, calibration, rng.child(entry.name), seconds=seconds)
        errors = measure(tuned.plan, denoiser, calibration.validation).errors
        return Tried(entry.name, number, tuned.plan, errors, tuned.cost)
    except IsoclineError as error:
        return Tried(entry.name, number, None, reason=str(error))


def simplest(tried: Sequence[Tried], statistic: Statistic = "median") -> Tried:
    """Return the plan of the earliest round that the best of all does not beat beyond the interval of their paired ratio."""
    found = sorted((one for one in tried if one.plan is not None), key=lambda one: one.score(statistic))
    best = found[0]
    for number in range(best.round):
        here = next((one for one in found if one.round == number), None)
        if here is not None and _tie(best, here, statistic):
            return here
    return best


def _tie(best: Tried, other: Tried, statistic: Statistic) -> bool:
    assert best.errors is not None
    assert other.errors is not None
    return paired_ratio(best.errors, other.errors, statistic).high >= 1


def _compiled(plan: Plan) -> bool:
    try:
        solver_of(plan)
    except IsoclineError:
        return False
    return True


def lines(found: Chosen) -> list[str]:
    """Return the search as text, one line for each plan, the best first, and those that did not fit with their reasons."""
    ranked = sorted((one for one in found.tried if one.plan is not None), key=lambda one: one.score(found.statistic))
    shown = [
        f"{one.name:44} {estimated(one.errors, found.statistic)!s:28} {one.cost.calls:8.0f} calls {one.cost.seconds:7.1f} s"
        for one in ranked
        if one.errors is not None
    ]
    return shown + [f"{one.name:44} skipped: {one.reason}" for one in found.tried if one.plan is None]
