"""The unified sampling framework: published solvers are points of it, and any point is what its formulas say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.grids.span import End
from isocline.plans.tuners.s3 import Strategy, usf
from isocline.plans.tuners.s3.usf import CHOICES
from isocline.processes import EDM, Data, GaussianProcess, RectifiedFlow, VariancePreserving
from isocline.processes.exact import GaussianMixture
from tests.plans.helpers import PROCESSES, Replay, Told, normal

Compiler = Callable[[GaussianProcess, Tensor], Plan]
N = 6
SIGNALLESS_START = RectifiedFlow()
SPOTS: list[tuple[GaussianProcess, End]] = [
    (process, end)
    for process in (EDM(), VariancePreserving(), RectifiedFlow(t_max=0.98), SIGNALLESS_START)
    for end in ("t_min", "zero")
]


def ramp(order: int, steps: int = N, **choices: object) -> list[Strategy]:
    return [Strategy(order=min(i + 1, order), **choices) for i in range(steps)]  # type: ignore[arg-type]


def third_unipc(steps: int = N) -> list[Strategy]:
    return [replace(s, scaling="bh2" if i < 2 else "exact") for i, s in enumerate(ramp(3, steps, corrected=True))]


KNOWN: dict[str, tuple[Compiler, list[Strategy]]] = {
    "ddim": (solvers.ddim, ramp(1)),
    "2m": (solvers.dpm_solver_pp_2m, ramp(2, scaling="bh2")),
    "3m": (solvers.dpm_solver_pp_3m, ramp(3, scaling="bh2")),
    "exponential2": (lambda p, t: solvers.exponential_adams(p, t, order=2), ramp(2)),
    "exponential3": (lambda p, t: solvers.exponential_adams(p, t, order=3), ramp(3)),
    "unipc1": (lambda p, t: solvers.unipc(p, t, order=1), ramp(1, scaling="bh2", corrected=True)),
    "unipc2": (lambda p, t: solvers.unipc(p, t, order=2), ramp(2, scaling="bh2", corrected=True)),
    "unipc2-bh1": (lambda p, t: solvers.unipc(p, t, variant="bh1"), ramp(2, scaling="bh1", corrected=True)),
    "unipc3": (lambda p, t: solvers.unipc(p, t, order=3), third_unipc()),
    "unipc2-predictor": (lambda p, t: solvers.unipc(p, t, corrector=False), ramp(2, scaling="bh2")),
}
KNOWN_NOISE: dict[str, tuple[Compiler, list[Strategy]]] = {
    "euler": (solvers.euler, ramp(1, prediction="noise")),
    "lam2": (lambda p, t: solvers.lam_adams(p, t, order=2), ramp(2, prediction="noise")),
    "lam3": (lambda p, t: solvers.lam_adams(p, t, order=3), ramp(3, prediction="noise")),
    "unipc2-noise": (solvers.unipc_noise, ramp(2, prediction="noise", scaling="bh2", corrected=True)),
    "unipc2-noise-bh1": (
        lambda p, t: solvers.unipc_noise(p, t, variant="bh1"),
        ramp(2, prediction="noise", scaling="bh1", corrected=True),
    ),
}
# noise predictions need a finite noise level
EVERYWHERE = [
    (*spot, name) for spot in SPOTS for name in [*KNOWN, *([] if spot[0] is SIGNALLESS_START else KNOWN_NOISE)]
]


@pytest.mark.parametrize(("process", "end", "name"), EVERYWHERE)
def test_published_solvers_are_points_of_the_space(process: GaussianProcess, end: End, name: str) -> None:
    solver, strategies = (KNOWN | KNOWN_NOISE)[name]
    times = grids.uniform(process, N, end=end)
    assert usf(process, times, strategies).equivalent(solver(process, times))


def test_published_solvers_differ_from_each_other() -> None:
    """Otherwise the test above would prove little."""
    times = grids.log_snr(EDM(), N)
    plans = [usf(EDM(), times, strategies) for name, (_, strategies) in (KNOWN | KNOWN_NOISE).items()]
    same = {(a, b) for a in range(len(plans)) for b in range(a) if plans[a].equivalent(plans[b])}
    names = [*KNOWN, *KNOWN_NOISE]
    assert {frozenset((names[a], names[b])) for a, b in same} == {
        frozenset(("2m", "unipc2-predictor")),
        frozenset(("ddim", "euler")),
    }


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()])
def test_single_step_solvers_are_steps_from_earlier_states(process: GaussianProcess) -> None:
    nodes = grids.log_snr(process, 2)
    lam = process.half_log_snr(nodes)

    def with_stages(shares: list[float]) -> Tensor:
        inner = [lam[i] + share * (lam[i + 1] - lam[i]) for i in range(2) for share in [0.0, *shares]]
        return torch.cat([process.time_of(torch.stack(inner)), nodes[-1:]])

    second = [Strategy("noise"), Strategy("noise", start=1, order=2, scaling="bh2")]
    halves = with_stages([0.5])
    assert usf(process, halves, second * 2).equivalent(solvers.dpm_solver_2(process, nodes), tolerance=1e-8)
    data = [replace(s, prediction="data") for s in second]
    assert usf(process, halves, data * 2).equivalent(solvers.dpm_solver_pp_2s(process, nodes), tolerance=1e-8)
    third = [Strategy("noise"), Strategy("noise", 1, 2), Strategy("noise", 2, 2)]
    thirds = with_stages([1 / 3, 2 / 3])
    assert usf(process, thirds, third * 2).equivalent(solvers.dpm_solver_3(process, nodes), tolerance=1e-8)


def random_strategies(seed: int, steps: int = N) -> list[Strategy]:
    rng = np.random.default_rng(seed)
    drawn = [{name: known[rng.integers(len(known))] for name, known in CHOICES.items()} for _ in range(steps)]
    return [Strategy(**choices) for choices in drawn]  # type: ignore[arg-type]


def by_hand(process: GaussianProcess, times: Tensor, strategies: list[Strategy], x: float, data: list[float]) -> float:
    """Return the end state in ``(y, s)`` with adaptive quadrature, polynomial fits, and the outputs `data` in turn."""
    alpha, sigma = process.alpha(times).tolist(), process.sigma(times).tolist()
    lam = process.half_log_snr(times).tolist()
    s = [b / a for a, b in zip(alpha, sigma, strict=True)]

    def step(i: int, again: bool) -> float:
        chosen = strategies[i]
        a, t, h = i - min(chosen.start, i), i + 1, lam[i + 1] - lam[i - min(chosen.start, i)]
        others = [k for k in range(i, -1, -1) if k != a][: chosen.order - 1]
        points = [a, *others] + [i + 1] * again
        is_data = chosen.prediction == "data"
        values = [data[k] if is_data else (read[k] - data[k]) / s[k] for k in points]
        rho = [(lam[k] - lam[a]) / h for k in points]
        c = np.polynomial.polynomial.polyfit(rho, values, len(points) - 1)
        if chosen.estimator == "low" and chosen.order == 3 and not again and len(points) == 3:
            c[1] = (values[1] - values[0]) / rho[1]

        def moment(k: int) -> float:
            def inside(u: float) -> float:
                shape = ((u - lam[a]) / h) ** k
                return math.exp(u - lam[t]) * shape if is_data else -math.exp(-u) * shape

            return quad(inside, lam[a], lam[t], epsabs=1e-12, epsrel=1e-12)[0]

        moments = [moment(k) for k in range(len(points))]
        if chosen.scaling != "exact" and len(points) == 2 and chosen.order + again == 2:
            bh1 = h if is_data else -s[t] * h
            moments[1] = (moments[0] if chosen.scaling == "bh2" else bh1) / 2
        if chosen.scaling != "exact" and len(points) == 3 and not again:
            moments[2] /= 2
        return states[a] * (s[t] / s[a] if is_data else 1.0) + float(np.dot(moments, c))

    y, read, states = x / alpha[0], list[float](), list[float]()
    for i in range(len(strategies)):
        read.append(y)
        states.append(step(i - 1, True) if i and strategies[i - 1].corrected else y)
        y = step(i, False)
    return alpha[-1] * y


@pytest.mark.parametrize("seed", range(12))
def test_any_point_is_what_its_formulas_say(seed: int) -> None:
    process = PROCESSES[seed % len(PROCESSES)]
    times = grids.uniform(process, N)
    strategies = random_strategies(seed)
    data = normal(N, 1, seed=seed)
    x = normal(1, seed=seed + 100) * process.sigma(times[0])
    plan = usf(process, times, strategies)
    found = plan.run(Replay(list(data), process, Data()), x).x
    reduced = [s.reduced(i, N) for i, s in enumerate(strategies)]
    expected = by_hand(process, times, reduced, float(x), data.flatten().tolist())
    scale = max(1.0, abs(expected))
    assert float(found) == pytest.approx(expected, abs=1e-7 * scale)


@pytest.mark.parametrize(("process", "end"), SPOTS)
def test_every_point_is_exact_for_a_constant_data_prediction(process: GaussianProcess, end: End) -> None:
    times = grids.uniform(process, N, end=end)
    x, target = normal(3, 2) * process.sigma(times[0]), normal(3, 2, seed=1)
    start, last = times[0], times[-1]
    noise = (x - process.alpha(start) * target) / process.sigma(start)
    expected = process.alpha(last) * target + process.sigma(last) * noise
    for seed in range(8):
        plan = usf(process, times, random_strategies(seed))
        found = plan.run(Told(lambda x, t: target, process), x).x
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
        assert plan.calls == N


def test_orders_are_those_of_expansion_estimator_and_corrector() -> None:
    """From s = 80, so that the first steps, of lower order, cost little; see the contract of the solvers."""
    process = EDM(t_min=0.1, t_max=80.0)
    model = GaussianMixture.smooth_bed(process)
    x = Stream(0).normal((16, 8), dtype=torch.float64) * 80
    exact = solvers.exponential_adams(process, grids.log_snr(process, 400), order=4).run(model, x).x

    def error(n: int, **choices: object) -> float:
        order = int(choices.pop("order"))  # type: ignore[call-overload]
        plan = usf(process, grids.log_snr(process, n), ramp(order, n, **choices))
        return float((plan.run(model, x).x - exact).square().mean().sqrt())

    cases: list[tuple[dict[str, object], int]] = [
        ({"order": 1}, 1),
        ({"order": 2, "scaling": "bh1"}, 2),
        ({"order": 3}, 3),
        ({"order": 3, "estimator": "low"}, 2),
        ({"order": 2, "corrected": True}, 3),
    ]
    for choices, order in cases:
        assert math.log2(error(50, **choices) / error(100, **choices)) == pytest.approx(order, abs=0.35), choices


def test_reducing_a_strategy_changes_nothing() -> None:
    times = grids.karras(EDM(), N)
    for seed in range(10):
        strategies = random_strategies(seed)
        reduced = [s.reduced(i, N) for i, s in enumerate(strategies)]
        assert usf(EDM(), times, reduced).equivalent(usf(EDM(), times, strategies))
        assert [s.reduced(i, N) for i, s in enumerate(reduced)] == reduced


def test_plans_are_differentiable_in_their_times() -> None:
    process = VariancePreserving()
    times = grids.log_snr(process, 4).requires_grad_()
    strategies = random_strategies(3, 4)

    def table(times: Tensor) -> Tensor:
        plan = usf(process, times, strategies)
        return torch.cat([plan.carry, plan.weights.flatten()])

    assert torch.autograd.gradcheck(table, times, atol=1e-5)


def test_what_is_no_strategy_is_refused() -> None:
    with pytest.raises(InvalidInput, match="order must be one of"):
        Strategy(order=4)
    with pytest.raises(InvalidInput, match="scaling must be one of"):
        Strategy(scaling="bh3")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="a grid of 3 steps needs as many strategies, got 2"):
        usf(EDM(), grids.karras(EDM(), 3), [Strategy(), Strategy()])
