from dataclasses import replace

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, Threshold, grids, solvers, unroll
from isocline.plans.tuners import Calibration, ConstantNoise, TeacherState, TimeAligner, draw_noises, measure
from isocline.plans.tuners.free import told_times
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.time_aligner import Rows
from isocline.processes import EDM, Data, FinitePoints, RectifiedFlow, wrap
from isocline.processes.exact import GaussianMixture

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)
TEACHER = solvers.heun(PROCESS, grids.karras(PROCESS, 60))


def calibrate(seed: int = 0, sizes: tuple[int, int, int] = (32, 32, 256)) -> Calibration:
    return draw_noises(TEACHER, MODEL, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64)


def euler(calls: int) -> Plan:
    return solvers.ddim(PROCESS, grids.karras(PROCESS, calls))


def multistep(calls: int) -> Plan:
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls))


@pytest.mark.parametrize("start", [euler(5), multistep(5)], ids=["euler", "multistep"])
def test_the_teachers_next_state_is_never_worse_than_no_tuning(start: Plan) -> None:
    """On held-out noises of five seeds; for Euler's method less than half."""
    for seed in range(5):
        calibration = calibrate(seed, (16, 16, 128))
        tuned = TimeAligner(steps=10, rate=0.4).fit(start, MODEL, calibration, seed).plan
        after, before = (measure(plan, MODEL, calibration.held_out, batch=512).rms() for plan in (tuned, start))
        assert after <= (0.5 if start.provenance.method == "ddim" else 1.0) * before, seed


def test_only_what_the_network_is_told_changes() -> None:
    start = multistep(5)
    tuned = TimeAligner(steps=10).fit(start, MODEL, calibrate(), 0).plan
    for name in ("times", "nodes", "carry", "weights", "noise"):
        assert torch.equal(getattr(tuned, name), getattr(start, name)), name
    assert not torch.allclose(tuned.model_times, start.model_times)
    lam, told = (PROCESS.half_log_snr(t) for t in (start.times, tuned.model_times))
    near = torch.minimum(lam.diff(), torch.cat([lam.diff()[:1], lam.diff()[:-1]])) / 2
    assert bool(((told - lam[:-1]).abs()[:-1] <= near[:-1] + 1e-9).all())


def greedy(start: Plan, calibration: Calibration, tuned_rows_count: bool = True) -> Tensor:
    """Return the shifts from a line search for each row, judged by whole runs from the start."""
    noises, n = calibration.train, len(start.carry)
    inner = TeacherPaths(MODEL, noises).at(start.nodes)[1:-1]
    wanted, shift = [*inner, noises.target], torch.zeros(n, dtype=torch.float64)
    for i in range(n):
        before = shift.clone() if tuned_rows_count else torch.zeros_like(shift)

        def error(value: float, i: int = i, before: Tensor = before) -> float:
            trial = torch.cat([before[:i], torch.tensor([value], dtype=torch.float64), before[i + 1 :]])
            plan = replace(start, model_times=told_times(PROCESS, start.times, trial))
            with torch.no_grad():
                return float((unroll(plan, MODEL, noises.x)[i + 1] - wanted[i]).square().mean())

        shift[i] = minimize_scalar(error, bounds=(-3, 3), method="bounded").x
    return shift


def test_rows_are_tuned_one_after_another() -> None:
    """Against line searches on whole runs, for a base whose rows use past outputs. Rows tuned on untuned ones differ."""
    start, calibration = multistep(4), calibrate(sizes=(16, 8, 8))
    tuner = TimeAligner(steps=50, rate=0.2, batch=16)
    plans: list[Plan] = []
    offer = Rows.advance

    def remembered(self: Rows, plan: Plan, i: int, batch: int) -> None:
        plans.append(plan)
        offer(self, plan, i, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rows, "advance", remembered)
        tuner.fit(start, MODEL, calibration, 0)
    found = plans[-1].model_times.detach()
    expected, apart = (
        told_times(PROCESS, start.times, greedy(start, calibration, together)) for together in (True, False)
    )
    torch.testing.assert_close(found[1:], expected[1:], rtol=0.03, atol=0)
    assert float((found / apart - 1).abs().max()) > 0.1


def test_rows_hold_the_states_of_a_run() -> None:
    start, noises = multistep(5), calibrate(sizes=(8, 8, 8)).train
    rows, expected = Rows(start, MODEL, noises), unroll(start, MODEL, noises.x)
    for i in range(5):
        torch.testing.assert_close(rows.x, expected[i])
        torch.testing.assert_close(rows.step(start, i, torch.tensor([3, 1]))[1], expected[i + 1][[3, 1]])
        rows.advance(start, i, batch=3)
    torch.testing.assert_close(rows.x, expected[5])


@pytest.mark.parametrize("parallel", [False, True])
def test_constant_noise_is_zero_loss_where_paths_are_straight(parallel: bool) -> None:
    """With a single datum D is that datum whatever the time told: nothing to tune, nothing is moved."""
    point = FinitePoints(PROCESS, torch.ones(1, 8, dtype=torch.float64))
    calibration = draw_noises(TEACHER, point, (8,), (4, 4, 4), Stream(0), dtype=torch.float64)
    rows, loss = ConstantNoise(parallel).prepare(euler(4), point, calibration.train, Stream(0))
    for i in range(3):
        assert float(loss(i, euler(4), torch.arange(4))) < 1e-20
        rows.advance(euler(4), i, batch=4)


@pytest.mark.parametrize("parallel", [False, True])
def test_constant_noise_hurts_a_multistep_solver_on_an_exact_model(parallel: bool) -> None:
    """Lowering its loss in all rows raises the error to more than twice that of the base, so none of them is of use."""
    start, calibration = multistep(10), calibrate(sizes=(16, 16, 8))
    tuned = TimeAligner(ConstantNoise(parallel), steps=10, rate=0.3).fit(start, MODEL, calibration, 0)
    assert tuned.history[-1][1] > 2 * tuned.history[0][1]
    assert min(error for _, error in tuned.history) > 0.95 * tuned.history[0][1]
    assert len(tuned.history) == 1 + 9, "the last row has no prediction after it"


def test_parallel_rows_start_from_noised_data() -> None:
    """One noise for all levels: states lie on the line from datum to noise."""
    noises = calibrate(sizes=(8, 8, 8)).train
    start = multistep(4)
    rows, _ = ConstantNoise(parallel=True).prepare(start, MODEL, noises, Stream(5))
    levels = []
    for i in range(4):
        levels.append((rows.x - noises.target) / start.times[i])
        rows.advance(start, i, batch=8)
    for level in levels[1:]:
        torch.testing.assert_close(level, levels[0])
    assert 0.7 < float(levels[0].std()) < 1.3


def test_a_start_without_signal_is_told_as_it_is() -> None:
    flow = RectifiedFlow()
    model = GaussianMixture.smooth_bed(flow, 0)
    teacher = solvers.flow_heun(flow, grids.uniform(flow, 40, end="zero"))
    calibration = draw_noises(teacher, model, (8,), (16, 16, 16), Stream(0), dtype=torch.float64)
    start = solvers.flow_euler(flow, grids.uniform(flow, 5, end="zero"))
    tuned = TimeAligner(steps=20).fit(start, model, calibration, 0)
    assert tuned.plan.model_times[0] == 1
    assert min(error for _, error in tuned.history) < 0.9 * tuned.history[0][1]


def test_every_call_is_counted() -> None:
    """Base and a check for each row, 3 steps of a call and one to go on for each row, a teacher of 2 Heun steps between nodes."""
    tuned = TimeAligner(TeacherState(substeps=2), steps=3, batch=8).fit(euler(4), MODEL, calibrate(sizes=(8, 8, 8)), 0)
    assert tuned.cost.calls == 4 * (1 + 4) + 4 * (3 + 1) + 4 * 2 * 2


def test_what_cannot_be_aligned_is_refused() -> None:
    calibration = calibrate(sizes=(8, 8, 8))
    timeless = wrap(lambda x, time: 0.1 * x, PROCESS, Data())
    with pytest.raises(InvalidInput, match="TimeAligner needs gradients through the model"):
        TimeAligner().fit(euler(3), timeless, calibration, 0)
    with pytest.raises(InvalidInput, match=r"without a threshold; tune first"):
        TimeAligner().fit(euler(3).with_threshold(Threshold()), MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="multi-stage"):
        TimeAligner().fit(solvers.heun(PROCESS, grids.karras(PROCESS, 3)), MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="deterministic"):
        TimeAligner().fit(solvers.ddim(PROCESS, grids.karras(PROCESS, 3), eta=1.0), MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="steps >= 1"):
        TimeAligner(steps=0)
