import math
from dataclasses import replace

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.tuners import Calibration, EndToEnd, NoiseSet, draw_noises, measure, ratio
from isocline.processes import VariancePreserving
from isocline.processes.exact import GaussianMixture

PROCESS = VariancePreserving()


@pytest.fixture(scope="module")
def model():
    return GaussianMixture.smooth_bed(PROCESS, 0)


def calibrate(model, seed, sizes=(32, 32, 256)):
    teacher = solvers.exponential_adams(PROCESS, grids.log_snr(PROCESS, 200), order=4)
    return draw_noises(teacher, model, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64)


def base(calls=5):
    return solvers.dpm_solver_pp_2m(PROCESS, grids.log_snr(PROCESS, calls))


def test_tuning_halves_the_held_out_error_in_five_of_five_seeds(model):
    for seed in range(5):
        calibration = calibrate(model, seed)
        tuned = EndToEnd(steps=80, batch=32, rate=0.03).fit(base(), model, calibration, seed)
        before, after = (measure(plan, model, calibration.held_out) for plan in (base(), tuned.plan))
        assert ratio(after, before).high < 0.5, seed


def test_the_held_out_noises_are_never_looked_at(model):
    calibration = calibrate(model, 0, (8, 8, 8))
    poison = torch.full_like(calibration.held_out.x, math.nan)
    blind = replace(calibration, held_out=NoiseSet(poison, None, poison))
    tuner = EndToEnd(steps=5, batch=4, check_every=2)
    assert tuner.fit(base(), model, blind, 0).plan == tuner.fit(base(), model, calibration, 0).plan


def test_the_plan_with_the_best_validation_error_is_kept(model):
    calibration = calibrate(model, 1, (16, 16, 16))
    tuned = EndToEnd(steps=20, batch=8, rate=1.5, check_every=1).fit(base(), model, calibration, 0)
    errors = [error for _, error in tuned.history]
    found = measure(tuned.plan, model, calibration.validation).errors.mean().item()
    assert found == pytest.approx(min(errors), rel=1e-9)
    assert max(errors) > errors[0], "the rate was meant to be too high"


def test_a_budget_of_seconds_ends_the_run(model):
    calibration = calibrate(model, 0, (8, 8, 8))
    tuned = EndToEnd(steps=100_000, batch=4).fit(base(), model, calibration, 0, seconds=0.2)
    assert tuned.history[-1][0] < 100_000
    assert tuned.cost.seconds < 20


def test_the_tuned_plan_survives_a_file(model, tmp_path):
    calibration = calibrate(model, 0, (8, 8, 8))
    tuned = EndToEnd(steps=10, batch=4, check_every=5).fit(base(), model, calibration, 0).plan
    loaded = Plan.load(tuned.save(tmp_path / "plan.json"))
    x = calibration.held_out.x
    assert torch.equal(tuned.run(model, x).x, loaded.run(model, x).x)
    assert loaded.provenance.method == "EndToEnd"


def test_the_same_seed_gives_the_same_plan(model):
    calibration = calibrate(model, 0, (16, 8, 8))
    first, second = (EndToEnd(steps=10, batch=4).fit(base(), model, calibration, 3).plan for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.times, second.times)


def test_plans_with_other_ends_are_refused(model):
    calibration = calibrate(model, 0, (8, 8, 8))
    other = solvers.ddim(PROCESS, grids.log_snr(PROCESS, 5, t_min=0.01))
    with pytest.raises(InvalidInput, match="compare plans with the same ends"):
        EndToEnd(steps=1).fit(other, model, calibration, 0)


def test_sets_are_disjoint_and_independent_of_each_others_size(model):
    small, large = calibrate(model, 0, (4, 4, 4)), calibrate(model, 0, (8, 4, 6))
    assert torch.equal(small.train.x, large.train.x[:4])
    assert torch.equal(small.held_out.x, large.held_out.x[:4])
    assert not torch.equal(small.train.x, small.validation.x)
    with pytest.raises(InvalidInput, match="at least 2 noises"):
        Calibration(small.train.take(slice(0, 1)), small.validation, small.held_out, small.teacher)


def test_the_tuner_counts_its_calls(model):
    calibration = calibrate(model, 0, (8, 8, 8))
    tuned = EndToEnd(steps=4, batch=4, check_every=4).fit(base(), model, calibration, 0)
    assert tuned.cost.calls == 5 * (4 + 2)
