"""Gotta Go Fast on exact data laws: the law of the samples, batch mates, counted calls, the two rules for rejected noise.

Outside this suite runs with `bridge=False` were compared with the authors' PyTorch code, fed with the same normal numbers (64
samples of the smooth mixture in float64, VP and VE, relative tolerances 0.1 and 0.01): the same number of steps tried, and samples
equal to 2e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.plans.adaptive import AdaptiveRun, GottaGoFast, StepLimit
from isocline.plans.adaptive.brownian import BrownianPath
from isocline.plans.adaptive.gotta_go_fast import ReverseField, average_nodes
from isocline.plans.adaptive.stochastic_heun import Rule, Walk
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    GaussianMixture,
    GaussianProcess,
    Guided,
    PoissonFlow,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    wrap,
)
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Told

VP = VariancePreserving()


class Counting(Denoiser):
    """Counts the samples it is asked for."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.process, inner.parameterisation)
        self.inner, self.samples = inner, 0

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.samples += len(x)
        return self.inner(x, t, cond)


def normal_data(process: GaussianProcess, d: int, std: float) -> GaussianMixture:
    return GaussianMixture(process, torch.zeros(1, d, dtype=torch.float64), torch.tensor([std], dtype=torch.float64))


def start(process: GaussianProcess, batch: int, d: int, seed: int = 0) -> Tensor:
    return process.terminal((batch, d), seed, dtype=torch.float64)


def exact_variance(process: GaussianProcess, std: float) -> float:
    """Return the variance of the data prediction at ``t_min`` for normal data: ``D = c x`` with ``x ~ N(0, var)``."""
    alpha, sigma = float(process.alpha(process.t_min)), float(process.sigma(process.t_min))
    var = alpha**2 * std**2 + sigma**2
    return (alpha * std**2 / var) ** 2 * var


@pytest.mark.parametrize("seed", range(5))
def test_normal_data_keep_their_variance_with_the_bridge_and_lose_it_without(seed: int) -> None:
    """One dimension, where four steps of ten are rejected: the worst case for drawing the noise again."""
    model, x = normal_data(VP, 1, 0.5), start(VP, 200, 1, seed)
    ratios = []
    for bridge in (True, False):
        run = GottaGoFast(rtol=0.2, bridge=bridge).run(model, x, rng=seed)
        assert float(run.rejected.sum() / (run.accepted + run.rejected).sum()) > 0.3
        ratios.append(float(run.x.var()) / exact_variance(VP, 0.5))
    assert abs(ratios[0] - 1) < 4 * math.sqrt(2 / 200)
    assert ratios[1] > 1.6


@pytest.mark.parametrize("process", [VP, VarianceExploding(), EDM()], ids=lambda p: type(p).__name__)
def test_the_law_of_normal_data_in_more_dimensions(process: GaussianProcess) -> None:
    batch, d = 100, 64
    run = GottaGoFast(rtol=0.1, atol=0.0078).run(normal_data(process, d, 0.5), start(process, batch, d), rng=1)
    error = math.sqrt(2 / (batch * d))
    assert abs(float(run.x.var()) / exact_variance(process, 0.5) - 1) < 0.01 + 3 * error
    assert abs(float(run.x.mean())) < 4 * 0.5 / math.sqrt(batch * d)


class Fine(BrownianPath):
    """A path that is known at many points from the start, so that runs of any tolerance follow the same one."""

    def __init__(self, points: Tensor, values: Tensor) -> None:
        super().__init__()
        self._ahead, self._values = points[:, None].repeat(1, values.shape[1]), values.clone()


def test_the_error_along_a_path_is_proportional_to_the_tolerance() -> None:
    """The limit is the reverse SDE along the path itself: Heun through all the path's 400 points stands for it."""
    process, batch, n = VariancePreserving(t_min=0.1), 32, 400
    field, x = ReverseField(normal_data(process, 2, 0.5), None, batch), start(process, batch, 2)
    times = torch.linspace(process.t_max, process.t_min, n + 1, dtype=torch.float64)
    h = float(times[0] - times[1])
    values = math.sqrt(h) * Stream(2).normal((batch, n, 2), dtype=torch.float64).cumsum(1).transpose(0, 1)
    reference, every = x, torch.arange(batch)
    for i, dw in enumerate(torch.cat([values[:1], values.diff(dim=0)])):
        a, b = field(reference, times[i].expand(batch), every)
        euler = reference - h * a + b * dw
        a, b = field(euler, times[i + 1].expand(batch), every)
        reference = (euler + reference - h * a + b * dw) / 2
    errors = []
    for tolerance in (0.3, 0.03):
        rule, path = Rule(rtol=tolerance, atol=tolerance / 6), Fine(times[0] - times[1:], values)
        walk = Walk(field, x, process.t_max, process.t_min, rule, path)
        walk.run(Stream(9))
        errors.append(float((walk.ends - reference).square().mean().sqrt()))
    assert 0.8 < math.log10(errors[0] / errors[-1]) < 1.2, errors


def test_a_sample_does_not_depend_on_its_batch_mates() -> None:
    model, x = GaussianMixture.smooth_bed(VP), start(VP, 12, 8)
    sampler = GottaGoFast(rtol=0.3, atol=0.02)
    whole = sampler.run(model, x, rng=3)
    assert len(set(whole.calls.tolist())) > 5
    other = torch.cat([x[:5], start(VP, 20, 8, seed=9) * 2])
    for mates in (x[:5], other):
        found = sampler.run(model, mates, rng=3)
        torch.testing.assert_close(found.x[:5], whole.x[:5], rtol=1e-12, atol=1e-12)
        for name in ("calls", "accepted", "rejected"):
            assert torch.equal(getattr(found, name)[:5], getattr(whole, name)[:5])
    assert torch.equal(sampler.run(model, x, rng=3).x, whole.x)
    assert not torch.equal(sampler.run(model, x, rng=4).x, whole.x)


def test_calls_are_counted_and_only_samples_on_their_way_are_computed() -> None:
    model, x = Counting(GaussianMixture.smooth_bed(VP)), start(VP, 16, 8)
    run = GottaGoFast(rtol=0.3).run(model, x, rng=0)
    assert torch.equal(run.calls, 2 * run.accepted + run.rejected + 1)
    assert model.samples == int(run.calls.sum()) < 16 * model.calls
    assert run.cost.calls == float(run.calls.double().mean())
    assert int(run.rejected.min()) > 0


def test_guidance_counts_both_its_calls() -> None:
    inner = wrap(lambda x, t, cond=0.0: 0.5 * x + cond, VP, Data())
    run = GottaGoFast(rtol=0.5).run(Guided(inner, 1.0, 0.0), start(VP, 2, 3), rng=0, cond=0.1)
    assert torch.equal(run.calls, 2 * (2 * run.accepted + run.rejected + 1))
    assert run.guidance == 1.0


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_what_the_network_outputs_does_not_matter(process: GaussianProcess) -> None:
    bed, sampler = GaussianMixture.smooth_bed(process), GottaGoFast(rtol=0.5, atol=0.1)
    x = start(process, 2, 8)
    exact = sampler.run(bed, x, rng=0)
    for parameterisation in PARAMETERISATIONS[1::2]:
        found = sampler.run(Told(lambda x, t: bed(x, t), process, parameterisation), x, rng=0)
        torch.testing.assert_close(found.x, exact.x, rtol=1e-6, atol=1e-6)
        assert torch.equal(found.calls, exact.calls)


def test_each_sample_has_its_condition() -> None:
    """Two laws in one batch: a sample with its condition is what it is in a batch of that condition alone."""
    beds = [normal_data(VP, 2, std) for std in (0.3, 1.0)]

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.where(cond[:, None] > 0, beds[1](x, t), beds[0](x, t))

    x, cond = start(VP, 6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    sampler = GottaGoFast(rtol=0.5, atol=0.05)
    mixed = sampler.run(wrap(network, VP, Data()), x, rng=0, cond=cond).x
    for label, bed in enumerate(beds):
        alone = sampler.run(bed, x, rng=0).x
        torch.testing.assert_close(mixed[cond == label], alone[cond == label], rtol=1e-10, atol=1e-10)


def test_sharper_data_take_more_steps() -> None:
    counts = []
    for std in (0.5, 0.1, 0.02):
        run = GottaGoFast(rtol=0.5).run(normal_data(VP, 64, std), start(VP, 8, 64), rng=0)
        counts.append(float(run.accepted.double().mean()))
    assert counts[0] < counts[1] < counts[2]


def test_rejections_become_rare_in_many_dimensions() -> None:
    """An error averaged over more coordinates varies less about its target."""

    def share(d: int, batch: int) -> float:
        run = GottaGoFast().run(normal_data(VP, d, 0.5), start(VP, batch, d), rng=0)
        return float(run.rejected.sum() / (run.accepted + run.rejected).sum())

    few, many = share(2, 20), share(1024, 2)
    assert many < 0.1 < 0.3 < few


def test_the_average_grid_is_the_grid_of_equal_paths_and_the_mean_of_two() -> None:
    process = EDM(t_min=1e-4, t_max=1.0)
    even = torch.logspace(0, -4, 9, dtype=torch.float64)
    torch.testing.assert_close(average_nodes(process, torch.stack([even, even], 1)), even, rtol=1e-12, atol=0)
    # one sample in two steps, one in four; both in equal steps of log-SNR, so three such steps are the mean
    two = torch.tensor([1.0, 1e-2, 1e-4, 1e-4, 1e-4, 1e-4], dtype=torch.float64)
    four = torch.tensor([1.0, 1e-1, 1e-1, 1e-2, 1e-3, 1e-4], dtype=torch.float64)
    found = average_nodes(process, torch.stack([two, four], 1))
    torch.testing.assert_close(found, torch.logspace(0, -4, 4, dtype=torch.float64), rtol=1e-12, atol=0)


def test_float32_stays_float32() -> None:
    run = GottaGoFast(rtol=0.3).run(GaussianMixture.smooth_bed(VP), start(VP, 3, 8).float(), rng=0)
    assert run.x.dtype == torch.float32
    assert run.nodes.dtype == torch.float64


def refused(sampler: GottaGoFast, process: GaussianProcess) -> Callable[[], AdaptiveRun]:
    return lambda: sampler.run(normal_data(process, 2, 0.5), torch.ones(2, 2).double(), rng=0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"GottaGoFast needs a finite noise level at both ends.*RectifiedFlow.*t_max"
    ):
        refused(GottaGoFast(), RectifiedFlow())()
    with pytest.raises(InvalidInput, match=r"finite noise level at both ends.*larger t_min"):
        refused(GottaGoFast(), EDM(t_min=0.0))()
    with pytest.raises(InvalidInput, match="rng must be a Stream or an int seed"):
        GottaGoFast().run(normal_data(VP, 2, 0.5), torch.ones(2, 2).double())
    with pytest.raises(InvalidInput, match="start states hold NaN"):
        GottaGoFast().run(normal_data(VP, 2, 0.5), torch.full((2, 2), math.nan), rng=0)
    with pytest.raises(InvalidInput, match=r"floating point \(B, \*\), got torch.int64 \(2, 2\)"):
        GottaGoFast().run(normal_data(VP, 2, 0.5), torch.ones(2, 2).long(), rng=0)


def test_failures_name_their_place() -> None:
    with pytest.raises(
        StepLimit, match=r"10 steps were not enough for 2 of 2 samples; .* t = 0\.\d+ on its way to 0.001"
    ):
        refused(GottaGoFast(max_steps=10), VP)()
    broken = Told(lambda x, t: torch.where(t[:, None] < 0.5, math.nan, 0.5 * x), VP)
    with pytest.raises(NotFinite, match=r"for sample \d in a step from t = 0\.[5-9]\d*;"):
        GottaGoFast(rtol=0.1).run(broken, start(VP, 3, 2), rng=0)


def test_a_process_without_gaussian_increments_is_refused() -> None:
    process = PoissonFlow(D=4)
    with pytest.raises(InvalidInput, match="GottaGoFast adds noise step by step, but PoissonFlow"):
        GottaGoFast().run(GaussianMixture.smooth_bed(process), torch.zeros(2, 8, dtype=torch.float64), rng=0)
