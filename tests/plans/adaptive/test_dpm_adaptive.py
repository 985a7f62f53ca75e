"""Adaptive DPM-Solver: the algorithm box in plain numbers, tolerances, frozen runs, failures.

Outside this suite the runs were compared with the authors' code in float64 (VP, orders 2 and 3, batches of 1 and 64, tolerances
1, 1/10 and 1/100 of the default): the same steps, accepted and rejected, and samples equal to 2e-9.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.plans import Plan, grids, solvers
from isocline.plans.adaptive import DPMAdaptive, StepLimit, freeze
from isocline.processes import EDM, GaussianMixture, GaussianProcess, RectifiedFlow, VariancePreserving
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Told

VP = VariancePreserving()


def box(model: GaussianMixture, x: Tensor, order: int, rtol: float, atol: float) -> tuple[Tensor, list[float], int]:
    """Return end state, accepted times and rejections of the paper's algorithm, written with its own formulas."""
    process = model.process

    def scalars(lam: float) -> tuple[float, float, Tensor]:
        t = process.time_of(lam)
        return float(process.alpha(t)), float(process.sigma(t)), t

    def noise(x: Tensor, lam: float) -> Tensor:
        return model.predict(x, scalars(lam)[2]).eps

    def first(x: Tensor, lam: float, h: float, e: Tensor) -> Tensor:
        (a, _, _), (b, sigma, _) = scalars(lam), scalars(lam + h)
        return b / a * x - sigma * math.expm1(h) * e

    def second(x: Tensor, lam: float, h: float, e: Tensor, r: float) -> Tensor:
        inner = noise(first(x, lam, r * h, e), lam + r * h)
        return first(x, lam, h, e) - scalars(lam + h)[1] / (2 * r) * math.expm1(h) * (inner - e)

    def third(x: Tensor, lam: float, h: float, e: Tensor) -> Tensor:
        r1, r2 = 1 / 3, 2 / 3
        one = noise(first(x, lam, r1 * h, e), lam + r1 * h) - e
        bend = math.expm1(r2 * h) / (r2 * h) - 1
        two = noise(first(x, lam, r2 * h, e) - scalars(lam + r2 * h)[1] * r2 / r1 * bend * one, lam + r2 * h) - e
        return first(x, lam, h, e) - scalars(lam + h)[1] / r2 * (math.expm1(h) / h - 1) * two

    lam, end = (float(process.half_log_snr(t)) for t in (process.t_max, process.t_min))
    h, low, nodes, rejected = 0.05, x, [process.t_max], 0
    while end - lam > 1e-12:
        h = min(h, end - lam)
        e = noise(x, lam)
        new_low = first(x, lam, h, e) if order == 2 else second(x, lam, h, e, 1 / 3)
        high = second(x, lam, h, e, 1 / 2) if order == 2 else third(x, lam, h, e)
        delta = torch.maximum(torch.full_like(x, atol), rtol * torch.maximum(new_low.abs(), low.abs()))
        error = max(float(row.square().mean().sqrt()) for row in (high - new_low) / delta)
        if error <= 1:
            x, low, lam = high, new_low, lam + h
            nodes.append(float(process.time_of(lam)))
        else:
            rejected += 1
        h = 0.9 * h * error ** (-1 / order)
    return x, nodes, rejected


@pytest.mark.parametrize("process", [VP, EDM()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("order", [2, 3])
def test_it_is_the_papers_algorithm(process: GaussianProcess, order: int) -> None:
    model, x = GaussianMixture.smooth_bed(process), process.terminal((5, 8), 0, dtype=torch.float64)
    run = DPMAdaptive(order=order).run(model, x)
    expected, nodes, rejected = box(model, x, order, 0.05, 0.0078)
    torch.testing.assert_close(run.x, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(run.nodes, torch.tensor(nodes, dtype=torch.float64), rtol=1e-8, atol=1e-8)
    assert int(run.rejected[0]) == rejected > 0
    assert run.nodes[-1] == process.t_min


@pytest.mark.parametrize("order", [2, 3])
def test_the_error_is_proportional_to_the_tolerance(order: int) -> None:
    process = EDM()
    model, x = GaussianMixture.smooth_bed(process), process.terminal((16, 8), 1, dtype=torch.float64)
    exact = solvers.exponential_adams(process, grids.log_snr(process, 300), order=4).run(model, x).x
    errors, calls = [], []
    for scale in (1.0, 0.1):
        run = DPMAdaptive(order=order, rtol=0.05 * scale, atol=0.0078 * scale).run(model, x)
        errors.append(float((run.x - exact).square().mean().sqrt()))
        calls.append(int(run.calls[0]))
    assert 0.7 < math.log10(errors[0] / errors[1]) < 1.4, errors
    assert calls[0] < calls[1]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("order", [2, 3])
def test_a_frozen_run_repeats_its_samples(process: GaussianProcess, order: int, tmp_path: object) -> None:
    model, x = GaussianMixture.smooth_bed(process), process.terminal((16, 8), 2, dtype=torch.float64)
    run = DPMAdaptive(order=order, rtol=0.2).run(model, x)
    plan = freeze(run)
    torch.testing.assert_close(plan.run(model, x).x, run.x, rtol=1e-10, atol=1e-10)
    assert torch.equal(plan.nodes, run.nodes)
    compiled = solvers.dpm_solver_2(process, run.nodes) if order == 2 else solvers.dpm_solver_3(process, run.nodes)
    for name in ("times", "model_times", "carry", "weights", "noise"):
        assert torch.equal(getattr(plan, name), getattr(compiled, name)), name
    stored = Plan.load(plan.save(f"{tmp_path}/plan.json"))
    assert stored == plan
    assert stored.provenance.settings["run"] == "DPMAdaptive"
    assert stored.provenance.settings["rtol"] == 0.2


def test_calls_are_counted_once_for_a_state_that_stays() -> None:
    model, x = GaussianMixture.smooth_bed(VP), VP.terminal((4, 8), 0, dtype=torch.float64)
    for order in (2, 3):
        before = model.calls
        run = DPMAdaptive(order=order).run(model, x)
        assert torch.equal(run.calls, order * run.accepted + (order - 1) * run.rejected)
        assert model.calls - before == int(run.calls[0]) == run.cost.calls
        assert freeze(run).calls == order * int(run.accepted[0])
        assert len(run.nodes) == int(run.accepted[0]) + 1


def test_one_step_serves_the_batch_and_its_worst_sample_sets_it() -> None:
    """A batch steps as its worst member alone would, where one member is worst throughout."""
    bed = GaussianMixture(VP, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0.05, 0.05]))
    x = torch.tensor([[0.02], [2.0]], dtype=torch.float64)
    easy, hard, both = (DPMAdaptive().run(bed, part) for part in (x[1:], x[:1], x))
    assert int(easy.accepted[0]) < int(hard.accepted[0]) <= int(both.accepted[0])
    assert torch.equal(both.accepted, both.accepted[:1].expand(2))
    copies = DPMAdaptive().run(bed, x[:1].repeat(3, 1))
    torch.testing.assert_close(copies.nodes, hard.nodes)


@pytest.mark.parametrize("order", [2, 3])
def test_what_the_network_outputs_does_not_matter(order: int) -> None:
    bed, x = GaussianMixture.smooth_bed(VP), VP.terminal((3, 8), 0, dtype=torch.float64)
    sampler = DPMAdaptive(order=order, rtol=0.5, atol=0.1)
    exact = sampler.run(bed, x).x
    for parameterisation in PARAMETERISATIONS[1:]:
        found = sampler.run(Told(lambda x, t: bed(x, t), VP, parameterisation), x).x
        torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-7)


def test_constant_data_take_ever_longer_steps_and_are_exact() -> None:
    mu = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    eps = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    x = VP.alpha(1.0) * mu + VP.sigma(1.0) * eps
    run = DPMAdaptive().run(Told(lambda x, t: mu.expand_as(x), VP), x)
    exact = VP.alpha(VP.t_min) * mu + VP.sigma(VP.t_min) * eps
    assert float((run.x - exact).abs().max()) < 1e-10
    assert int(run.accepted[0]) == 2
    assert int(run.rejected[0]) == 0


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="order of an adaptive DPM-Solver is 2 or 3, got 4"):
        DPMAdaptive(order=4)
    with pytest.raises(InvalidInput, match="atol must be positive"):
        DPMAdaptive(atol=0.0)
    with pytest.raises(InvalidInput, match=r"safety must lie in \(0, 1\]"):
        DPMAdaptive(safety=1.1)
    flow = RectifiedFlow()
    with pytest.raises(InvalidInput, match=r"DPMAdaptive needs a finite noise level at both ends.*RectifiedFlow"):
        DPMAdaptive().run(GaussianMixture.smooth_bed(flow), torch.ones(1, 8).double())


def test_failures_name_their_place() -> None:
    bed, x = GaussianMixture.smooth_bed(VP), VP.terminal((2, 8), 0, dtype=torch.float64)
    with pytest.raises(
        StepLimit, match=r"tried 5 steps, .* and reached t = 0\.\d+ on its way to 0.001; raise max_steps"
    ):
        DPMAdaptive(max_steps=5).run(bed, x)
    broken = Told(lambda x, t: bed(x, t) if float(t) > 0.5 else math.nan * x, VP)
    with pytest.raises(NotFinite, match=r"in step \d+ \(from t = 0\.\d+ to 0\.\d+\)"):
        DPMAdaptive().run(broken, x)


def test_a_tolerance_below_rounding_stops_with_a_reason() -> None:
    bed, x = GaussianMixture.smooth_bed(VP), VP.terminal((2, 8), 0, dtype=torch.float32)
    with pytest.raises(StepLimit, match=r"the last of \S+ in half log-SNR.*raise max_steps, rtol or atol"):
        DPMAdaptive(rtol=1e-12, atol=1e-12).run(bed, x)
