"""DPM-Solver and single-step DPM-Solver++: published rows, second implementations, orders, blocks, where they lose to DDIM."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, grids, solvers
from isocline.plans.solvers.dpm_solver import NOISE
from isocline.plans.solvers.dpm_solver_pp_single import DATA
from isocline.processes import EDM, Data, GaussianMixture, GaussianProcess, RectifiedFlow
from tests.contracts.solvers import Entry
from tests.plans.helpers import PROCESSES, normal
from tests.plans.solvers.test_contract import observed_order, rms
from tests.plans.solvers.test_pndm import end_of_ode

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def uneven(process: GaussianProcess) -> Tensor:
    """Return times whose noise levels fall by uneven ratios."""
    return process.time_of_noise_level(torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64))


def small_bed(process: GaussianProcess) -> GaussianMixture:
    return GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))


@every_process
def test_first_order_is_ddim(process: GaussianProcess) -> None:
    times = uneven(process)
    assert solvers.dpm_solver_1(process, times).equivalent(solvers.ddim(process, times))


def test_second_order_in_data_form_has_its_closed_rows() -> None:
    """With the stage at ``u = sqrt(s t)``,

    ``y_u = (u / s) y + (1 - u / s) D_s`` and ``y_t = (t / u) y_u - (1 - u / s) (s / u) D_s + ((s - t) / u) D_u``.
    """
    levels = uneven(EDM())
    plan = solvers.dpm_solver_2(EDM(), levels).convert(Data())
    s, t = levels[:-1], levels[1:]
    u = torch.sqrt(s * t)
    torch.testing.assert_close(plan.carry, torch.stack([u / s, t / u], 1).flatten(), rtol=1e-12, atol=0)
    weights = torch.zeros(10, 10, dtype=torch.float64)
    for i in range(5):
        weights[2 * i, 2 * i] = 1 - u[i] / s[i]
        weights[2 * i + 1, 2 * i] = -(1 - u[i] / s[i]) * s[i] / u[i]
        weights[2 * i + 1, 2 * i + 1] = (s[i] - t[i]) / u[i]
    torch.testing.assert_close(plan.weights, weights, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(
        plan.times, torch.cat([torch.stack([s, u], 1).flatten(), levels[-1:]]), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("h", [0.05, 0.7, 4.0])
def test_centres_agree_with_quadrature(h: float) -> None:
    for prediction, sign in ((NOISE, -1), (DATA, 1)):
        whole = quad(lambda u, sign=sign: math.exp(sign * u), 0, h, epsrel=1e-13)[0]
        first = quad(lambda u, sign=sign: math.exp(sign * u) * u, 0, h, epsrel=1e-13)[0]
        found = prediction.centre(torch.tensor(h, dtype=torch.float64))
        assert float(found) == pytest.approx(first / whole / h, rel=1e-11)


Step = Callable[[GaussianMixture, Tensor, Tensor, list[Tensor]], Tensor]


def noise_step_3(bed: GaussianMixture, x: Tensor, lam: Tensor, t: list[Tensor]) -> Tensor:
    """DPM-Solver-3 as its paper prints it: times `t` and half log-SNRs `lam` of start, two stages and end."""
    process = bed.process
    (a0, a1, a2, a3), (_, s1, s2, s3) = zip(*[(process.alpha(v), process.sigma(v)) for v in t], strict=True)
    h, k1, k2 = lam[3] - lam[0], lam[1] - lam[0], lam[2] - lam[0]
    e0 = bed.predict(x, t[0]).eps
    u1 = a1 / a0 * x - s1 * torch.expm1(k1) * e0
    d1 = bed.predict(u1, t[1]).eps - e0
    u2 = a2 / a0 * x - s2 * torch.expm1(k2) * e0 - s2 * k2 / k1 * (torch.expm1(k2) / k2 - 1) * d1
    d2 = bed.predict(u2, t[2]).eps - e0
    return a3 / a0 * x - s3 * torch.expm1(h) * e0 - s3 * h / k2 * (torch.expm1(h) / h - 1) * d2


def noise_step_2(bed: GaussianMixture, x: Tensor, lam: Tensor, t: list[Tensor]) -> Tensor:
    """DPM-Solver-2 as its paper prints it."""
    process = bed.process
    (a0, a1, a2), (_, s1, s2) = zip(*[(process.alpha(v), process.sigma(v)) for v in t], strict=True)
    h, k1 = lam[2] - lam[0], lam[1] - lam[0]
    e0 = bed.predict(x, t[0]).eps
    e1 = bed.predict(a1 / a0 * x - s1 * torch.expm1(k1) * e0, t[1]).eps
    return a2 / a0 * x - s2 * torch.expm1(h) * e0 - s2 * h / (2 * k1) * torch.expm1(h) * (e1 - e0)


def noise_step_1(bed: GaussianMixture, x: Tensor, lam: Tensor, t: list[Tensor]) -> Tensor:
    """DPM-Solver-1 as its paper prints it."""
    a, s = bed.process.alpha(torch.stack(t)), bed.process.sigma(torch.stack(t))
    return a[1] / a[0] * x - s[1] * torch.expm1(lam[1] - lam[0]) * bed.predict(x, t[0]).eps


def data_step_2(bed: GaussianMixture, x: Tensor, lam: Tensor, t: list[Tensor]) -> Tensor:
    """DPM-Solver++ 2S as its paper prints it."""
    a, s = bed.process.alpha(torch.stack(t)), bed.process.sigma(torch.stack(t))
    h, k1 = lam[2] - lam[0], lam[1] - lam[0]
    d0 = bed(x, t[0])
    d1 = bed(s[1] / s[0] * x - a[1] * torch.expm1(-k1) * d0, t[1])
    r1 = k1 / h
    return s[2] / s[0] * x - a[2] * torch.expm1(-h) * ((1 - 1 / (2 * r1)) * d0 + d1 / (2 * r1))


def data_step_3(bed: GaussianMixture, x: Tensor, lam: Tensor, t: list[Tensor]) -> Tensor:
    """DPM-Solver++ 3S in the notation of its authors."""
    a, s = bed.process.alpha(torch.stack(t)), bed.process.sigma(torch.stack(t))
    h, k1, k2 = lam[3] - lam[0], lam[1] - lam[0], lam[2] - lam[0]
    d0 = bed(x, t[0])
    d1 = bed(s[1] / s[0] * x - a[1] * torch.expm1(-k1) * d0, t[1]) - d0
    u2 = s[2] / s[0] * x - a[2] * torch.expm1(-k2) * d0 + k2 / k1 * a[2] * (torch.expm1(-k2) / k2 + 1) * d1
    d2 = bed(u2, t[2]) - d0
    return s[3] / s[0] * x - a[3] * torch.expm1(-h) * d0 + h / k2 * a[3] * (torch.expm1(-h) / h + 1) * d2


def staged(process: GaussianProcess, times: Tensor, shares: list[float]) -> list[Tensor]:
    """Return for each step the half log-SNRs of start, stages and end."""
    return [
        torch.stack([a + r * (b - a) for r in (0.0, *shares, 1.0)]) for a, b in pairwise(process.half_log_snr(times))
    ]


def naive(process: GaussianProcess, x: Tensor, blocks: list[Tensor], rules: dict[int, Step]) -> Tensor:
    """Return the end state after one step over each block of half log-SNRs."""
    for lam in blocks:
        x = rules[len(lam) - 1](small_bed(process), x, lam, list(process.time_of(lam)))
    return x


NOISE_RULES: dict[int, Step] = {1: noise_step_1, 2: noise_step_2, 3: noise_step_3}


@pytest.mark.parametrize(
    ("solver", "shares", "rules"),
    [
        (solvers.dpm_solver_1, [], NOISE_RULES),
        (solvers.dpm_solver_2, [0.5], NOISE_RULES),
        (partial(solvers.dpm_solver_2, r1=0.3), [0.3], NOISE_RULES),
        (solvers.dpm_solver_3, [1 / 3, 2 / 3], NOISE_RULES),
        (partial(solvers.dpm_solver_3, r1=0.4, r2=0.9), [0.4, 0.9], NOISE_RULES),
        (solvers.dpm_solver_pp_2s, [0.5], {2: data_step_2}),
        (partial(solvers.dpm_solver_pp_2s, r1=1.0), [1.0], {2: data_step_2}),
        (solvers.dpm_solver_pp_3s, [1 / 3, 2 / 3], {3: data_step_3}),
        (partial(solvers.dpm_solver_pp_3s, r1=0.2, r2=0.5), [0.2, 0.5], {3: data_step_3}),
    ],
)
@every_process
def test_plans_agree_with_the_printed_formulas(
    solver: Callable[..., Plan], shares: list[float], rules: dict[int, Step], process: GaussianProcess
) -> None:
    times, x = uneven(process), normal(4, 2, seed=2)
    expected = naive(process, x, staged(process, times, shares), rules)
    torch.testing.assert_close(solver(process, times).run(small_bed(process), x).x, expected, rtol=1e-9, atol=1e-9)


def paper_blocks(process: GaussianProcess, n: int) -> list[Tensor]:
    """Return the blocks of the paper's DPM-Solver-fast: ``floor(n / 3) + 1`` equal steps in half log-SNR, divided evenly."""
    count = n // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if n % 3 == 0 else [3] * (count - 1) + [n % 3]
    ends = process.half_log_snr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
    outer = torch.linspace(float(ends[0]), float(ends[1]), count + 1, dtype=torch.float64)
    return [
        torch.linspace(float(a), float(b), k + 1, dtype=torch.float64)
        for k, (a, b) in zip(orders, pairwise(outer), strict=True)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 10, 11])
@every_process
def test_fast_on_its_block_times_is_the_papers_algorithm(process: GaussianProcess, n: int) -> None:
    x = normal(4, 2, seed=2) * process.sigma(process.t_max)
    expected = naive(process, x, paper_blocks(process, n), NOISE_RULES)
    plan = solvers.dpm_solver_fast(process, grids.log_snr_blocks(process, n))
    assert plan.calls == n
    torch.testing.assert_close(plan.run(small_bed(process), x).x, expected, rtol=1e-8, atol=1e-8)


def test_fast_takes_its_stages_from_the_grid() -> None:
    times = uneven(EDM())
    lam = -torch.log(times)
    x = 9 * normal(4, 2, seed=2)
    expected = naive(EDM(), x, [lam[:4], lam[3:]], NOISE_RULES)
    torch.testing.assert_close(solvers.dpm_solver_fast(EDM(), times).run(small_bed(EDM()), x).x, expected)


@pytest.mark.parametrize("n", [0, -3, 2.5])
def test_block_times_need_a_step(n: int) -> None:
    with pytest.raises(InvalidInput, match="at least one step"):
        grids.log_snr_blocks(EDM(), n)


@pytest.mark.parametrize(("n", "sizes"), [(2, [1, 1]), (5, [3, 1, 1]), (6, [3, 2, 1]), (7, [3, 3, 1])])
def test_a_block_that_ends_without_noise_is_a_block_of_one(n: int, sizes: list[int]) -> None:
    times = grids.log_snr_blocks(EDM(), n, end="zero")
    assert len(times) == n + 1
    assert float(times[-1]) == 0.0
    gaps = -torch.log(times[:-1]).diff()
    whole = math.log(80 / 0.002) / (len(sizes) - 1)
    expected = [whole / k for k in sizes[:-1] for _ in range(k)]
    torch.testing.assert_close(gaps, torch.tensor(expected, dtype=torch.float64))
    run = solvers.dpm_solver_fast(EDM(), times).run(small_bed(EDM()), 80 * normal(4, 2, seed=2), record=True)
    assert run.trajectory is not None
    torch.testing.assert_close(run.x, small_bed(EDM())(run.trajectory[-2], times[-2]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("solver", "settings", "order"),
    [
        (solvers.dpm_solver_2, {"r1": 0.3}, 2),
        (solvers.dpm_solver_2, {"r1": 1.0}, 2),
        (solvers.dpm_solver_3, {"r1": 0.5}, 3),
        (solvers.dpm_solver_3, {"r2": 0.95}, 2),
        (solvers.dpm_solver_pp_3s, {"r2": 0.95}, 2),
    ],
)
def test_the_order_needs_the_second_stage_at_two_thirds(
    solver: Callable[..., Plan], settings: dict[str, float], order: int
) -> None:
    entry = Entry(solver.__name__, solver, order, settings=settings, steps=(60, 120), top=10.0)
    assert abs(observed_order(entry) - order) < 0.15


@pytest.mark.parametrize(("steps", "order"), [((80, 161), 3), ((159, 318), 2), ((79, 160), 2)])
@pytest.mark.parametrize("grid", [grids.log_snr, grids.log_snr_blocks])
def test_the_last_block_decides_the_order_of_fast(
    steps: tuple[int, int], order: int, grid: Callable[..., Tensor]
) -> None:
    entry = Entry("dpm_solver_fast", solvers.dpm_solver_fast, order, steps=steps, top=10.0)
    assert abs(observed_order(entry, grid) - order) < 0.15


def test_steps_at_infinite_noise_or_without_noise_have_no_stages() -> None:
    flow = RectifiedFlow()
    times = grids.uniform(flow, 6, end="zero")
    assert solvers.dpm_solver_pp_2s(flow, times).calls == 1 + 2 * 4 + 1
    assert solvers.dpm_solver_pp_3s(flow, times).calls == 1 + 3 * 4 + 1


@pytest.mark.parametrize("solver", [solvers.dpm_solver_pp_2s, solvers.dpm_solver_pp_3s])
def test_a_start_without_signal_is_the_limit_of_late_starts(solver: Callable[..., Plan]) -> None:
    """The first step loses its stages there, but not its result."""
    flow, x = RectifiedFlow(), normal(4, 2, seed=2)
    inside = [0.8, 0.5, 0.2]

    def end(t: float) -> Tensor:
        return solver(flow, torch.tensor([t, *inside], dtype=torch.float64)).run(small_bed(flow), x).x

    gaps = [rms(end(1.0) - end(1 - late)) for late in (1e-3, 1e-6, 1e-9)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]
    assert gaps[2] < 1e-4


def bed_errors(seed: int, calls: int) -> dict[str, float]:
    """Return the RMSE on a smooth mixture from ``s = 80`` to 0.002 on grids uniform in log-SNR, for equal numbers of calls."""
    bed = GaussianMixture.smooth_bed(EDM(), seed)
    start = bed.sample(128, 1 + seed) + 80 * normal(128, 8, seed=100 + seed)
    exact = end_of_ode(bed, start, 80.0, 0.002)
    whole, half = grids.log_snr(EDM(), calls), grids.log_snr(EDM(), calls // 2)
    plans = {
        "ddim": solvers.ddim(EDM(), whole),
        "dpm_solver_2": solvers.dpm_solver_2(EDM(), half),
        "fast": solvers.dpm_solver_fast(EDM(), whole),
        "fast on its blocks": solvers.dpm_solver_fast(EDM(), grids.log_snr_blocks(EDM(), calls)),
    }
    assert all(plan.calls == calls for plan in plans.values())
    return {name: rms(plan.run(bed, start).x - exact) for name, plan in plans.items()}


@pytest.mark.slow
def test_at_ten_calls_ddim_is_better_than_second_order_and_at_twenty_worse() -> None:
    for seed in range(6):
        ten, twenty = bed_errors(seed, 10), bed_errors(seed, 20)
        assert ten["dpm_solver_2"] > ten["ddim"], (seed, ten)
        assert twenty["dpm_solver_2"] < twenty["ddim"], (seed, twenty)


@pytest.mark.slow
def test_fast_needs_its_own_blocks_at_ten_calls() -> None:
    """On equal steps in log-SNR, whose last block is a third as long as the others, it does worse than DDIM."""
    for seed in range(6):
        ten = bed_errors(seed, 10)
        assert ten["fast on its blocks"] < ten["ddim"] < ten["fast"], (seed, ten)


@pytest.mark.parametrize("r1", [0.0, 1.1, -0.5, math.nan])
@pytest.mark.parametrize("solver", [solvers.dpm_solver_2, solvers.dpm_solver_pp_2s])
def test_a_stage_outside_its_step_is_refused(solver: Callable[..., Plan], r1: float) -> None:
    with pytest.raises(InvalidInput, match=r"in order: 0 < r1 <= 1, got"):
        solver(EDM(), uneven(EDM()), r1=r1)


@pytest.mark.parametrize("solver", [solvers.dpm_solver_3, solvers.dpm_solver_pp_3s])
def test_stages_out_of_order_are_refused(solver: Callable[..., Plan]) -> None:
    with pytest.raises(InvalidInput, match=r"in order: 0 < r1 < r2 <= 1, got 0.7, 0.6"):
        solver(EDM(), uneven(EDM()), r1=0.7, r2=0.6)
