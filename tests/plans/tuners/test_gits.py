"""GITS: costs against closed forms and plain steps, the path against all paths, and what it gains."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.solvers.rows import Levels
from isocline.plans.threshold import Threshold
from isocline.plans.tuners import GITS, Calibration, NoiseSet, draw_noises, measure
from isocline.plans.tuners.gits import shortest_path
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.recompile import on_times
from isocline.plans.tuners.teacher_grid import fine_grid
from isocline.processes import EDM, Data, Denoiser, GaussianProcess, RectifiedFlow, VariancePreserving, wrap
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


def greedy(costs: Tensor, steps: int) -> list[int]:
    """Take each step so that it and one further step to the end cost least."""
    path, last = [0], len(costs) - 1
    for k in range(1, steps):
        path.append(
            min(range(path[-1] + 1, last - steps + k + 1), key=lambda j: float(costs[path[-1], j] + costs[j, last]))
        )
    return [*path, last]


def test_it_takes_a_third_off_ddims_error_and_a_greedy_choice_does_not_in_five_of_five_seeds(
    model: GaussianMixture,
) -> None:
    tuner = GITS(substeps=1)
    levels = Levels(PROCESS, fine_grid(base(10), tuner.nodes))
    for seed in range(5):
        calibration = calibrate(model, seed)
        tuned = tuner.fit(base(10), model, calibration, seed).plan
        costs = tuner.costs(base(10), model, levels, calibration.train.take(slice(0, 8)))
        short_sighted = on_times(base(10), levels.times[greedy(costs, 10)], "greedy", "", {})
        before, after, worse = (
            measure(plan, model, calibration.held_out, batch=256).rms() for plan in (base(10), tuned, short_sighted)
        )
        assert after < 0.67 * before, seed
        assert worse > before, seed


# The costs


def test_the_costs_of_a_gaussian_are_those_of_eulers_decay() -> None:
    """On ``N(0, v)`` Euler multiplies ``y`` by ``r + (1 - r) v / (v + s^2)``, the flow by ``sqrt((v + s'^2) / (v + s^2))``."""
    v, process = 0.25, EDM(t_min=0.1, t_max=10.0)
    gaussian = GaussianMixture(process, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([v**0.5]))
    x = 10 * Stream(0).normal((5, 3), dtype=torch.float64)
    levels = Levels(process, grids.log_snr(process, 6))
    plan, noises = solvers.ddim(process, levels.times), NoiseSet(x, None, x)
    costs = GITS(substeps=40).costs(plan, gaussian, levels, noises)
    for i in range(6):
        for j in range(i + 1, 7):
            s, s_next = levels.s[i], levels.s[j]
            r, flow = s_next / s, torch.sqrt((v + s_next**2) / (v + s**2))
            state = x * torch.sqrt((v + s**2) / (v + 100))
            expected = ((r + (1 - r) * v / (v + s**2) - flow) * state).square().mean(1).sqrt().sum()
            assert float(costs[i, j]) == pytest.approx(float(expected), rel=5e-3)
    assert bool(torch.isinf(costs[torch.tril_indices(7, 7).unbind()]).all())


def shifted(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Return the data prediction for ``N(cond, 1)`` under EDM noise."""
    t = t[:, None]
    return (x + t**2 * cond) / (1 + t**2)


CASES = [
    (EDM(), "zero", None),
    (VariancePreserving(), "t_min", None),
    (RectifiedFlow(), "zero", None),
    (EDM(), "t_min", Threshold(quantile=0.7, floor=0.2)),
]


@pytest.mark.parametrize(("process", "end", "threshold"), CASES)
@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0])
def test_the_costs_are_errors_of_single_ddim_steps(
    process: GaussianProcess, end: grids.span.End, threshold: Threshold | None, norm: float
) -> None:
    smooth = GaussianMixture.smooth_bed(process)
    times = grids.uniform(process, 5, end=end)
    plan = solvers.ddim(process, times).with_threshold(threshold)
    noises = NoiseSet(plan.start((6, 8), 0, dtype=torch.float64), None, torch.zeros(6, 8))
    tuner = GITS(norm=norm, substeps=3)
    costs = tuner.costs(plan, smooth, Levels(process, times), noises)
    states = TeacherPaths(smooth, noises, substeps=3).at(times)
    for i, j in combinations(range(6), 2):
        step = solvers.ddim(process, times[[i, j]]).with_threshold(threshold)
        wrong = (step.run(smooth, states[i]).x - states[j]) / process.alpha(times[j])
        expected = sum(float(row.abs().pow(norm).mean() ** (1 / norm)) for row in wrong)
        assert float(costs[i, j]) == pytest.approx(expected, rel=1e-8, abs=1e-13)


def test_each_noise_keeps_its_condition_in_whatever_batch_it_is() -> None:
    network = wrap(shifted, PROCESS, Data())
    teacher = solvers.ddim(PROCESS, grids.karras(PROCESS, 8))
    conditions = 3 * Stream(1).normal((6, 1), dtype=torch.float64)
    calibration = draw_noises(
        teacher, network, (2,), (6, 2, 2), Stream(0), cond=lambda n: conditions[:n], dtype=torch.float64
    )
    plans = [GITS(nodes=8, substeps=1, batch=batch).fit(base(4), network, calibration, 0).plan for batch in (4, 64)]
    assert torch.equal(plans[0].times, plans[1].times)
    train, levels = calibration.train, Levels(PROCESS, fine_grid(base(4), 8))
    whole = GITS(substeps=1).costs(base(4), network, levels, train)
    parts = [GITS(substeps=1).costs(base(4), network, levels, train.take(slice(k, k + 1))) for k in range(6)]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)


# The path


@pytest.mark.parametrize("growth", [0.7, 1.0, 1.15, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_path_is_cheaper_than_the_one_found(seed: int, growth: float) -> None:
    n = 8
    costs = Stream(seed, "costs").uniform((n + 1, n + 1), dtype=torch.float64)
    costs = torch.where(torch.ones(n + 1, n + 1).triu(1).bool(), costs, torch.inf)

    def total(path: tuple[int, ...]) -> float:
        return sum(growth**k * float(costs[path[k], path[k + 1]]) for k in range(len(path) - 1))

    for steps in range(1, n + 1):
        paths = [(0, *inner, n) for inner in combinations(range(1, n), steps - 1)]
        assert tuple(shortest_path(costs, steps, growth)) == min(paths, key=total)


def test_growth_moves_steps_to_where_errors_count_more() -> None:
    """With the same cost ``(j - i)^2`` everywhere the steps are even; the growing weight makes late steps short."""
    place = torch.arange(31, dtype=torch.float64)
    costs = torch.where(place[None] > place[:, None], (place[None] - place[:, None]) ** 2, torch.inf)
    assert shortest_path(costs, 5) == [0, 6, 12, 18, 24, 30]
    steps = torch.tensor(shortest_path(costs, 5, 1.5)).diff().tolist()
    assert steps == sorted(steps, reverse=True)
    assert steps[0] >= 3 * steps[-1]


@pytest.mark.parametrize("steps", [0, 4])
def test_a_path_with_too_many_steps_is_refused(steps: int) -> None:
    with pytest.raises(InvalidInput, match="4 nodes allow paths of 1 to 3 steps"):
        shortest_path(torch.zeros(4, 4), steps)


# Settings


def test_the_growth_that_was_chosen_is_on_the_plan(model: GaussianMixture) -> None:
    calibration = calibrate(model, 0)
    tuned = GITS(growths=(1.0, 6.0), nodes=20, substeps=1).fit(base(5), model, calibration, 0)
    alone = GITS(growths=(1.0,), nodes=20, substeps=1).fit(base(5), model, calibration, 0)
    assert torch.equal(tuned.plan.times, alone.plan.times)
    assert tuned.plan.provenance.settings["growth"] == 1.0
    assert [step for step, _ in tuned.history] == [0, 1, 2]
    assert tuned.history[2][1] > tuned.history[1][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 0}, "nodes >= 1"),
        ({"batch": 0}, "batch >= 1"),
        ({"growths": ()}, "growths above 0"),
        ({"growths": (1.0, 0.0)}, "growths above 0"),
        ({"norm": 0.5}, "at least 1"),
        ({"substeps": 0}, "at least 1 step"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        GITS(**settings)  # type: ignore[arg-type]
