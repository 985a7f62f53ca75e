"""Denoising MCMC where everything is known: the level's posterior, the law of the kept states, chains that do not mix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.adaptive import Chains, DenoisingMCMC, ExactPosterior, denoised
from isocline.plans.adaptive.denoising_mcmc import short_plan
from isocline.processes import EDM, Circle, Data, GaussianMixture, GaussianProcess, VariancePreserving, wrap
from tests.plans.helpers import PROCESSES, Told, normal

STD = 0.5


def normal_data(process: GaussianProcess, d: int) -> GaussianMixture:
    return GaussianMixture(process, torch.zeros(1, d, dtype=torch.float64), torch.tensor([STD], dtype=torch.float64))


def no_finish(process: GaussianProcess, t: float) -> Plan:
    """A plan that returns its start, up to a factor 1e-6, so that the kept states themselves can be looked at."""
    return solvers.euler(process, torch.tensor([t, t * (1 - 1e-6)], dtype=torch.float64))


def short_ddim(process: GaussianProcess, t: float) -> Plan:
    """Two steps at noise levels that are the same for every process."""
    s = torch.tensor([float(process.noise_level(t)), 0.08, 0.05], dtype=torch.float64)
    return denoised(solvers.ddim(process, process.time_of_noise_level(s)))


def closed_posterior(y: Tensor, levels: Tensor) -> Tensor:
    var = levels**2 + STD**2
    return -0.5 * (y.square().sum(1, keepdim=True) / var + y.shape[1] * torch.log(2 * math.pi * var))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_exact_posterior_is_the_normal_law_of_unscaled_states(process: GaussianProcess) -> None:
    levels = torch.tensor([0.05, 0.3, 1.0, 4.0], dtype=torch.float64)
    y = 2 * normal(7, 3)
    found = ExactPosterior(normal_data(process, 3))(y, levels)
    torch.testing.assert_close(found, closed_posterior(y, levels), rtol=1e-9, atol=1e-9)


def test_the_exact_posterior_serves_every_exact_denoiser_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    circle, y = Circle(EDM()), normal(5, 2)
    levels = torch.logspace(-1, 1, 9, dtype=torch.float64)
    whole = ExactPosterior(circle)(y, levels)
    torch.testing.assert_close(whole, torch.stack([circle.log_density(y, s) for s in levels], 1))
    monkeypatch.setattr("isocline.plans.adaptive.denoising_mcmc.CHUNK", 10)
    torch.testing.assert_close(ExactPosterior(circle)(y, levels), whole)


def power(chains: Chains) -> Tensor:
    """Return ``|y|^2`` of each kept state against what its level says, (B, n): 1 on average where the law is right."""
    return chains.x.square().mean(2) / (chains.levels**2 + STD**2)


@pytest.mark.parametrize("d", [1, 8])
def test_the_last_state_of_a_window_has_its_level_s_law_and_the_smallest_level_too_much_noise(d: int) -> None:
    """The levels of stationary chains stay evenly spread; of five draws the smallest understates the noise."""
    model = normal_data(EDM(), d)
    x = model.sample(500, 0)
    settings: dict[str, Any] = {"low": 0.05, "high": 2.0, "count": 40, "step": 0.1, "finish": no_finish}
    last = DenoisingMCMC(**settings).run(model, x, closed_posterior, 6, rng=0)
    mean = power(last).mean(1)
    assert abs(float(mean.mean()) - 1) < 0.025 + 4 * float(mean.std()) / math.sqrt(
        500
    )  # step / 4 is Langevin's own bias
    place = (last.levels.log() - math.log(0.05)) / math.log(40)
    assert abs(float(place.mean()) - 1 / 2) < 4 * math.sqrt(1 / 12 / 500)
    assert abs(float(place.var()) - 1 / 12) < 4 * math.sqrt((1 / 80 - 1 / 144) / 500)
    smallest = DenoisingMCMC(**settings, smallest=True).run(model, x, closed_posterior, 6, rng=0)
    assert float(smallest.levels.median()) < 0.7 * float(last.levels.median())
    assert float(power(smallest).mean()) > 1.25


@pytest.mark.parametrize("seed", range(5))
def test_samples_of_a_mixture_have_its_moments_and_weights(seed: int) -> None:
    model = GaussianMixture.smooth_bed(EDM())
    chains, n = 100, 5
    sampler = DenoisingMCMC(0.3, 2.0, count=12, step=1.0, finish=_careful)
    run = sampler.run(model, model.sample(chains, seed), ExactPosterior(model), n, rng=seed)
    data = model.sample(200_000, 77)
    worth = run.effective_samples()
    assert 100 < worth <= chains * n
    error = data.std(0) / math.sqrt(worth)
    assert bool(((run.x.flatten(0, 1).mean(0) - data.mean(0)).abs() < 4 * error).all())
    assert abs(float(run.x.var() / data.var()) - 1) < 0.15
    weights = model.responsibilities(run.x.flatten(0, 1), EDM().t_min).mean(0)
    assert float((weights - model.weights).abs().max()) < 0.1


def _careful(process: GaussianProcess, t: float) -> Plan:
    return denoised(solvers.exponential_adams(process, grids.log_snr(process, 8, t_max=t, t_min=0.03)))


def test_separated_modes_do_not_mix_and_the_result_says_so() -> None:
    """Two modes 20 standard deviations apart, and no level that joins them: every chain stays where it began."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    model = GaussianMixture(EDM(), means, torch.tensor([0.1, 0.1], dtype=torch.float64))
    x = model.sample(40, 0)
    times, moved = [], []
    for high in (0.2, 2.0):
        run = DenoisingMCMC(0.05, high, count=12).run(model, x, ExactPosterior(model), 15, rng=0)
        sides = run.x[..., 0] > 0
        times.append(float(run.autocorrelation_time()[0]))
        moved.append(float((sides[:, 1:] != sides[:, :-1]).double().mean()))
        if high == 0.2:
            assert torch.equal(sides, (x[:, :1] > 0).expand(sides.shape))
            assert run.effective_samples() < 45  # one for each chain, of 600 samples
    assert moved[0] == 0.0 < moved[1]
    assert times[0] > 13 > times[1]


def test_the_chain_is_the_same_for_every_process() -> None:
    """It runs in ``(y, s)``, where all processes are one."""
    means, x = normal(3, 2, seed=1), normal(4, 2)
    results = []
    for process in PROCESSES:
        model = GaussianMixture(process, means, torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64))
        sampler = DenoisingMCMC(0.1, 3.0, count=30, finish=short_ddim)
        results.append(sampler.run(model, x, ExactPosterior(model), 3, rng=1))
    for other in results[1:]:
        torch.testing.assert_close(other.x, results[0].x, rtol=1e-7, atol=1e-7)
        assert torch.equal(other.levels, results[0].levels)


def test_a_chain_does_not_depend_on_its_mates() -> None:
    model = GaussianMixture.smooth_bed(EDM())

    def ancestral(process: GaussianProcess, t: float) -> Plan:
        return solvers.ddim(process, grids.karras(process, 3, t_max=t), eta=1.0)

    sampler = DenoisingMCMC(0.1, 2.0, count=30, finish=ancestral)
    x = model.sample(9, 3)
    whole, part = (sampler.run(model, x[:k], ExactPosterior(model), 3, rng=2) for k in (9, 4))
    torch.testing.assert_close(part.x, whole.x[:4], rtol=1e-10, atol=1e-10)
    assert torch.equal(part.calls, whole.calls[:4])


def test_calls_are_counted_for_each_chain() -> None:
    model = GaussianMixture.smooth_bed(EDM())
    run = DenoisingMCMC(0.1, 2.0, count=30, skip=3).run(model, model.sample(6, 0), ExactPosterior(model), 4, rng=0)
    assert torch.equal(run.calls, torch.full((6,), 4 * (3 + 5)))
    assert run.cost.calls == 8
    assert run.x.shape == (6, 4, 8)
    assert run.levels.shape == (6, 4)
    assert short_plan(EDM(), 1.0).calls == 5


def test_conditions_go_with_their_chains() -> None:
    beds = [GaussianMixture(EDM(), torch.full((1, 2), m).double(), torch.tensor([0.3])) for m in (-1.0, 2.0)]
    both = wrap(lambda x, t, cond: torch.where(cond[:, None] > 0, beds[1](x, t), beds[0](x, t)), EDM(), Data())
    cond = torch.tensor([0, 1, 1, 0])
    x = torch.where(cond[:, None] > 0, 2.0, -1.0).double().expand(4, 2)
    sampler = DenoisingMCMC(0.1, 1.0, count=30)
    mixed = sampler.run(both, x, closed_posterior, 2, rng=0, cond=cond)
    for label, bed in enumerate(beds):
        alone = sampler.run(bed, x, closed_posterior, 2, rng=0)
        torch.testing.assert_close(mixed.x[cond == label], alone.x[cond == label])


def test_bad_settings_are_refused() -> None:
    model = normal_data(EDM(), 2)
    with pytest.raises(InvalidInput, match=r"levels need 0 < low < high, got 1 and 0\.5"):
        DenoisingMCMC(1, 0.5)
    with pytest.raises(InvalidInput, match="stable between 0 and 4"):
        DenoisingMCMC(0.1, 1.0, step=4.0)
    with pytest.raises(InvalidInput, match="skip >= 1"):
        DenoisingMCMC(0.1, 1.0, skip=0)
    with pytest.raises(InvalidInput, match=r"low must be above the noise level 0\.002 of t_min, got 0\.001"):
        DenoisingMCMC(0.001, 1.0).run(model, torch.zeros(1, 2), closed_posterior, 1, rng=0)
    with pytest.raises(InvalidInput, match="at least one sample, got 0"):
        DenoisingMCMC(0.1, 1.0).run(model, torch.zeros(1, 2), closed_posterior, 0, rng=0)
    vp = normal_data(VariancePreserving(), 2)
    with pytest.raises(InvalidInput, match="above the noise level"):
        DenoisingMCMC(0.01, 1.0).run(vp, torch.zeros(1, 2), closed_posterior, 1, rng=0)


def test_failures_name_their_place() -> None:
    x = torch.zeros(3, 2, dtype=torch.float64)
    broken = Told(lambda x, t: torch.where(torch.arange(len(x))[:, None] == 1, math.nan, 0.5 * x), EDM())
    with pytest.raises(NotFinite, match=r"in step 0 of chain 1, at noise level 0\.\d+;"):
        DenoisingMCMC(0.1, 0.9).run(broken, x, closed_posterior, 1, rng=0)
    with pytest.raises(NotFinite, match="posterior of the noise level is NaN or infinite in step 0"):
        DenoisingMCMC(0.1, 0.9).run(
            normal_data(EDM(), 2), x, lambda y, levels: torch.full((3, len(levels)), math.nan), 1, rng=0
        )


def test_the_level_is_drawn_from_its_posterior() -> None:
    """A posterior of two levels with probabilities 1/4 and 3/4, whatever the state: so often each is drawn."""

    def two(y: Tensor, levels: Tensor) -> Tensor:
        return torch.tensor([0.25, 0.75]).log().expand(len(y), 2) + Stream(0).normal((len(y), 1))

    model = normal_data(EDM(), 2)
    run = DenoisingMCMC(0.1, 0.2, count=2, skip=1, finish=no_finish).run(model, model.sample(2000, 0), two, 2, rng=0)
    share = float((run.levels > 0.15).double().mean())
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)
