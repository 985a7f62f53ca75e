"""Picard iteration on a window: the sequential result, in fewer rounds, for fields and for plans."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.integrators import Dopri5, Each, Steps, integrate
from isocline.integrators.methods.euler import Euler
from isocline.integrators.methods.rk4 import RK4
from isocline.integrators.picard import picard as picard_ode
from isocline.integrators.picard import settle
from isocline.plans import Plan, Threshold, grids, solvers
from isocline.plans.picard import picard
from isocline.processes import Data, GaussianMixture, Guided, Noise, VariancePreserving, wrap
from tests.plans.helpers import normal, random_plan

VP = VariancePreserving()
METHODS = [Euler(), RK4(), Dopri5()]


def spiral(t: Tensor, y: Tensor) -> Tensor:
    """Elementwise, so that a state's bits do not depend on the batch."""
    u, v = y.unbind(-1)
    return torch.stack([-0.3 * u - v + torch.sin(t.reshape(-1)), u - 0.3 * v], -1)


def naive(increment: Any, y: Tensor, steps: int, window: int, tolerance: float) -> tuple[list[Tensor], int]:
    """Written once more: whole window of sums, errors, stride, as the paper's algorithm has it."""
    states, first, rounds = [y.clone() for _ in range(steps + 1)], 0, 0
    while first < steps:
        last = min(first + window, steps)
        drifts = torch.stack([increment(k, states[k]) for k in range(first, last)])
        new = states[first] + torch.cumsum(drifts, 0)
        errors = [(new[k - first] - states[k + 1]).square().mean(-1).sqrt().max() for k in range(first, last)]
        bad = [k for k, error in enumerate(errors) if float(error) > tolerance]
        for k in range(first, last):
            states[k + 1] = new[k - first]
        for k in range(last, steps):
            states[k + 1] = new[-1]
        first, rounds = first + min(1 + bad[0] if bad else last - first, last - first), rounds + 1
    return states, rounds


@pytest.mark.parametrize("window", [1, 5, 40, 64])
@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 1e-2])
def test_it_is_the_algorithm_of_the_paper(window: int, tolerance: float) -> None:
    y0, h = normal(3, 2), 0.1
    times = torch.arange(41, dtype=torch.float64) * h
    states, rounds = naive(lambda k, y: h * spiral(times[k], y), y0, 40, window, tolerance)
    found = picard_ode(spiral, y0, times, method=Euler(), window=window, tolerance=tolerance)
    torch.testing.assert_close(found.ys, torch.stack(states), rtol=1e-9, atol=1e-9 + tolerance)
    assert found.rounds == rounds


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("backward", [False, True])
def test_with_tolerance_0_it_is_the_sequential_result_bit_for_bit(method: Any, backward: bool) -> None:
    y0, times = normal(4, 2), torch.linspace(0, 4, 61, dtype=torch.float64) ** 1.5
    times = times.flip(0) if backward else times
    found = picard_ode(spiral, y0, times, method=method, window=24, tolerance=0.0)
    alone = picard_ode(spiral, y0, times, method=method, window=1, tolerance=0.0)
    assert torch.equal(found.ys, alone.ys)
    assert found.rounds < alone.rounds == alone.evaluations == 60
    assert found.nfe % found.rounds == 0
    true = integrate(spiral, y0, times[0], times[-1], method=method, controller=Steps(times)).y1
    torch.testing.assert_close(found.ys[-1], true, rtol=1e-12, atol=1e-12)


def test_structures_and_rows_of_arguments_are_allowed() -> None:
    rates = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    y0 = {"a": torch.ones(2, 1, dtype=torch.float64), "b": torch.full((2, 3), 2.0, dtype=torch.float64)}
    times = torch.linspace(0, 1, 31, dtype=torch.float64)

    def decay(t: Tensor, y: dict[str, Tensor], rate: Tensor) -> dict[str, Tensor]:
        return {key: -rate * value for key, value in y.items()}

    found = picard_ode(decay, y0, times, method=RK4(), window=10, tolerance=1e-12, args=Each(rates))
    for key, start in y0.items():
        expected = torch.exp(-rates * times[:, None, None]) * start
        torch.testing.assert_close(found.ys[key], expected, rtol=1e-6, atol=1e-6)


def test_a_chain_without_memory_settles_in_two_rounds() -> None:
    """Where outputs do not depend on the state the first roll-out is exact; the second only confirms it."""
    chain = settle(
        lambda places, states: torch.stack([torch.full((1, 2), float(k + 1)) for k in places]),
        lambda k, y, outputs: y + outputs[k],
        torch.zeros(1, 2),
        50,
        window=50,
        tolerances=[0.0] * 50,
    )
    assert chain.states[-1].tolist() == [[1275.0, 1275.0]]
    assert (chain.rounds, chain.evaluations) == (2, 99)


def test_the_window_and_the_tolerance_trade_rounds_for_evaluations() -> None:
    times, y0 = torch.linspace(0, 4, 101, dtype=torch.float64), normal(4, 2)
    runs = {
        key: picard_ode(spiral, y0, times, method=Euler(), window=key[0], tolerance=key[1])
        for key in ((5, 1e-6), (50, 1e-6), (50, 1e-2))
    }
    assert runs[5, 1e-6].rounds > runs[50, 1e-6].rounds > runs[50, 1e-2].rounds
    assert runs[5, 1e-6].evaluations < runs[50, 1e-6].evaluations
    assert runs[50, 1e-6].rounds >= 100 / 50


def test_bad_input_and_a_blow_up_are_named() -> None:
    y0, times = torch.ones(1, 1, dtype=torch.float64), torch.linspace(0, 1, 5)
    with pytest.raises(InvalidInput, match="the window needs at least one place, got 0"):
        picard_ode(spiral, normal(1, 2), times, method=Euler(), window=0)
    with pytest.raises(InvalidInput, match="the tolerance must not be negative"):
        picard_ode(spiral, normal(1, 2), times, method=Euler(), tolerance=-1.0)
    with pytest.raises(InvalidInput, match="the grid needs at least two times, got 1"):
        picard_ode(spiral, normal(1, 2), times[:1], method=Euler())
    with pytest.raises(InvalidInput, match=r"a function f\(t, y\) or ODE\(f\), got int"):
        picard_ode(3, normal(1, 2), times, method=Euler())  # type: ignore[arg-type]
    with pytest.raises(NotFinite, match=r"became NaN or infinite at t = 0\.5"):
        picard_ode(lambda t, y: torch.where(t > 0.2, torch.inf, y), y0, times, method=Euler())


# ------------------------------------------------------------------------------------------------ plans

BEDS = {
    "smooth": lambda: GaussianMixture.smooth_bed(VP),
    "circle": lambda: GaussianMixture.circle_bed(VP, components=64, std=0.05),
}
SOLVERS = [
    solvers.ddim,
    solvers.dpm_solver_pp_2m,
    solvers.dpm_solver_pp_3m,
    solvers.heun,
    solvers.unipc,
    solvers.ancestral,
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.__name__)
def test_a_plan_gives_the_samples_of_its_run(solver: Any) -> None:
    """To rounding and not bit for bit: products of matrices may sum in another order when the batch grows."""
    bed, plan = BEDS["smooth"](), solver(VP, grids.log_snr(VP, 30))
    x = plan.start((5, 8), 0, dtype=torch.float64)
    found, true = picard(plan, bed, x, window=16, tolerance=0.0, rng=3), plan.run(bed, x, rng=3, record=True)
    torch.testing.assert_close(found.trajectory, true.trajectory, rtol=1e-11, atol=1e-11)
    assert found.rounds == found.cost.calls < plan.calls
    assert found.evaluations > plan.calls


def test_an_elementwise_network_gives_the_same_bits() -> None:
    model = wrap(lambda x, t: torch.tanh(x) * (1 + t[:, None]), VP, Noise())
    for solver in (solvers.ddim, solvers.ancestral):
        plan = solver(VP, grids.karras(VP, 30))  # a data plan: outputs are converted
        found, true = (
            picard(plan, model, normal(4, 3), window=12, tolerance=0.0, rng=3),
            plan.run(model, normal(4, 3), rng=3),
        )
        assert torch.equal(found.x, true.x)


@pytest.mark.parametrize("bed", list(BEDS))
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_rows_of_ddim_settle_in_two_fifths_of_the_rounds(bed: str, seed: int) -> None:
    model, plan = BEDS[bed](), solvers.ddim(VP, grids.log_snr(VP, 100))
    x = plan.start((16, *model.event), seed, dtype=torch.float64)
    found = picard(plan, model, x, window=100, tolerance=0.01)
    assert found.rounds <= 0.4 * plan.calls
    # what is left after the last change is a few tolerances, as seen at the end of the flow
    assert float((found.x - plan.run(model, x).x).square().mean().sqrt()) < 0.01


def test_the_error_falls_with_the_tolerance() -> None:
    model, plan = BEDS["smooth"](), solvers.ddim(VP, grids.log_snr(VP, 50))
    x = plan.start((32, 8), 0, dtype=torch.float64)
    true = plan.run(model, x).x
    errors = [
        float((picard(plan, model, x, window=50, tolerance=tol).x - true).norm() / true.norm())
        for tol in (0.3, 0.03, 0.003, 0.0003)
    ]
    assert all(small < 0.5 * large for large, small in pairwise(errors))


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_any_kind_are_run(seed: int) -> None:
    """Rows without a call, random weights on all past outputs, noise in every second row."""
    plan = random_plan(seed, rows=8, noisy=True, silent=True)
    model = wrap(lambda x, t: torch.sin(x) * t[:, None], plan.process, Data())
    noise = [normal(3, 2, seed=k) for k in range(8)]
    found = picard(plan, model, normal(3, 2), window=4, tolerance=0.0, noise=noise)
    torch.testing.assert_close(found.x, plan.run(model, normal(3, 2), noise=noise).x, rtol=1e-12, atol=1e-12)


def test_coefficients_for_each_coordinate_and_constants_are_run() -> None:
    plain = random_plan(0, rows=6)
    stretch = torch.tensor([0.9, 1.1], dtype=torch.float64)
    plan = Plan(
        **{
            **{f: getattr(plain, f) for f in ("times", "nodes", "model_times", "evaluate", "parameterisation")},
            "process": plain.process,
            "provenance": plain.provenance,
            "carry": plain.carry[:, None] * stretch,
            "weights": plain.weights[:, :, None] * stretch,
            "noise": plain.noise[:, None] * stretch,
            "constant": 0.1 * plain.carry[:, None] * stretch,
        }
    )
    model = wrap(lambda x, t: torch.sin(x) * t[:, None], plan.process, Data())
    found = picard(plan, model, normal(3, 2), window=4, tolerance=0.0)
    torch.testing.assert_close(found.x, plan.run(model, normal(3, 2)).x, rtol=1e-12, atol=1e-12)


def test_a_condition_belongs_to_its_samples_in_every_place() -> None:
    inner = wrap(lambda x, t, cond=None: x * 0.1 + (0.0 if cond is None else cond["row"]), VP, Data())
    model, plan = Guided(inner, 2.0), solvers.ddim(VP, grids.log_snr(VP, 12)).for_guidance(2.0)
    cond = {"row": normal(4, 3), "scale": 2.0}
    found = picard(plan, model, normal(4, 3), window=5, tolerance=0.0, cond=cond)
    torch.testing.assert_close(found.x, plan.run(model, normal(4, 3), cond=cond).x, rtol=1e-12, atol=1e-12)


def test_plans_refuse_what_they_cannot_run() -> None:
    model, plan = BEDS["smooth"](), solvers.ddim(VP, grids.log_snr(VP, 5))
    with pytest.raises(InvalidInput, match="picard runs plans without a threshold"):
        picard(plan.with_threshold(Threshold()), model, normal(2, 8))
    with pytest.raises(InvalidInput, match="this plan draws noise: pass rng=SEED"):
        picard(solvers.ancestral(VP, grids.log_snr(VP, 5)), model, normal(2, 8))
    with pytest.raises(InvalidInput, match=r"one tensor a row \(5\), got 1"):
        picard(solvers.ancestral(VP, grids.log_snr(VP, 5)), model, normal(2, 8), noise=[normal(2, 8)])
    broken = wrap(lambda x, t: x / (t[:, None] - t[:, None]), VP, Data())
    with pytest.raises(NotFinite, match="in row 0"):
        picard(plan, broken, normal(2, 8))
