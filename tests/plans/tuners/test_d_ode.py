from functools import cache

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.analytic_first_step import analytic_first_step
from isocline.plans.tuners import DODE, IIA, draw_noises, measure
from isocline.plans.tuners.paths import TeacherPaths
from isocline.processes import EDM, Data, VariancePreserving
from isocline.processes.exact import GaussianMixture
from tests.plans.helpers import Told

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)
SMALL = (16, 16, 16)


@cache
def calibrate(seed, sizes=(64, 64, 256), model=MODEL, **options):
    teacher = solvers.exponential_adams(model.process, grids.log_snr(model.process, 100, **options))
    return draw_noises(teacher, model, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64)


def two_m(calls):
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls))


def ddim(calls):
    return solvers.ddim(PROCESS, grids.karras(PROCESS, calls))


def error(plan, calibration, model=MODEL):
    return measure(plan, model, calibration.held_out).rms()


def naive(times, noises, held_out, substeps, sequential=True):
    """DDIM with one scalar a step, fitted where the fitted steps lead or, not `sequential`, where DDIM leads."""
    targets = TeacherPaths(MODEL, noises, substeps).at(times)
    x, y, seen = noises.x, held_out, []
    for i in range(len(times) - 1):
        s, t = times[i], times[i + 1]
        seen.append((MODEL(x, s), MODEL(y, s)))
        x_next, y_next = (t / s * v + (1 - t / s) * d for v, d in zip((x, y), seen[-1], strict=True))
        if i > 0:
            (new, new_y), (old, old_y) = seen[-1], seen[-2]
            share = ((targets[i + 1] - x_next) * (new - old)).sum() / ((new - old) ** 2).sum()
            x_next, y_next = x_next + sequential * share * (new - old), y_next + share * (new_y - old_y)
        x, y = x_next, y_next
    return y


@pytest.mark.parametrize("seed", range(5))
def test_one_scalar_a_step_takes_a_tenth_off_dpm_solver_pp_and_two_fifths_off_ddim(seed):
    calibration = calibrate(seed)
    for base, bar in ((two_m(10), 0.9), (ddim(10), 0.6), (ddim(5), 0.6)):
        assert error(DODE().fit(base, MODEL, calibration, 0).plan, calibration) < bar * error(base, calibration)


def test_the_scalars_are_quotients_of_inner_products():
    calibration, times = calibrate(0, (32, 8, 8)), grids.karras(PROCESS, 6)
    tuned = DODE(ridge=0.0).fit(ddim(6), MODEL, calibration, 0).plan
    x = calibration.held_out.x
    torch.testing.assert_close(tuned.run(MODEL, x).x, naive(times, calibration.train, x, 10), rtol=1e-8, atol=1e-8)


def test_scalars_fitted_along_the_base_do_worse_than_along_the_student():
    times = grids.karras(PROCESS, 10)
    for seed in range(5):
        calibration = calibrate(seed)
        found = [naive(times, calibration.train, calibration.held_out.x, 4, sequential) for sequential in (True, False)]
        good, bad = (float((x - calibration.held_out.target).square().mean().sqrt()) for x in found)
        assert good < 0.9 * bad, seed


def test_global_targets_do_better_than_local_ones():
    for seed in range(5):
        calibration = calibrate(seed)
        local = IIA(past=1, free_carry=False).fit(ddim(10), MODEL, calibration, 0).plan
        distilled = DODE(substeps=4).fit(ddim(10), MODEL, calibration, 0).plan
        assert error(distilled, calibration) < 0.95 * error(local, calibration)


def test_for_gaussian_data_all_but_the_first_step_reach_the_teacher():
    model = GaussianMixture(PROCESS, torch.zeros(1, 8), torch.full((1,), 0.5))
    calibration, times = calibrate(0, (4, 4, 4), model), grids.karras(PROCESS, 4)
    tuned = DODE(ridge=0.0).fit(solvers.ddim(PROCESS, times), model, calibration, 0).plan
    path = TeacherPaths(model, calibration.held_out, 10).at(times)
    states = tuned.run(model, calibration.held_out.x, record=True).trajectory
    torch.testing.assert_close(states[2:], path[2:], rtol=1e-9, atol=1e-11)
    assert float((states[1] - path[1]).abs().max()) > 1e-3


def test_a_base_that_differs_by_the_feature_is_forgotten():
    calibration = calibrate(0, SMALL)
    first, second = (DODE(ridge=0.0).fit(base(7), MODEL, calibration, 0).plan for base in (ddim, two_m))
    assert not ddim(7).equivalent(two_m(7))
    assert first.equivalent(second, tolerance=1e-7)


def test_a_teacher_of_ten_steps_a_step_is_enough():
    calibration = calibrate(0, (16, 2, 128))
    ten, sixty = (error(DODE(substeps=k).fit(ddim(8), MODEL, calibration, 0).plan, calibration) for k in (10, 60))
    assert ten == pytest.approx(sixty, rel=0.05)


def test_constant_predictions_stay_exact():
    base, x = two_m(6), Stream(0).normal((4, 8), dtype=torch.float64) * 80
    tuned = DODE().fit(base, MODEL, calibrate(0, SMALL), 0).plan
    assert not torch.allclose(tuned.weights, base.weights, rtol=1e-2)
    constant = Told(lambda x, t: torch.full_like(x, 0.7), PROCESS)
    torch.testing.assert_close(tuned.run(constant, x).x, base.run(constant, x).x, rtol=1e-10, atol=1e-10)


def test_a_step_of_heun_has_two_scalars_and_both_help():
    base = solvers.heun(PROCESS, grids.karras(PROCESS, 5))
    calibration = calibrate(0)
    tuned = DODE().fit(base, MODEL, calibration, 0).plan
    change = tuned.weights - base.convert(Data()).weights
    assert torch.equal(tuned.carry, base.convert(Data()).carry)
    assert [int((row.abs() > 1e-12).sum()) for row in change] == [0, 2, 0, 3, 0, 3, 0, 3, 0, 3]
    torch.testing.assert_close(change.sum(1), torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-9)
    assert error(tuned, calibration) < 0.3 * error(base, calibration)


def test_other_solvers_processes_and_silent_rows():
    calibration = calibrate(1)
    for base in (
        solvers.unipc(PROCESS, grids.karras(PROCESS, 10)),
        solvers.rho_adams(PROCESS, grids.karras(PROCESS, 10)),
        analytic_first_step(two_m(11), 0.6),
    ):
        tuned = DODE().fit(base, MODEL, calibration, 0).plan
        assert tuned.calls == 10
        assert error(tuned, calibration) < 0.9 * error(base, calibration)
    process = VariancePreserving()
    model = GaussianMixture.smooth_bed(process)
    teacher = solvers.heun(process, grids.log_snr(process, 60))
    drawn = draw_noises(teacher, model, (8,), (64, 64, 256), Stream(0), batch=512, dtype=torch.float64)
    base = solvers.ddim(process, grids.log_snr(process, 8))
    assert error(DODE().fit(base, model, drawn, 0).plan, drawn, model) < 0.6 * error(base, drawn, model)


def test_the_tuned_plan_survives_a_file_and_its_price_is_told(tmp_path):
    calibration = calibrate(0, SMALL)
    tuned = DODE(substeps=3).fit(two_m(5), MODEL, calibration, 0)
    assert tuned.cost.calls == 5 + 2 * 3 * 5 + 2 * 5
    loaded = Plan.load(tuned.plan.save(tmp_path / "plan.json"))
    x = calibration.held_out.x
    assert torch.equal(tuned.plan.run(MODEL, x).x, loaded.run(MODEL, x).x)
    assert loaded.provenance.method == "DODE"


def test_no_time_leaves_the_base():
    assert DODE().fit(two_m(4), MODEL, calibrate(0, SMALL), 0, seconds=0.0).plan.equivalent(two_m(4))


@pytest.mark.parametrize(("call", "message"), [
    (lambda c: DODE(substeps=0), "at least 1 step between nodes"),
    (lambda c: DODE(batch=0), "batch >= 1"),
    (lambda c: DODE().fit(solvers.ancestral(PROCESS, grids.karras(PROCESS, 4)), MODEL, c, 0), "deterministic"),
])  # fmt: skip
def test_bad_settings_and_bases_get_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        call(calibrate(0, (2, 2, 2)))
    assert "\n" not in str(caught.value)
