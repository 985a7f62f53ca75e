"""S3: its space, its predictor, and what the search finds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.grids.span import End
from isocline.plans.threshold import Threshold
from isocline.plans.tuners import Calibration, Measured, NoiseSet, draw_noises, measure
from isocline.plans.tuners.s3 import Space, Strategy, energy_distance, median_error, rms_error
from isocline.plans.tuners.s3.predictor import fitted_predictor
from isocline.plans.tuners.s3.search import S3, _Search
from isocline.processes import EDM, Data, Denoiser, GaussianProcess, RectifiedFlow, VariancePreserving
from isocline.processes.exact import GaussianMixture

PROCESS = EDM()
CASES: list[tuple[GaussianProcess, End]] = [
    (PROCESS, "t_min"),
    (PROCESS, "zero"),
    (VariancePreserving(), "t_min"),
    (RectifiedFlow(), "t_min"),
    (RectifiedFlow(), "zero"),
]
FIXED: list[Callable[[GaussianProcess, Tensor], Plan]] = [
    solvers.ddim,
    solvers.dpm_solver_pp_2m,
    solvers.dpm_solver_pp_3m,
    solvers.unipc,
    lambda p, t: solvers.unipc(p, t, order=3),
    lambda p, t: solvers.exponential_adams(p, t, order=3),
    lambda p, t: solvers.rho_adams(p, t, order=3),
    lambda p, t: solvers.ipndm(p, t, order=3),
]


@pytest.fixture(scope="module")
def smooth() -> GaussianMixture:
    return GaussianMixture.smooth_bed(PROCESS)


def calibrate(
    model: GaussianMixture, seed: int, sizes: tuple[int, int, int] = (32, 32, 128), steps: int = 200
) -> Calibration:
    teacher = solvers.heun(PROCESS, grids.karras(PROCESS, steps))
    return draw_noises(teacher, model, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64)


def base(calls: int) -> Plan:
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls))


def best_fixed(model: GaussianMixture, noises: NoiseSet, calls: int) -> float:
    times = grids.karras(PROCESS, calls)
    return min(measure(solver(PROCESS, times), model, noises, batch=256).rms() for solver in FIXED)


@pytest.mark.parametrize(("process", "end"), CASES)
def test_every_schedule_compiles_with_the_ends_and_calls_of_the_base(process: GaussianProcess, end: End) -> None:
    start = solvers.ddim(process, grids.uniform(process, 5, end=end))
    space, rng = Space(start, resolution=32), np.random.default_rng(0)
    schedules = space.known()[:20] + [space.random(rng) for _ in range(10)]
    for _ in range(30):
        first, second = (schedules[k] for k in rng.integers(len(schedules), size=2))
        schedules.append(space.mutated(space.crossed(first, second, rng), rng))
    for schedule in schedules:
        plan = space.plan(schedule)
        assert plan.calls == 5
        assert torch.equal(plan.times[[0, -1]], start.times[[0, -1]])
        assert [s.reduced(i, 5) for i, s in enumerate(schedule.strategies)] == list(schedule.strategies)
    features = space.encoded(schedules)
    assert features.shape == (len(schedules), 5, 12)
    assert bool(torch.isfinite(features).all())


@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_known_solvers_on_usual_grids_are_in_the_first_population(end: End) -> None:
    times = grids.karras(PROCESS, 5, rho=5.0, end=end)
    plans = [space.plan(s) for space in [Space(solvers.ddim(PROCESS, times))] for s in space.known()]
    ends = {"t_min": times[-2].item()} if end == "zero" else {}
    for solver, grid in zip(FIXED, (times, grids.log_snr, grids.karras, grids.uniform), strict=False):
        spot = grid if isinstance(grid, Tensor) else grid(PROCESS, 5, end=end, **ends)
        assert any(plan.equivalent(solver(PROCESS, spot), tolerance=1e-7) for plan in plans)


def test_changes_are_small_and_crossing_mixes_both_parents() -> None:
    space, rng = Space(base(6)), np.random.default_rng(1)
    first, second = space.known()[0], space.known()[-1]
    for _ in range(50):
        child = space.mutated(first, rng)
        moved = sum(a != b for a, b in zip(child.places, first.places, strict=True))
        assert moved + sum(a != b for a, b in zip(child.strategies, first.strategies, strict=True)) <= 3
        assert list(child.places) == sorted(set(child.places))
    mixed = [space.crossed(first, second, rng) for _ in range(20)]
    assert all(set(m.strategies) <= {*first.strategies, *second.strategies} for m in mixed)
    assert any(m.strategies not in (first.strategies, second.strategies) for m in mixed)
    assert any(m.places not in (first.places, second.places) for m in mixed)


def test_the_predictor_learns_an_order_it_was_not_shown_and_leaves_the_global_generator_alone() -> None:
    features = Stream(0).normal((400, 4, 3))
    errors = torch.exp(3 * features[:, 0, 0]) + features[:, 2, 1].abs()
    errors[5] = math.inf
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    network = fitted_predictor(features[:300], errors[:300], Stream(1))
    assert torch.equal(torch.rand(1), expected)
    with torch.no_grad():
        scores = network(features[300:]).squeeze(1)
        first, second = (fitted_predictor(features, errors, Stream(1), epochs=5)(features) for _ in range(2))
    assert spearmanr(scores, errors[300:]).statistic > 0.8
    assert torch.equal(first, second)


def searched(settings: S3, model: Denoiser, calibration: Calibration, calls: int, seed: int) -> _Search:
    search = _Search(settings, base(calls), model, calibration, Stream(seed), math.inf, None)
    search.run()
    return search


def test_the_search_beats_eight_solvers_and_its_predictor_ranks_new_schedules_in_five_of_five_seeds(
    smooth: GaussianMixture,
) -> None:
    for seed in range(5):
        calibration = calibrate(smooth, seed, (16, 32, 128), steps=60)
        search = searched(S3(evaluations=115, each=15, pool=8), smooth, calibration, 4, seed)
        found = measure(search.best, smooth, calibration.held_out, batch=256).rms()
        assert found <= best_fixed(smooth, calibration.held_out, 4), seed
        assert search.best.calls == 4

        pool = search._bred()[:15] + [search.space.random(search.rng) for _ in range(25)]
        errors = torch.tensor(list(search.measured.values()))
        predictor = fitted_predictor(search.space.encoded(list(search.measured)), errors, Stream(seed))
        actual = [search._error(search.space.plan(schedule), calibration.train) for schedule in pool]
        with torch.no_grad():
            scores = predictor(search.space.encoded(pool)).squeeze(1)
        assert spearmanr(scores, actual).statistic > 0.25, seed


def test_held_out_noises_are_never_looked_at(smooth: GaussianMixture) -> None:
    calibration = calibrate(smooth, 0, (8, 8, 8), steps=30)
    poison = torch.full_like(calibration.held_out.x, math.nan)
    blind = replace(calibration, held_out=NoiseSet(poison, None, poison))
    tuner = S3(evaluations=16, initial=10, each=3, pool=2)
    first, second = (tuner.fit(base(3), smooth, c, 3) for c in (blind, calibration))
    assert first.plan == second.plan
    assert first.history == second.history


def test_the_result_is_never_worse_than_the_base_on_validation(smooth: GaussianMixture) -> None:
    calibration = calibrate(smooth, 0, (8, 8, 8), steps=30)
    for objective in (rms_error, median_error, energy_distance):
        tuner = S3(evaluations=16, initial=10, each=3, pool=1, objective=objective)
        tuned = tuner.fit(base(3), smooth, calibration, 0)
        samples = tuned.plan.run(smooth, calibration.validation.x).x
        assert objective(samples, calibration.validation.target) == min(error for _, error in tuned.history)
        assert [step for step, _ in tuned.history] == sorted(step for step, _ in tuned.history)
        assert tuned.history[0][0] == 0
    own = base(3).run(smooth, calibration.validation.x).x
    perfect = replace(calibration, validation=replace(calibration.validation, target=own))
    kept = S3(evaluations=6, initial=3, each=3, pool=1).fit(base(3), smooth, perfect, 0)
    assert kept.plan == base(3)
    assert max(error for _, error in kept.history) > kept.history[0][1] == 0.0


def test_each_litter_sends_its_favourite(smooth: GaussianMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    search = searched(S3(evaluations=8, initial=8, each=3, pool=4), smooth, calibrate(smooth, 0, (4, 4, 4), 30), 3, 0)
    pool = [search.space.random(search.rng) for _ in range(12)]
    scores = torch.tensor([5.0, 1, 2, 3, 9, 8, 7, 9, 0, 0.5, -1, 2])
    monkeypatch.setattr("isocline.plans.tuners.s3.search.fitted_predictor", lambda *_: lambda _: scores[:, None])
    assert search._chosen(pool) == [pool[1], pool[6], pool[10]]
    assert search._chosen(pool[:3]) == pool[:3]


def test_calls_and_evaluations_are_counted(smooth: GaussianMixture) -> None:
    calibration = calibrate(smooth, 0, (8, 8, 8), steps=30)
    tuned = S3(evaluations=13, initial=8, each=3, pool=1, batch=4).fit(base(3), smooth, calibration, 0)
    assert tuned.history[-1][0] == 13
    assert tuned.cost.calls == 3 * 2 * (13 + len(tuned.history))


def test_a_budget_of_seconds_ends_the_run(smooth: GaussianMixture) -> None:
    calibration = calibrate(smooth, 0, (8, 8, 8), steps=30)
    tuned = S3(evaluations=100_000).fit(base(3), smooth, calibration, 0, seconds=0.2)
    assert 0 < tuned.history[-1][0] < 100_000
    assert S3(evaluations=100_000).fit(base(3), smooth, calibration, 0, seconds=0.0).history[-1][0] == 1


def test_a_space_with_nothing_left_ends_the_run(smooth: GaussianMixture) -> None:
    calibration = calibrate(smooth, 0, (4, 4, 4), steps=30)
    tuned = S3(evaluations=1000, initial=4, each=5).fit(base(1), smooth, calibration, 0)
    assert tuned.history[-1][0] < 10


def test_the_tuned_plan_survives_a_file_and_keeps_guidance_and_threshold(
    smooth: GaussianMixture, tmp_path: Any
) -> None:
    calibration = calibrate(smooth, 0, (8, 8, 8), steps=30)
    start = replace(base(3), threshold=Threshold())
    tuned = S3(evaluations=12, initial=8, each=2, pool=1).fit(start, smooth, calibration, 0).plan
    loaded = Plan.load(tuned.save(tmp_path / "plan.json"))
    x = calibration.held_out.x
    assert torch.equal(tuned.run(smooth, x).x, loaded.run(smooth, x).x)
    assert loaded.threshold == start.threshold
    told = loaded.provenance.settings
    assert (loaded.provenance.method, told["objective"], told["base"]) == ("S3", "rms_error", "dpm_solver_pp_2m")
    assert Strategy(**told["strategies"][0]).order == 1
    assert len(told["inner_times"]) == 2


class _Fragile(Denoiser):
    """A model that knows its condition and breaks at low noise levels but those of the base."""

    def __init__(self, spared: Tensor) -> None:
        super().__init__(PROCESS, Data())
        self.spared, self.broke = spared, 0

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert cond.shape == x.shape
        if float(t) < 5 and not bool(torch.isclose(self.spared, t).any()):
            self.broke += 1
            return x * math.nan
        return 0.9 * cond + 0.1 * x / (1 + t**2)


def test_schedules_that_fail_are_only_worse_and_conditions_stay_with_their_noises() -> None:
    start = base(4)
    x, cond = Stream(0).normal((8, 2), dtype=torch.float64) * 80, Stream(1).normal((8, 2), dtype=torch.float64)
    model = _Fragile(start.nodes)
    target = 0.9 * cond
    noises = NoiseSet(x, cond, target)
    tuned = S3(evaluations=30, initial=20, each=5, pool=1, batch=3).fit(
        start, model, Calibration(noises, noises, noises, start), 0
    )
    assert model.broke > 0
    assert math.isfinite(min(error for _, error in tuned.history))
    assert bool(torch.isfinite(tuned.plan.run(model, x, cond=cond).x).all())


def test_objectives_are_what_they_say() -> None:
    x, target = torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 7.0]]), torch.zeros(3, 2)
    errors = Measured(base(1), torch.tensor([0.0, 5.0**0.5, 5.0]), 1, 0.0)
    assert rms_error(x, target) == pytest.approx(errors.rms())
    assert median_error(x, target) == pytest.approx(5.0**0.5)


def test_what_cannot_be_searched_is_refused(smooth: GaussianMixture) -> None:
    calibration = calibrate(smooth, 0, (4, 4, 4), steps=30)
    times = grids.karras(PROCESS, 4)
    with pytest.raises(InvalidInput, match="deterministic"):
        S3().fit(solvers.ddim(PROCESS, times, eta=1.0), smooth, calibration, 0)
    with pytest.raises(InvalidInput, match="same ends"):
        S3().fit(solvers.ddim(PROCESS, grids.karras(PROCESS, 4, t_min=0.1)), smooth, calibration, 0)
    with pytest.raises(InvalidInput, match="pool of at least 1"):
        S3(pool=0)
    with pytest.raises(InvalidInput, match="initial and parents of at least 2"):
        S3(parents=1)
    with pytest.raises(InvalidInput, match="too small for 10 calls"):
        Space(base(10), resolution=8)


@pytest.mark.slow
@pytest.mark.parametrize("bed", ["smooth_bed", "sharp_bed"])
@pytest.mark.parametrize("calls", [5, 8, 10])
def test_the_search_is_no_worse_than_the_best_of_eight_solvers(bed: str, calls: int) -> None:
    model = getattr(GaussianMixture, bed)(PROCESS)
    won = 0
    for seed in range(5):
        calibration = calibrate(model, seed, (64, 64, 256), steps=500)
        tuned = S3(evaluations=400).fit(base(calls), model, calibration, seed)
        found = measure(tuned.plan, model, calibration.held_out, batch=256).rms()
        won += found <= best_fixed(model, calibration.held_out, calls)
    assert won >= 4


@pytest.mark.slow
def test_the_search_beats_random_schedules_at_equal_evaluations(smooth: GaussianMixture) -> None:
    """Guided breeding against drawing; that the predictor ranks at all is tested above."""
    won = 0
    for seed in range(6):
        calibration = calibrate(smooth, seed, (64, 2, 2), steps=200)
        bred, drawn = (
            searched(S3(evaluations=300, **change), smooth, calibration, 8, seed)
            for change in ({}, {"pool": 1, "initial": 300})
        )
        won += min(bred.measured.values()) < min(drawn.measured.values())
    assert won >= 5
