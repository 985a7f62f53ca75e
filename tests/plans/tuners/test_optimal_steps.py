"""OptimalSteps: its states against a plain search, its schedules against all schedules, and what it gains."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.metrics.distances import rms
from isocline.plans import Plan, grids, solvers
from isocline.plans.solvers.rows import Levels
from isocline.plans.threshold import Threshold
from isocline.plans.tuners import Calibration, NoiseSet, OptimalSteps, draw_noises, measure
from isocline.plans.tuners.optimal_steps import Layer
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.recompile import on_times
from isocline.plans.tuners.teacher_grid import fine_grid
from isocline.processes import EDM, Denoiser, GaussianProcess, RectifiedFlow, VariancePreserving
from isocline.processes.exact import GaussianMixture

PROCESS = EDM()


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture.smooth_bed(PROCESS)


def calibrate(model: Denoiser, seed: int) -> Calibration:
    teacher = solvers.heun(PROCESS, grids.karras(PROCESS, 60))
    return draw_noises(teacher, model, (8,), (64, 32, 256), Stream(seed), batch=512, dtype=torch.float64)


def base(calls: int) -> Plan:
    return solvers.ddim(PROCESS, grids.karras(PROCESS, calls))


# What it gains


def test_it_takes_four_tenths_off_ddims_error_in_five_of_five_seeds(model: GaussianMixture) -> None:
    for seed in range(5):
        calibration = calibrate(model, seed)
        tuned = OptimalSteps(nodes=40, substeps=1).fit(base(10), model, calibration, seed).plan
        before, after = (measure(plan, model, calibration.held_out, batch=256).rms() for plan in (base(10), tuned))
        assert after < 0.6 * before, seed


def test_a_free_start_takes_a_sixth_more_off_ddims_median_over_all_budgets(model: GaussianMixture) -> None:
    gains = []
    for seed in range(5):
        calibration = calibrate(model, seed)
        for calls in (5, 6, 8, 10):
            plain, free = (
                OptimalSteps(substeps=1, free_start=free).fit(base(calls), model, calibration, seed).plan
                for free in (False, True)
            )
            assert free.calls == plain.calls == calls
            assert len(free.nodes) == len(plain.nodes) + 1
            assert (free.times[0], free.times[-1]) == (plain.times[0], plain.times[-1])
            before, after = (measure(p, model, calibration.held_out, batch=256).errors.median() for p in (plain, free))
            gains.append(float(after / before))
    assert torch.tensor(gains).log().mean().exp() < 5 / 6, gains


def test_no_search_of_times_follows_a_free_start(model: GaussianMixture) -> None:
    calibration = calibrate(model, 0)
    free = OptimalSteps(substeps=1, free_start=True).fit(base(8), model, calibration, 0).plan
    with pytest.raises(InvalidInput, match="a plan of ddim that free_start has changed cannot be compiled again"):
        OptimalSteps().fit(free, model, calibration, 0)


@pytest.mark.parametrize("per_sample", [True, False])
def test_it_needs_the_students_own_states(
    model: GaussianMixture, per_sample: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that steps from the teacher's states wants only its last step short, and is worse than not searching."""
    noises = calibrate(model, 0)
    levels, tuner = Levels(PROCESS, fine_grid(base(5), 30)), OptimalSteps(substeps=1, per_sample=per_sample)

    def error() -> float:
        schedule = tuner.schedules(base(5), model, levels, noises.train).median(0).values
        plan = on_times(base(5), levels.times[schedule], "test", "", {})
        return measure(plan, model, noises.held_out, batch=256).rms()

    own, before = error(), measure(base(5), model, noises.held_out, batch=256).rms()
    monkeypatch.setattr(Layer, "states", lambda self: dict(enumerate(self.teacher[self.first :], self.first)))
    assert own < 0.6 * before
    assert error() > 2 * before


# The search

CASES = [
    (EDM(), "zero", None),
    (VariancePreserving(), "t_min", None),
    (RectifiedFlow(), "zero", None),
    (EDM(), "t_min", Threshold(quantile=0.7, floor=0.2)),
]


def plain_search(
    plan: Plan, model: Denoiser, times: Tensor, teacher: Tensor, steps: int, free: bool = False
) -> list[int]:
    """Search for one sample (teacher (T+1, 1, d)), one step of DDIM at a time."""
    last = len(times) - 1
    unit = [float(plan.process.alpha(t) + plan.process.sigma(t)) for t in times]  # of unit noise in flow form
    reached = {i: (teacher[0] / unit[0] * unit[i], [i]) for i in range(last - steps + 1 if free else 1)}
    for k in range(1, steps + 1):
        fresh = {}
        for j in [last] if k == steps else range(k, last - steps + k + 1):
            options = []
            for i, (x, path) in reached.items():
                if i < j:
                    step = solvers.ddim(plan.process, times[[i, j]]).with_threshold(plan.threshold)
                    z = step.run(model, x).x
                    options.append((float(rms(z, teacher[j])), z, [*path, j]))
            fresh[j] = min(options, key=lambda option: option[0])[1:]
        reached = fresh
    return reached[last][1]


@pytest.mark.parametrize(("process", "end", "threshold"), CASES)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("free", [False, True])
def test_each_sample_gets_the_schedule_of_a_plain_search(
    process: GaussianProcess, end: grids.span.End, threshold: Threshold | None, steps: int, free: bool
) -> None:
    smooth = GaussianMixture.smooth_bed(process)
    times = grids.uniform(process, 8, end=end)
    plan = solvers.ddim(process, grids.uniform(process, steps, end=end)).with_threshold(threshold)
    noises = NoiseSet(plan.start((3, 8), 0, dtype=torch.float64), None, torch.zeros(3, 8))
    found = OptimalSteps(free_start=free).schedules(plan, smooth, Levels(process, times), noises)
    teacher = TeacherPaths(smooth, noises, substeps=2).at(times)
    expected = [plain_search(plan, smooth, times, teacher[:, b : b + 1], steps, free) for b in range(3)]
    assert found.tolist() == expected


def test_a_schedule_for_the_batch_is_the_one_for_a_single_sample_of_all_of_them(model: GaussianMixture) -> None:
    """The mean square over the samples of a batch is that of one sample made of all their coordinates."""
    times = grids.karras(PROCESS, 12)
    x = base(4).start((5, 8), 3, dtype=torch.float64)

    class Joined(GaussianMixture):
        def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            return model._mean(x.reshape(-1, 8), alpha, sigma).reshape(x.shape)

    joined = Joined(PROCESS, torch.zeros(1, 40, dtype=torch.float64), torch.ones(1))
    levels = Levels(PROCESS, times)
    found = OptimalSteps(per_sample=False).schedules(base(4), model, levels, NoiseSet(x, None, x))
    wide = x.reshape(1, 40)
    single = OptimalSteps().schedules(base(4), joined, levels, NoiseSet(wide, None, wide))
    assert found.tolist() == single.tolist() * 5
    apart = OptimalSteps().schedules(base(4), model, levels, NoiseSet(x, None, x))
    assert len({tuple(schedule) for schedule in apart.tolist()}) > 1


@pytest.mark.parametrize(("bed", "optimal"), [(GaussianMixture.smooth_bed, 1.0), (GaussianMixture.sharp_bed, 0.6)])
def test_few_of_all_schedules_or_none_are_better(bed: Callable[[EDM], GaussianMixture], optimal: float) -> None:
    """One state for each node is not exact. Of 165 schedules it finds the best for each sample on the smooth bed, for most on the
    sharp one.
    """
    exact, times, steps = bed(PROCESS), grids.karras(PROCESS, 12), 4
    x = base(4).start((64, 8), 7, dtype=torch.float64)
    noises = NoiseSet(x, None, x)
    end = TeacherPaths(exact, noises, substeps=10).at(times)[-1]
    every = [[0, *inner, 12] for inner in combinations(range(1, 12), steps - 1)]
    table = torch.stack([rms(solvers.ddim(PROCESS, times[path]).run(exact, x).x, end) for path in every])
    found = OptimalSteps(substeps=10).schedules(base(4), exact, Levels(PROCESS, times), noises).tolist()
    excess = torch.stack([table[every.index(path), b] for b, path in enumerate(found)]) / table.amin(0)
    assert float((excess < 1 + 1e-9).double().mean()) >= optimal
    assert float(excess.max()) < 1.5


def test_the_median_of_schedules_is_a_schedule(model: GaussianMixture) -> None:
    noises = calibrate(model, 1).train
    found = OptimalSteps(nodes=30).schedules(base(5), model, Levels(PROCESS, fine_grid(base(5), 30)), noises)
    assert bool((found.diff(dim=1) > 0).all())
    assert len({tuple(schedule) for schedule in found.tolist()}) > 1
    assert bool((found.median(0).values.diff() > 0).all())


@pytest.mark.parametrize("settings", [{"nodes": 0}, {"batch": 0}, {"substeps": 0}])
def test_senseless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=r"at least 1|>= 1"):
        OptimalSteps(**settings)  # type: ignore[arg-type]
