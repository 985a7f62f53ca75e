"""What tuners of times by dynamic programming promise, whichever they are."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.progress import Progress
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.tuners import (
    GITS,
    Calibration,
    EndToEnd,
    NoiseSet,
    OptimalSteps,
    draw_noises,
    measure,
    teacher_grid,
)
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.teacher_grid import fine_grid
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    GaussianProcess,
    Guided,
    RectifiedFlow,
    VariancePreserving,
    wrap,
)
from isocline.processes.exact import GaussianMixture

PROCESS = EDM()
Tuner = GITS | OptimalSteps
TUNERS: list[Tuner] = [GITS(nodes=18, substeps=1), OptimalSteps(nodes=18, substeps=1)]
both = pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: type(tuner).__name__)


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture.smooth_bed(PROCESS)


@pytest.fixture(scope="module")
def calibration(model: GaussianMixture) -> Calibration:
    return calibrate(model, grids.karras(PROCESS, 40))


def calibrate(model: Denoiser, times: Tensor, sizes: tuple[int, int, int] = (16, 16, 16)) -> Calibration:
    teacher = solvers.flow_heun(model.process, times)
    return draw_noises(teacher, model, (8,), sizes, Stream(0), dtype=torch.float64)


def base(calls: int = 5) -> Plan:
    return solvers.ddim(PROCESS, grids.karras(PROCESS, calls))


# Ends, processes and solvers

GRIDS = [
    (EDM(), grids.karras, "zero"),
    (VariancePreserving(), grids.log_snr, "t_min"),
    (RectifiedFlow(), grids.uniform, "t_min"),
    (RectifiedFlow(), grids.uniform, "zero"),
]
SOLVERS = [solvers.dpm_solver_pp_2m, solvers.ipndm, solvers.ddim, solvers.flow_adams]


@both
@pytest.mark.parametrize(("process", "grid", "end", "solver"), [(*g, s) for g, s in zip(GRIDS, SOLVERS, strict=True)])
def test_the_times_are_nodes_of_the_fine_grid_between_the_bases_ends(
    tuner: Tuner, process: GaussianProcess, grid: grids.span.Grid, end: grids.span.End, solver: object
) -> None:
    smooth = GaussianMixture.smooth_bed(process)
    calibration = calibrate(smooth, grid(process, 40, end=end))
    start = solver(process, grid(process, 6, end=end))  # type: ignore[operator]
    tuned = tuner.fit(start, smooth, calibration, 0)
    times = tuned.plan.times
    assert len(times) == 7
    assert bool((times.diff() < 0).all())
    assert set(times.tolist()) <= set(fine_grid(start, tuner.nodes).tolist())
    assert (times[0], times[-1]) == (start.times[0], start.times[-1])
    again = solver(process, times)  # type: ignore[operator]
    assert tuned.plan.equivalent(again), "the base's own solver runs on the times"
    assert min(error for _, error in tuned.history) <= tuned.history[0][1]


@pytest.mark.parametrize(("process", "grid", "end"), GRIDS)
def test_the_fine_grid_divides_each_step_of_the_base(
    process: GaussianProcess, grid: grids.span.Grid, end: grids.span.End
) -> None:
    times = grid(process, 5, end=end)
    fine = fine_grid(solvers.ddim(process, times), 18)
    assert bool((fine.diff() < 0).all())
    places = [fine.tolist().index(t) for t in times.tolist()]
    assert torch.tensor(places).diff().tolist() == [4, 4, 4, 4, 1 if end == "zero" else 4]
    inner = process.half_log_snr(fine[places[1] : places[2] + 1])
    torch.testing.assert_close(inner.diff(), (inner[-1] - inner[0]).expand(4) / 4)


def test_a_step_that_ends_clean_far_away_is_divided() -> None:
    fine = fine_grid(solvers.ddim(PROCESS, torch.tensor([80.0, 1.0, 0.0], dtype=torch.float64)), 8)
    assert len(fine) == 9
    assert fine[-2] == PROCESS.t_min


@both
def test_all_processes_get_the_same_noise_levels(tuner: Tuner) -> None:
    levels = grids.karras(EDM(t_min=0.02, t_max=50.0), 5)
    fine, starts, found = (
        grids.karras(EDM(t_min=0.02, t_max=50.0), 60),
        Stream(0).normal((40, 8), dtype=torch.float64),
        [],
    )
    for process in (EDM(), VariancePreserving(), RectifiedFlow(t_min=1e-4)):
        smooth = GaussianMixture.smooth_bed(process)
        times = process.time_of_noise_level(levels)
        teacher = solvers.heun(process, process.time_of_noise_level(fine))
        x = starts * process.sigma(times[0])
        train, validation, rest = (NoiseSet(part, None, teacher.run(smooth, part).x) for part in x.split((16, 12, 12)))
        calibration = Calibration(train, validation, rest, teacher)
        plan = tuner.fit(solvers.ddim(process, times), smooth, calibration, 0).plan
        assert not torch.equal(plan.times, times)
        found.append(process.noise_level(plan.times))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0], found[2], rtol=1e-6, atol=0)


@both
def test_a_base_with_two_calls_a_step_keeps_its_number_of_steps(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration
) -> None:
    start = solvers.heun(PROCESS, grids.karras(PROCESS, 4))
    tuned = tuner.fit(start, model, calibration, 0)
    assert tuned.plan.calls == 8
    assert len(tuned.plan.nodes) == 5


@both
def test_one_step_stays_one_step(tuner: Tuner, model: GaussianMixture, calibration: Calibration) -> None:
    tuned = tuner.fit(base(1), model, calibration, 0)
    assert tuned.plan == base(1)


@both
def test_the_guidance_scale_stays(tuner: Tuner) -> None:
    inner = wrap(lambda x, t, cond: (x + t[:, None] ** 2 * cond) / (1 + t[:, None] ** 2), PROCESS, Data())
    guided = Guided(inner, 2.5, torch.zeros(1, dtype=torch.float64))
    teacher = solvers.heun(PROCESS, grids.karras(PROCESS, 40)).for_guidance(2.5)
    noises = draw_noises(
        teacher, guided, (2,), (8, 8, 8), Stream(0), cond=lambda n: torch.ones(n, 1).double(), dtype=torch.float64
    )
    tuned = tuner.fit(base(4).for_guidance(2.5), guided, noises, 0)
    assert tuned.plan.guidance == 2.5
    assert not torch.equal(tuned.plan.times, base(4).times)


# What a tuner promises


@both
def test_the_held_out_noises_are_never_looked_at(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration
) -> None:
    poison = torch.full_like(calibration.held_out.x, math.nan)
    blind = replace(calibration, held_out=NoiseSet(poison, None, poison))
    assert tuner.fit(base(), model, blind, 0).plan == tuner.fit(base(), model, calibration, 0).plan


@both
def test_validation_noises_decide_but_do_not_fit(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration
) -> None:
    """Validation targets that are the base's own results keep the base; what was tried stays in the history."""
    noises = calibration.validation
    own = replace(calibration, validation=NoiseSet(noises.x, None, base().run(model, noises.x).x))
    tuned = tuner.fit(base(), model, own, 0)
    assert tuned.plan == base()
    assert tuned.history[0] == (0, 0.0)
    assert all(error > 0 for _, error in tuned.history[1:])
    assert len(tuned.history) >= 2


@both
def test_the_history_begins_with_the_base_and_ends_with_the_plan(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration
) -> None:
    tuned = tuner.fit(base(), model, calibration, 0)
    errors = [measure(plan, model, calibration.validation).errors.mean().item() for plan in (base(), tuned.plan)]
    assert tuned.history[0] == (0, pytest.approx(errors[0]))
    assert min(error for _, error in tuned.history) == pytest.approx(errors[1])
    assert errors[1] < errors[0]


@both
def test_the_tuned_plan_survives_a_file_and_another_tuner(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration, tmp_path: Path
) -> None:
    plan = tuner.fit(base(), model, calibration, 0).plan
    loaded = Plan.load(plan.save(tmp_path / "plan.json"))
    assert torch.equal(plan.run(model, calibration.held_out.x).x, loaded.run(model, calibration.held_out.x).x)
    assert loaded.provenance == plan.provenance
    assert loaded.provenance.method == type(tuner).__name__
    for other in (*TUNERS, EndToEnd(steps=2)):
        further = other.fit(loaded, model, calibration, 0)
        assert further.history[0][1] == pytest.approx(measure(plan, model, calibration.validation).errors.mean().item())


def test_the_calls_are_counted(model: GaussianMixture, calibration: Calibration) -> None:
    """12 nodes: 24 calls of the teacher; 12 of the costs, or 1 and 3 times 9 of the search; 4 for each plan measured."""
    first = GITS(nodes=12, substeps=1, growths=(1.0, 1.2)).fit(base(4), model, calibration, 0)
    assert first.cost.calls == 24 + 12 + 3 * 4
    second = OptimalSteps(nodes=12, substeps=1).fit(base(4), model, calibration, 0)
    assert second.cost.calls == 24 + 1 + 3 * 9 + 2 * 4


@both
def test_no_time_keeps_the_base(tuner: Tuner, model: GaussianMixture, calibration: Calibration) -> None:
    tuned = tuner.fit(base(), model, calibration, 0, seconds=0.0)
    assert tuned.plan == base()
    assert len(tuned.history) == 1
    assert tuned.cost.calls == 5


@both
def test_what_was_finished_in_time_is_used(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that ticks once a call, time for two batches and a half gives the result of two."""
    small = replace(tuner, batch=4)
    alone = small.fit(base(), model, replace(calibration, train=calibration.train.take(slice(0, 4))), 0)
    one = alone.cost.calls - 5 * len(alone.history)
    clock = itertools.count()
    monkeypatch.setattr(teacher_grid, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    found = small.fit(base(), model, calibration, 0, seconds=2.5 * one)
    two = small.fit(base(), model, replace(calibration, train=calibration.train.take(slice(0, 8))), 0)
    assert torch.equal(found.plan.times, two.plan.times)
    assert two.cost.calls < found.cost.calls <= two.cost.calls + one / 2 + 1


@both
def test_the_bar_counts_noises(tuner: Tuner, model: GaussianMixture, calibration: Calibration) -> None:
    bar = Progress("test", 16)
    replace(tuner, batch=5).fit(base(), model, calibration, 0, bar=bar)
    assert bar.done == 16


# What is refused


@both
def test_plans_that_cannot_be_compared_or_compiled_are_refused(
    tuner: Tuner, model: GaussianMixture, calibration: Calibration
) -> None:
    grid = grids.karras(PROCESS, 5)
    with pytest.raises(InvalidInput, match="deterministic"):
        tuner.fit(solvers.ddim(PROCESS, grid, eta=1.0), model, calibration, 0)
    with pytest.raises(InvalidInput, match="same ends"):
        tuner.fit(solvers.ddim(PROCESS, grids.karras(PROCESS, 5, end="zero")), model, calibration, 0)
    weights = EndToEnd(steps=1).fit(base(), model, calibration, 0).plan
    unknown = replace(weights, provenance=replace(weights.provenance, method="EndToEnd"))
    with pytest.raises(InvalidInput, match="cannot be compiled again"):
        tuner.fit(unknown, model, calibration, 0)


def test_a_path_from_pure_noise_is_the_flow_of_a_gaussian() -> None:
    """For ``N(0, v)`` the flow scales with the state's spread, ``x_t = x_1 sqrt((1 - t)^2 v + t^2)``."""
    process, v = RectifiedFlow(), 0.25
    gaussian = GaussianMixture(process, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([v**0.5]))
    x, times = Stream(0).normal((4, 3), dtype=torch.float64), torch.tensor([1.0, 0.7, 0.2, 0.0], dtype=torch.float64)
    spread = torch.sqrt((1 - times) ** 2 * v + times**2)
    wrong = []
    for substeps in (20, 40):
        states = TeacherPaths(gaussian, NoiseSet(x, None, x), substeps).at(times[:3])
        wrong.append(float((states - spread[:3, None, None] * x).abs().max()))
    assert wrong[0] / wrong[1] == pytest.approx(4, abs=0.4)
    states = TeacherPaths(gaussian, NoiseSet(x, None, x), 80).at(times)
    torch.testing.assert_close(states[-1], spread[-1] * x, rtol=0, atol=1e-3)


def test_a_search_on_the_bases_own_grid_finds_it(model: GaussianMixture, calibration: Calibration) -> None:
    for tuner in (GITS(nodes=5), OptimalSteps(nodes=5)):
        tuned = tuner.fit(base(), model, calibration, 0)
        assert torch.equal(tuned.plan.times, base().times)
