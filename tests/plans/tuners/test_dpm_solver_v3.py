"""DPM-Solver-v3: closed forms, a second implementation, what its careful parts are for, and the tuner's contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.tuners import (
    Calibration,
    DPMSolverV3,
    NoiseSet,
    dpm_solver_v3,
    draw_noises,
    empirical_statistics,
    measure,
)
from isocline.plans.tuners.dpm_solver_v3 import running_simpson, simpson, statistics_times
from isocline.plans.tuners.empirical_statistics import EmpiricalStatistics, Moments, clock, jvp, measure_moments
from isocline.processes import EDM, Data, Denoiser, GaussianProcess, Noise, RectifiedFlow, VariancePreserving, wrap
from isocline.processes.exact import GaussianMixture

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS)
GRID = grids.log_snr(PROCESS, 10)
NODES = 40
close = torch.testing.assert_close
SETTINGS = [
    (1, False, False),
    (2, False, False),
    (3, False, False),
    (3, False, True),
    (1, True, False),
    (2, True, False),
    (3, True, True),
]


def draw(seed: int, sizes: tuple[int, int, int] = (64, 16, 1024), process: GaussianProcess = PROCESS) -> Calibration:
    teacher = solvers.exponential_adams(process, grids.log_snr(process, 80), order=4)
    model = GaussianMixture.smooth_bed(process)
    return draw_noises(teacher, model, (8,), sizes, Stream(seed), batch=1024, dtype=torch.float64)


def moments_of(noises: NoiseSet, seed: int = 0, nodes: int = NODES) -> Moments:
    found = measure_moments(MODEL, noises, statistics_times(PROCESS, GRID, nodes), Stream(seed))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def calibrations() -> list[Calibration]:
    return [draw(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def moments(calibrations: list[Calibration]) -> list[Moments]:
    return [moments_of(calibration.train) for calibration in calibrations]


@pytest.fixture(scope="module")
def statistics(moments: list[Moments]) -> list[EmpiricalStatistics]:
    return [EmpiricalStatistics.of(m) for m in moments]


def uniform(
    process: GaussianProcess, times: Tensor, nodes: int, l: float, s: float, b: float = 0.0
) -> EmpiricalStatistics:
    """Return statistics that are the same at all nodes, for two coordinates."""
    lam = process.half_log_snr(times)
    lam = torch.linspace(float(lam[0]), float(lam[-1]), nodes + 1, dtype=torch.float64)
    return EmpiricalStatistics(lam, *(torch.full((nodes + 1, 2), v, dtype=torch.float64) for v in (l, s, b)))


def error(plan: Plan, calibration: Calibration) -> float:
    return measure(plan, MODEL, calibration.held_out, batch=1024).rms()


# acceptance


def test_the_figures_of_the_card_hold_in_five_of_five_seeds(
    calibrations: list[Calibration], statistics: list[EmpiricalStatistics]
) -> None:
    """10 calls, uniform half log-SNR: order 1 at most 0.6 of DDIM, order 2 at most 0.7 of 2M, both with the corrector."""
    bases = solvers.ddim(PROCESS, GRID), solvers.dpm_solver_pp_2m(PROCESS, GRID)
    for calibration, found in zip(calibrations, statistics, strict=True):
        for order, base, bar in ((1, bases[0], 0.6), (2, bases[1], 0.7)):
            assert error(dpm_solver_v3(PROCESS, GRID, found, order=order), calibration) < bar * error(base, calibration)


def test_neither_the_statistics_nor_the_corrector_reach_the_first_figure_alone(
    calibrations: list[Calibration], statistics: list[EmpiricalStatistics]
) -> None:
    data = replace(statistics[0], l=torch.ones_like(statistics[0].l), s=0 * statistics[0].s, b=0 * statistics[0].b)
    base = error(solvers.ddim(PROCESS, GRID), calibrations[0])
    assert error(dpm_solver_v3(PROCESS, GRID, statistics[0], order=1, corrector=False), calibrations[0]) > 0.6 * base
    assert error(dpm_solver_v3(PROCESS, GRID, data, order=1), calibrations[0]) > 0.6 * base


# degenerate cases and closed forms


@pytest.mark.parametrize("process", [PROCESS, VariancePreserving()])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_known_parameterisations_give_known_solvers(process: GaussianProcess, order: int) -> None:
    """The 2M of the authors' code has approximate weights; it is the same to order 3 in the step, not to 1e-3 at 10 steps."""
    times = grids.log_snr(process, 10)
    data, noise = (uniform(process, times, 120, l, s) for l, s in ((1.0, 0.0), (0.0, -1.0)))
    exact = solvers.exponential_adams(process, times, order=order), solvers.lam_adams(process, times, order=order)
    if order == 1:
        exact = solvers.ddim(process, times), solvers.ddim(process, times)
    assert dpm_solver_v3(process, times, data, order=order, corrector=False).equivalent(exact[0], 1e-6)
    assert dpm_solver_v3(process, times, noise, order=order, corrector=False).equivalent(exact[1], 1e-6)


def test_with_small_steps_the_degenerate_case_is_2m_to_1e_3() -> None:
    times = grids.log_snr(PROCESS, 200)
    found = dpm_solver_v3(PROCESS, times, uniform(PROCESS, times, 400, 1.0, 0.0), order=2, corrector=False)
    assert found.equivalent(solvers.dpm_solver_pp_2m(PROCESS, times), 1e-3)
    coarse = dpm_solver_v3(PROCESS, GRID, uniform(PROCESS, GRID, 120, 1.0, 0.0), order=2, corrector=False)
    assert not coarse.equivalent(solvers.dpm_solver_pp_2m(PROCESS, GRID), 1e-2)


def test_a_gaussian_is_solved_exactly_with_any_number_of_calls() -> None:
    """There f does not depend on the state, so its statistics say all: y = mu + (y_0 - mu) sqrt((v + s^2) / (v + s_0^2)).

    What is left comes from ``l`` between its nodes and falls with the square of their distance.
    """
    mean, std = torch.tensor([[0.7, -0.3]], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    model = GaussianMixture(PROCESS, mean, std)
    noises = NoiseSet(PROCESS.terminal((4, 2), 0, dtype=torch.float64), None, torch.zeros(4, 2, dtype=torch.float64))
    scale = math.sqrt((0.25 + PROCESS.t_min**2) / (0.25 + PROCESS.t_max**2))
    exact, worst = mean + (noises.x - mean) * scale, []
    for nodes in (30, 60):
        moments = measure_moments(model, noises, statistics_times(PROCESS, GRID, nodes), Stream(0))
        assert moments is not None
        found = EmpiricalStatistics.of(moments)
        level = torch.exp(-found.lam)[:, None]
        close(found.l, (level**2 / (0.25 + level**2)).expand_as(found.l), rtol=1e-10, atol=1e-10)
        assert bool((found.s == 0).all())
        settings = [(1, 1, False), (2, 1, True), (5, 1, False), (5, 2, True)]
        plans = [
            dpm_solver_v3(PROCESS, grids.log_snr(PROCESS, calls), found, order=order, corrector=corrector)
            for calls, order, corrector in settings
        ]
        worst.append(max(float((plan.run(model, noises.x).x - exact).abs().max()) for plan in plans))
    assert worst[1] < 2e-2
    assert 3.0 < worst[0] / worst[1] < 5.0
    assert float((solvers.ddim(PROCESS, grids.log_snr(PROCESS, 5)).run(model, noises.x).x - exact).abs().max()) > 0.1


@pytest.mark.parametrize(("l", "s", "b"), [(0.4, -0.3, 0.2), (1.0, 0.5, -1.0), (1.0, 80.0, 0.0)])
def test_constant_statistics_have_a_closed_first_step(l: float, s: float, b: float) -> None:
    """e^{L+S} over the whole range would overflow with s = 80; a step only needs its own part of it."""
    found = uniform(PROCESS, GRID, 4000, l, s, b)
    plan = dpm_solver_v3(PROCESS, GRID, found, order=1, corrector=False)
    h = float(PROCESS.half_log_snr(GRID).diff()[0])
    w = math.exp(-l * h) * math.expm1((l + s) * h) / (l + s)
    c = b / s * math.exp(-l * h) * (math.expm1((l + s) * h) / (l + s) - math.expm1(l * h) / l) if b else 0.0
    close(plan.carry, torch.full((10, 2), math.exp(-l * h) - (1 - l) * w, dtype=torch.float64), rtol=1e-5, atol=1e-9)
    close(torch.diagonal(plan.weights), torch.full((2, 10), w, dtype=torch.float64), rtol=1e-5, atol=1e-9)
    assert plan.constant is not None
    close(plan.constant, torch.full((10, 2), -c, dtype=torch.float64), rtol=1e-5, atol=1e-9)
    if s == 80:
        _, _, L, S = found.halves
        assert bool(torch.isinf(torch.exp(L + S)).any())


@pytest.mark.parametrize(("order", "corrector", "pseudo"), SETTINGS)
def test_a_loop_from_the_paper_gives_the_same_samples(
    statistics: list[EmpiricalStatistics], order: int, corrector: bool, pseudo: bool
) -> None:
    found, x = statistics[0], PROCESS.terminal((5, 8), 3, dtype=torch.float64)
    plan = dpm_solver_v3(PROCESS, GRID, found, order=order, corrector=corrector, pseudo=pseudo)
    close(plan.run(MODEL, x).x, by_the_paper(found, x, order, corrector, pseudo), rtol=2e-4, atol=2e-4)
    assert plan.calls == 10


def by_the_paper(found: EmpiricalStatistics, x: Tensor, order: int, corrector: bool, pseudo: bool) -> Tensor:
    """Sample with global cumulative integrals L, S, I, B, C by the trapezoid rule on a grid 40 times finer, and lists of states."""
    fine = torch.linspace(float(found.lam[0]), float(found.lam[-1]), 40 * NODES + 1, dtype=torch.float64)[:, None]

    def resampled(column: Tensor) -> Tensor:
        share = torch.arange(40 * NODES + 1, dtype=torch.float64)[:, None] / 40
        low = share.floor().long().clamp(max=NODES - 1)
        return column[low[:, 0]] + (share - low) * (column[low[:, 0] + 1] - column[low[:, 0]])

    def integral(values: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(values[:1]), ((values[1:] + values[:-1]) / 2 * fine.diff(dim=0)).cumsum(0)])

    l, s, b = (resampled(c) for c in (found.l, found.s, found.b))
    L, S = integral(l), integral(s)
    B = integral(torch.exp(-S) * b)
    at = [40 * NODES // 10 * i for i in range(11)]
    lam = [float(fine[i]) for i in at]

    def step(x: Tensor, i: int, nodes: list[int], pseudo: bool) -> Tensor:
        p, q = at[i], at[i + 1]
        frame = torch.exp(S[p])
        g = [frame * (torch.exp(-S[at[j]]) * f[j] - (B[at[j]] - B[p])) for j in nodes]
        table, points = [g], [lam[j] for j in nodes]
        for k in range(1, len(nodes)):
            above = table[-1]
            table.append([(above[j + 1] - above[j]) / (points[j + k] - points[j]) for j in range(len(above) - 1)])
        growth = torch.exp(L[p : q + 1] - L[q] + S[p : q + 1] - S[p])
        basis, y = torch.ones_like(fine[p : q + 1]), torch.exp(L[p] - L[q]) * x
        for k, row in enumerate(table):
            y = y - torch.trapezoid(growth * basis, fine[p : q + 1], dim=0) * row[0]
            basis = basis * (fine[p : q + 1] - points[0 if pseudo else k])
        return y - torch.trapezoid(growth * frame * (B[p : q + 1] - B[p]), fine[p : q + 1], dim=0)

    f: list[Tensor] = []
    corrected = x
    for i in range(10):
        f.append((1 - l[at[i]]) * x - MODEL(x, GRID[i]))
        if corrector and i > 0:
            x = step(corrected, i - 1, [i - 1, i, *range(i - 2, max(i - 1 - min(order, i), -1), -1)], pseudo)
        corrected = x
        x = step(x, i, list(range(i, max(i - order, -1), -1)), pseudo)
    return x


def test_quadrature_is_exact_for_parabolas() -> None:
    lam = torch.tensor([0.0, 0.5, 1.0, 1.2, 1.4], dtype=torch.float64)
    parabola = torch.stack([lam**2, 1 - 3 * lam], dim=1)
    exact = torch.stack([lam**3 / 3, lam - 1.5 * lam**2], dim=1)
    close(running_simpson(lam, parabola), exact, rtol=1e-12, atol=1e-12)
    close(simpson(lam, parabola), exact[-1], rtol=1e-12, atol=1e-12)
    assert torch.equal(simpson(lam[:1], parabola[:1]), torch.zeros(2, dtype=torch.float64))


# the easily skipped parts


def test_the_derivative_is_the_total_one_along_the_path() -> None:
    """Against differences of the network along a finely integrated path; the partial derivative in time is something else."""
    x, t = (
        PROCESS.terminal((6, 8), 1, dtype=torch.float64) * (0.6 / PROCESS.t_max),
        torch.tensor(0.6, dtype=torch.float64),
    )
    dt, stretch = clock(PROCESS, t)
    h = 1e-4
    levels = [torch.exp(-(PROCESS.half_log_snr(t) + k * h)) for k in (-1, 1)]
    ends = [solvers.heun(PROCESS, torch.stack([t, s])).run(MODEL, x).x for s in levels[1:]]
    data = MODEL(x, t)
    back = x - h * (data - x) + h**2 / 2 * (MODEL(x + 1e-3 * (data - x), t * (1 - 1e-3)) - MODEL(x, t)) / 1e-3
    back = back - h**2 / 2 * (data - x)
    expected = (MODEL(ends[0], levels[1]) - MODEL(back, levels[0])) / (2 * h)
    total = jvp(MODEL, x, t, stretch * x + data - x, dt, None)[1]
    partial = jvp(MODEL, x, t, torch.zeros_like(x), dt, None)[1]
    close(total, expected, rtol=1e-4, atol=1e-5)
    assert float((partial - expected).abs().max()) > 0.1


def test_without_the_total_derivative_the_figure_is_missed(
    calibrations: list[Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    def partial(denoiser: Denoiser, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return jvp(denoiser, x, t, dx if float(dt) == 0 else torch.zeros_like(dx), dt, cond)

    monkeypatch.setattr(empirical_statistics, "jvp", partial)
    crippled = EmpiricalStatistics.of(moments_of(calibrations[0].train))
    base = solvers.dpm_solver_pp_2m(PROCESS, GRID)
    assert error(dpm_solver_v3(PROCESS, GRID, crippled, order=2), calibrations[0]) > 0.7 * error(base, calibrations[0])


def test_fresh_probes_at_each_node_would_leave_noise_in_the_derivative(
    calibrations: list[Calibration], moments: list[Moments], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(10**6))

    def fresh(
        denoiser: Denoiser, x: Tensor, t: Tensor, cond: Any, probes: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return same(denoiser, x, t, cond, [Stream(next(count)).rademacher(tuple(x.shape), dtype=x.dtype)])

    same = empirical_statistics._moments_at
    monkeypatch.setattr(empirical_statistics, "_moments_at", fresh)
    noisy = moments_of(calibrations[0].train)
    early = slice(0, NODES // 4)  # l hardly depends on the state there, all that is left is the noise
    left, right = (float(m.derivative_error(EmpiricalStatistics.of(m))[early].mean()) for m in (noisy, moments[0]))
    assert left > 3 * right


@pytest.mark.parametrize("order", [1, 2])
def test_nodes_snap_to_those_of_the_statistics(order: int) -> None:
    """A plan on the base's own times with integrals between the nearest nodes would not be consistent."""
    times = grids.karras(PROCESS, 10)
    plan = dpm_solver_v3(PROCESS, times, uniform(PROCESS, times, 64, 1.0, 0.0), order=order, corrector=False)
    assert 0.01 < float((plan.times / times - 1).abs().max()) < 0.1
    assert torch.equal(plan.times[[0, -1]], times[[0, -1]])
    assert plan.equivalent(solvers.exponential_adams(PROCESS, plan.times, order=order), 1e-5)
    assert not replace(plan, times=times, nodes=times, model_times=times[:-1]).equivalent(
        solvers.exponential_adams(PROCESS, times, order=order), 1e-2
    )


def test_a_grid_too_fine_or_too_wide_for_the_statistics_is_refused() -> None:
    found = uniform(PROCESS, GRID, 20, 1.0, 0.0)
    with pytest.raises(InvalidInput, match=r"21 nodes are too coarse for 40 steps.*use more"):
        dpm_solver_v3(PROCESS, grids.log_snr(PROCESS, 40), found)
    with pytest.raises(InvalidInput, match=r"cover half log-SNRs.*wider range"):
        dpm_solver_v3(PROCESS, grids.log_snr(PROCESS, 5, t_min=1e-3), found)
    with pytest.raises(InvalidInput, match="orders 1 to 3, got 4"):
        dpm_solver_v3(PROCESS, GRID, found, order=4)


def test_a_coordinate_that_does_not_vary_gets_no_slope() -> None:
    """A pixel that is always the same has Var(f) = rounding; dividing by it would overflow the plan."""
    noises = NoiseSet(PROCESS.terminal((16, 2), 0, dtype=torch.float64), None, torch.zeros(16, 2, dtype=torch.float64))

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([torch.tanh(x[:, 0]), -1 + 1e-9 * torch.sin(1e3 * x[:, 1])], dim=1)

    moments = measure_moments(wrap(network, PROCESS, Noise()), noises, statistics_times(PROCESS, GRID, 20), Stream(0))
    assert moments is not None
    still = replace(moments, gain=moments.gain * 0, second=moments.second, first=moments.first)
    found = EmpiricalStatistics.of(still)
    assert bool(torch.isfinite(found.s).all())
    constant = Moments(
        found.lam, 4, torch.zeros_like(found.l), torch.zeros_like(still.first), torch.zeros_like(still.second)
    )
    constant.first[:, 1], constant.second[:, 1, 1] = -1.0, 1.0 + 1e-15
    assert torch.equal(EmpiricalStatistics.of(constant).s, torch.zeros_like(found.s))


# statistics on noises they were not measured on


def test_the_statistics_hold_on_noises_they_were_not_measured_on(
    calibrations: list[Calibration], moments: list[Moments], statistics: list[EmpiricalStatistics]
) -> None:
    """Their first-order error grows little from training to held-out paths, and stays well below that of data prediction."""
    held_out = moments_of(calibrations[0].held_out.take(slice(0, 256)), seed=1)
    found = statistics[0]
    data = replace(found, l=torch.ones_like(found.l), s=0 * found.s, b=0 * found.b)
    trained, fresh = (float(m.derivative_error(found).mean()) for m in (moments[0], held_out))
    assert trained < fresh < 1.5 * trained
    assert fresh < 0.6 * float(held_out.derivative_error(data).mean())


def test_moments_of_two_batches_are_those_of_both(calibrations: list[Calibration]) -> None:
    noises, times = calibrations[0].train.take(slice(0, 12)), statistics_times(PROCESS, GRID, 5)
    whole = measure_moments(MODEL, noises, times, Stream(0))
    parts = [measure_moments(MODEL, noises.take(slice(a, b)), times, Stream(0), first=a) for a, b in ((0, 8), (8, 12))]
    assert whole is not None
    assert parts[0] is not None
    assert parts[1] is not None
    joined = parts[0].with_more(parts[1])
    assert joined.count == 12
    for name in ("gain", "first", "second"):
        close(getattr(joined, name), getattr(whole, name), rtol=1e-11, atol=1e-11)


def test_statistics_survive_a_file(statistics: list[EmpiricalStatistics], tmp_path: Path) -> None:
    path = statistics[0].save(tmp_path / "statistics.safetensors")
    found = EmpiricalStatistics.load(path)
    for name in ("lam", "l", "s", "b"):
        assert torch.equal(getattr(found, name), getattr(statistics[0], name))
    files.write_tensors(path, {"lam": found.lam})
    with pytest.raises(BadFile, match="does not say that it holds statistics"):
        EmpiricalStatistics.load(path)


# the tuner


TUNER = DPMSolverV3(nodes=20, batch=8)


def test_the_tuned_plan_survives_a_file_and_counts_its_cost(tmp_path: Path) -> None:
    calibration, base = draw(0, (16, 8, 8)), solvers.dpm_solver_pp_2m(PROCESS, GRID)
    tuned = TUNER.fit(base, MODEL, calibration, 0)
    loaded = Plan.load(tuned.plan.save(tmp_path / "plan.json"))
    x = calibration.held_out.x
    assert torch.equal(tuned.plan.run(MODEL, x).x, loaded.run(MODEL, x).x)
    assert loaded.provenance == tuned.plan.provenance
    assert (loaded.provenance.method, loaded.event) == ("DPMSolverV3", (8,))
    assert tuned.cost.calls == 2 * (20 + 2 * 21) + 10 + 10
    assert tuned.cost.vjps == 2 * 2 * 21
    assert [step for step, _ in tuned.history] == [0, 1]
    assert tuned.history[1][1] < tuned.history[0][1]


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (solvers.ddim, 1),
        (solvers.dpm_solver_pp_2m, 2),
        (solvers.dpm_solver_pp_3m, 3),
        (lambda p, t: solvers.exponential_adams(p, t, order=2), 2),
        (lambda p, t: solvers.lam_adams(p, t, order=4), 3),
    ],
)
def test_the_base_gives_the_order(solver: Callable[[GaussianProcess, Tensor], Plan], order: int) -> None:
    assert TUNER.solver_settings(solver(PROCESS, GRID))["order"] == order
    assert replace(TUNER, order=1).solver_settings(solver(PROCESS, GRID))["order"] == 1


def test_batches_and_held_out_noises_do_not_matter() -> None:
    calibration, base = draw(0, (16, 8, 8)), solvers.ddim(PROCESS, GRID)
    poison = torch.full_like(calibration.held_out.x, math.nan)
    blind = replace(calibration, held_out=NoiseSet(poison, None, poison))
    first, second = (
        TUNER.fit(base, MODEL, blind, 3).plan,
        replace(TUNER, batch=16).fit(base, MODEL, calibration, 3).plan,
    )
    assert first.equivalent(second, 1e-4)


def test_the_base_is_kept_where_it_is_better_or_time_is_up() -> None:
    calibration, base = draw(0, (8, 8, 8)), solvers.exponential_adams(PROCESS, grids.log_snr(PROCESS, 40), order=4)
    assert TUNER.nodes < 40
    worse = DPMSolverV3(order=1, nodes=40, corrector=False).fit(base, MODEL, calibration, 0)
    assert worse.plan == base
    assert worse.plan.provenance.settings["kept"] == "base"
    assert worse.history[1][1] > worse.history[0][1]
    late = DPMSolverV3(nodes=2000).fit(base, MODEL, calibration, 0, seconds=0.05)
    assert late.plan == base
    assert [step for step, _ in late.history] == [0]


def test_guidance_and_threshold_stay() -> None:
    class Guided(GaussianMixture):
        guidance = 2.0

    model = Guided(PROCESS, MODEL.means, MODEL.stds, MODEL.weights)
    calibration = draw(0, (8, 8, 8))
    base = solvers.ddim(PROCESS, GRID).for_guidance(2.0)
    calibration = replace(calibration, teacher=calibration.teacher.for_guidance(2.0))
    assert TUNER.fit(base, model, calibration, 0).plan.guidance == 2.0


@pytest.mark.parametrize(
    ("process", "end"),
    [(RectifiedFlow(), "zero"), (RectifiedFlow(), "t_min"), (EDM(), "zero"), (VariancePreserving(), "t_min")],
)
def test_it_helps_with_starts_without_signal_and_clean_ends(process: GaussianProcess, end: Any) -> None:
    model = GaussianMixture.smooth_bed(process)
    teacher = solvers.exponential_adams(process, grids.uniform(process, 100, end=end), order=3)
    if isinstance(process, EDM):
        teacher = solvers.heun(process, grids.karras(process, 60, end=end))
    calibration = draw_noises(teacher, model, (8,), (32, 16, 64), Stream(0), batch=64, dtype=torch.float64)
    base = solvers.ddim(process, grids.uniform(process, 8, end=end))
    if isinstance(process, EDM):
        base = solvers.ddim(process, grids.karras(process, 8, end=end))
    tuned = DPMSolverV3(nodes=24).fit(base, model, calibration, 0)
    assert "kept" not in tuned.plan.provenance.settings
    assert (
        measure(tuned.plan, model, calibration.held_out).rms() < 0.6 * measure(base, model, calibration.held_out).rms()
    )


def test_what_it_cannot_start_from_is_refused() -> None:
    calibration = draw(0, (8, 8, 8))
    for base in (solvers.heun(PROCESS, GRID), solvers.ddim(PROCESS, GRID, eta=1.0)):
        with pytest.raises(InvalidInput, match="deterministic plan with one call a step"):
            TUNER.fit(base, MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="compare plans with the same ends"):
        TUNER.fit(solvers.ddim(PROCESS, grids.log_snr(PROCESS, 5, t_min=0.01)), MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="orders 1 to 3"):
        DPMSolverV3(order=5)
    with pytest.raises(InvalidInput, match="at least 1"):
        DPMSolverV3(probes=0)


def test_a_network_without_a_forward_derivative_is_named() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0]

    network = wrap(lambda x, t: Opaque.apply(x), PROCESS, Noise())
    t = torch.tensor(1.0, dtype=torch.float64)
    with pytest.raises(InvalidInput, match="differentiated forward"):
        jvp(network, torch.ones(2, 2), t, torch.ones(2, 2), torch.zeros_like(t), None)


def test_attention_has_a_forward_derivative() -> None:
    def attend(x: Tensor, t: Tensor) -> Tensor:
        rows = x.reshape(len(x), 1, 4, 8)  # one head, four places
        return torch.nn.functional.scaled_dot_product_attention(rows, rows.flip(2), rows).reshape(x.shape)

    network, t = wrap(attend, PROCESS, Data()), torch.tensor(1.0, dtype=torch.float64)
    x, v = (Stream(k).normal((3, 32), dtype=torch.float64) for k in (0, 1))
    value, slope = jvp(network, x, t, v, torch.zeros_like(t), None)
    above, below = (network(x + sign * 1e-5 * v, t) for sign in (1, -1))
    close(slope, (above - below) / 2e-5, rtol=1e-6, atol=1e-8)
    close(value, network(x, t))
