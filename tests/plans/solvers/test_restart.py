"""Restart beyond the contract: the paper's loop, its count of calls, where it jumps, and how it forgets an error."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, grids, solvers
from isocline.plans.solvers import Restart
from isocline.processes import EDM, GaussianMixture, GaussianProcess, RectifiedFlow, VariancePreserving
from tests.plans.helpers import PROCESSES, normal
from tests.plans.solvers.test_stochastic import marginal, moments, noises, small_bed

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)

LEVELS = torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64)
TWICE = Restart(low=1.5, high=4.0, steps=3, repeats=2)  # the nearest node is at 1.4
ONCE = Restart(low=0.8, high=2.0, steps=2)  # the nearest node is at 0.9


def step(bed: GaussianMixture, x: Tensor, now: Tensor, after: Tensor, order: int) -> Tensor:
    slope = (x - bed(x, now)) / now
    guess = x + (after - now) * slope
    if order == 1 or after == 0:
        return guess
    return x + (after - now) * (slope + (guess - bed(guess, after)) / after) / 2


def karras(high: float, low: float, steps: int) -> Tensor:
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("clean", [False, True])
def test_restart_is_the_papers_loop(order: int, clean: bool) -> None:
    levels = torch.cat([LEVELS, torch.zeros(1, dtype=torch.float64)]) if clean else LEVELS
    bed, x = small_bed(EDM()), 9 * normal(4, 2)
    plan = solvers.restart(EDM(), levels, (TWICE, ONCE), s_noise=1.1, order=order)
    z = noises(plan, 4, 2)
    jumps = iter([z[i] for i in (~plan.evaluate).nonzero().flatten().tolist()])
    state = x
    for i in range(len(levels) - 1):
        state = step(bed, state, levels[i], levels[i + 1], order)
        for interval, node in ((TWICE, 1.4), (ONCE, 0.9)):
            for _ in range(interval.repeats if float(levels[i + 1]) == node else 0):
                state = state + 1.1 * math.sqrt(interval.high**2 - node**2) * next(jumps)
                path = karras(interval.high, node, interval.steps)
                for now, after in pairwise(path):
                    state = step(bed, state, now, after, order)
    assert next(jumps, None) is None
    torch.testing.assert_close(plan.run(bed, x, noise=z).x, state, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("main", [4, 9, 18])
@pytest.mark.parametrize("intervals", [[], [(3, 1)], [(4, 5), (2, 3), (7, 1)]])
def test_calls_are_those_of_the_papers_formula(main: int, intervals: list[tuple[int, int]]) -> None:
    """``2 N_main - 1 + sum 2 K (N_restart - 1)``, where ``N_restart`` counts the nodes of an interval."""
    chosen = [Restart(low=0.1, high=30.0, steps=nodes, repeats=k) for nodes, k in intervals]
    plan = solvers.restart(EDM(), grids.karras(EDM(), main, end="zero"), chosen)
    assert plan.calls == 2 * main - 1 + sum(2 * k * ((nodes + 1) - 1) for nodes, k in intervals)
    assert int((plan.noise != 0).sum()) == sum(k for _, k in intervals) == len(plan.carry) - plan.calls
    assert plan.stochastic == bool(intervals)


def test_without_intervals_it_is_heun_or_ddim() -> None:
    for process in PROCESSES:
        times = process.time_of_noise_level(LEVELS)
        assert solvers.restart(process, times, []).equivalent(solvers.heun(process, times))
        assert solvers.restart(process, times, [], order=1).equivalent(solvers.ddim(process, times))


@every_process
def test_times_rise_at_jumps_and_nodes_never_do(process: GaussianProcess) -> None:
    """Between equal noise levels only the scale of the states tells the processes apart, at jumps too."""
    times = process.time_of_noise_level(LEVELS)
    plan = solvers.restart(process, times, [TWICE, ONCE])
    assert torch.equal(plan.nodes, times)
    rising = (plan.times.diff() > 0).nonzero().flatten()
    assert torch.equal(rising, (~plan.evaluate).nonzero().flatten())
    found, expected = process.noise_level(plan.times), ((1.4, 4.0), (1.4, 4.0), (0.9, 2.0))
    for row, (low, high) in zip(rising.tolist(), expected, strict=True):
        assert (float(found[row]), float(found[row + 1])) == pytest.approx((low, high), rel=1e-9)
        before, after = process.alpha(plan.times[row]), process.alpha(plan.times[row + 1])
        assert float(plan.carry[row]) == pytest.approx(float(after / before), rel=1e-9)
        assert float(plan.noise[row]) == pytest.approx(float(after) * math.sqrt(high**2 - low**2), rel=1e-9)
    assert solvers.restart(EDM(), LEVELS, [TWICE, ONCE]).calls == plan.calls


@pytest.mark.parametrize(("low", "node"), [(0.01, 0.25), (0.3, 0.25), (0.6, 0.9), (1.2, 1.4), (6.9, 7.0), (8.5, 7.0)])
def test_the_low_end_is_the_nearest_node_after_the_first_with_noise(low: float, node: float) -> None:
    levels = torch.cat([LEVELS, torch.zeros(1, dtype=torch.float64)])
    plan = solvers.restart(EDM(), levels, [Restart(low, high=9.0, steps=2)])
    row = int((~plan.evaluate).nonzero())
    assert (float(plan.times[row]), float(plan.times[row + 1])) == pytest.approx((node, 9.0), rel=1e-12)


def test_intervals_at_one_node_are_taken_in_turn() -> None:
    plan = solvers.restart(EDM(), LEVELS, [Restart(1.4, 3.0, 1), Restart(1.45, 5.0, 1)])
    assert plan.times[(plan.times.diff() > 0).nonzero().flatten() + 1].tolist() == pytest.approx([3.0, 5.0])


@every_process
@pytest.mark.parametrize("repeats", [1, 3])
def test_each_repeat_contracts_an_error_of_the_state_by_a_known_factor(process: GaussianProcess, repeats: int) -> None:
    """The jump leaves an offset of ``y`` alone; on ``N(0, w^2)`` data the ODE down scales it by
    ``sqrt((w^2 + low^2) / (w^2 + high^2))``."""
    low, high, width = 1.4, 4.0, 0.6
    offset_left = []
    for intervals in ([], [Restart(low, high, steps=30, repeats=repeats)]):
        times = process.time_of_noise_level(torch.tensor([9.0, 1.4], dtype=torch.float64))
        plan = solvers.restart(process, times, intervals)
        offset_left.append(float(offset_factor(plan, width)))
    factor = math.sqrt((width**2 + low**2) / (width**2 + high**2))
    assert offset_left[1] / offset_left[0] == pytest.approx(factor**repeats, rel=1e-3)


def offset_factor(plan: Plan, width: float) -> Tensor:
    """Return how much of an offset of the start is left at the end, on ``N(0, width^2)`` data."""
    bed = GaussianMixture(plan.process, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([width]))
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    still = [torch.zeros_like(x)] * len(plan.carry)
    ends = plan.run(bed, x, noise=still).x
    return ends[1, 0] - ends[0, 0]


def test_fresh_noise_of_another_size_biases_the_law() -> None:
    times = grids.log_snr(EDM(), 40)
    plain, larger = (solvers.restart(EDM(), times, [ONCE], s_noise=s) for s in (1.0, 1.05))
    exact = marginal(EDM(), times[-1], 0.0, 0.0)[1]
    assert moments(plain, 0.0, 0.0)[1] == pytest.approx(exact, rel=1e-10)
    assert moments(larger, 0.0, 0.0)[1] > 1.03 * exact


def test_settings_are_in_the_provenance_as_plain_data() -> None:
    settings = solvers.restart(EDM(), LEVELS, [ONCE], s_noise=1.1).provenance.settings
    assert settings == {"intervals": [{"low": 0.8, "high": 2.0, "steps": 2, "repeats": 1}], "s_noise": 1.1, "order": 2}


@pytest.mark.parametrize(
    ("interval", "complaint"),
    [
        ({"low": 0.0, "high": 1.0, "steps": 2}, "0 < low < high, got 0.0 and 1.0"),
        ({"low": 1.0, "high": 1.0, "steps": 2}, "0 < low < high"),
        ({"low": 1.0, "high": math.inf, "steps": 2}, "0 < low < high"),
        ({"low": math.nan, "high": 1.0, "steps": 2}, "0 < low < high"),
        ({"low": 1.0, "high": 2.0, "steps": 0}, "at least one step, got 0"),
        ({"low": 1.0, "high": 2.0, "steps": 2, "repeats": 0}, "at least one repeat, got 0"),
    ],
)
def test_a_bad_interval_is_refused(interval: dict[str, float], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        Restart(**interval)  # type: ignore[arg-type]


def test_an_interval_that_the_grid_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"restart to 0\.95 must end above.*low end, at 1\.4, .*change the interval"):
        solvers.restart(EDM(), LEVELS[:4], [Restart(0.5, 0.95, 2)])
    with pytest.raises(InvalidInput, match=r"restart to 10 must .*not above the first node, at 9"):
        solvers.restart(EDM(), LEVELS, [Restart(0.5, 10.0, 2)])
    with pytest.raises(InvalidInput, match="needs a node with noise after the first one"):
        solvers.restart(EDM(), torch.tensor([9.0, 0.0]), [ONCE])
    with pytest.raises(InvalidInput, match=r"finite noise level.*RectifiedFlow"):
        solvers.restart(RectifiedFlow(), grids.uniform(RectifiedFlow(), 4), [ONCE])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"order": 3}, r"order 1 \(DDIM\) or 2 \(Heun\), got 3"),
        ({"s_noise": 0.0}, "s_noise must be finite and positive, got 0.0"),
        ({"s_noise": math.nan}, "s_noise must be finite"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        solvers.restart(VariancePreserving(), grids.log_snr(VariancePreserving(), 4), [ONCE], **settings)  # type: ignore[arg-type]
