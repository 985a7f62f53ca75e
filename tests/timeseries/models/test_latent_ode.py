"""Latent ODEs: what the encoder may see, whose order may not matter, and the bound against its closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from isocline._core.errors import InvalidInput
from isocline.integrators import PID
from isocline.timeseries.models import LatentODE, Posterior, Solving

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
TIMES = torch.tensor([0.1, 0.3, 0.35, 0.8, 1.1, 1.2], **DOUBLE)


def model(**more: Any) -> LatentODE:
    torch.manual_seed(0)
    more.setdefault("solving", Solving(controller=PID(1e-8, 1e-8)))
    return LatentODE(2, latent=3, width=7, **more).double()


def series(batch: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, len(TIMES), 2, generator=generator, **DOUBLE)
    return torch.where(torch.rand(values.shape, generator=generator) < 0.4, torch.nan, values)


def test_a_time_without_observation_changes_nothing() -> None:
    values, ours = series(), model()
    alone = ours.encode(TIMES, values)
    for place, t in ((0, 0.02), (3, 0.6), (6, 5.0)):
        times = torch.cat([TIMES[:place], torch.tensor([t], **DOUBLE), TIMES[place:]])
        gap = torch.full((4, 1, 2), torch.nan, **DOUBLE)
        more = torch.cat([values[:, :place], gap, values[:, place:]], dim=1)
        for a, b in zip(ours.encode(times, more), alone, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_every_observation_its_time_and_its_absence_are_seen() -> None:
    values, ours = series(), model()
    mean = ours.encode(TIMES, values).mean.detach()
    seen = torch.nonzero(~values[0].isnan()).tolist()
    for k, c in seen:
        for change in (torch.nan, 0.3):
            other = values.clone()
            other[0, k, c] = other[0, k, c] + change
            moved = (ours.encode(TIMES, other).mean.detach() - mean).abs().amax(1)
            assert float(moved[0]) > 1e-6
            assert float(moved[1:].max()) == 0.0
    for k in {k for k, _ in seen}:
        times = TIMES.expand(4, -1).clone()
        times[0, k] += 0.01
        moved = (ours.encode(times, values).mean.detach() - mean).abs().amax(1)
        assert float(moved[0]) > 1e-7
        assert float(moved[1:].max()) == 0.0


def test_the_first_state_knows_how_long_before_the_data_it_is() -> None:
    values = series()
    near, far = (model(start=start).encode(TIMES, values).mean.detach() for start in (0.0, -1.0))
    assert float((near - far).abs().max()) > 1e-3
    moved = model(start=5.0).encode(TIMES + 5.0, values).mean.detach()  # only differences of times count
    torch.testing.assert_close(moved, near, rtol=0, atol=1e-12)


def test_samples_do_not_depend_on_their_order_or_on_padding() -> None:
    values, ours, order = series(), model(), torch.tensor([2, 0, 3, 1])
    law = ours.encode(TIMES, values)
    torch.testing.assert_close(ours.encode(TIMES, values[order]).mean, law.mean[order])
    own = TIMES.expand(4, -1).clone()
    torch.testing.assert_close(ours.encode(own, values).mean, law.mean)
    own, short = own.clone(), values.clone()
    own[1, 4:], short[1, 4:] = torch.nan, torch.nan
    alone = ours.encode(TIMES[:4], values[1:2, :4])
    torch.testing.assert_close(ours.encode(own, short).mean[1:2], alone.mean)
    asked = own[:, :3] + torch.tensor([[0.0], [0.1], [0.2], [0.3]], **DOUBLE)
    found = ours(own, short, asked)
    torch.testing.assert_close(ours(own[order], short[order], asked[order]), found[order], rtol=0, atol=1e-12)


def test_own_times_and_shared_times_agree() -> None:
    values, ours = series(), model()
    asked = torch.tensor([0.0, 0.5, 1.7], **DOUBLE)
    shared = ours(TIMES, values, asked)
    assert shared.shape == (4, 3, 2)
    torch.testing.assert_close(ours(TIMES, values, asked.expand(4, 3)), shared, rtol=0, atol=1e-6)
    padded = torch.cat([asked.expand(4, 3), torch.full((4, 1), torch.nan, **DOUBLE)], dim=1)
    torch.testing.assert_close(ours(TIMES, values, padded)[:, :3], shared, rtol=0, atol=1e-6)


def test_one_observation_is_enough() -> None:
    values = torch.full((2, len(TIMES), 2), torch.nan, **DOUBLE)
    values[0, 3, 1], values[1, 0, 0] = 0.7, -0.2
    ours = model()
    bound = ours.elbo(TIMES, values, rng=0, step=0)
    assert bound.shape == (2,)
    slopes = torch.autograd.grad(bound.sum(), list(ours.parameters()))
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_what_is_missing_has_no_part_in_the_likelihood() -> None:
    values, ours = series(), model(noise=0.3)
    predicted = torch.randn(values.shape, generator=torch.Generator().manual_seed(5), **DOUBLE).requires_grad_()
    found = ours.log_likelihood(predicted, values)
    terms = Normal(predicted, 0.3).log_prob(values.nan_to_num())
    torch.testing.assert_close(found, torch.where(values.isnan(), 0.0, terms).sum((1, 2)))
    (slope,) = torch.autograd.grad(found.sum(), predicted)
    assert bool(slope.isfinite().all())
    assert torch.equal(slope == 0, values.isnan())


def test_the_divergence_is_that_of_normal_laws() -> None:
    law = Posterior(torch.randn(5, 3, **DOUBLE), torch.randn(5, 3, **DOUBLE))
    exact = kl_divergence(Normal(law.mean, (law.log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(law.kl(), exact)
    many = Posterior(law.mean.repeat(2000, 1), law.log_variance.repeat(2000, 1))
    draws = many.sample(0, 1).reshape(2000, 5, 3)
    torch.testing.assert_close(law.sample(0, 1, first=5), draws[1])
    spread = (law.log_variance / 2).exp()
    assert float(((draws.mean(0) - law.mean) / spread).abs().max()) < 4.5 / math.sqrt(2000)
    assert float((draws.std(0) / spread - 1).abs().max()) < 0.08


class Still(nn.Module):
    """A field that is zero."""

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.zeros_like(z)


@pytest.mark.parametrize("exact", [True, False])
def test_the_bound_is_the_evidence_at_the_true_posterior_and_below_it_elsewhere(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A latent state that stands still and a linear decoder: evidence and posterior are normal, in closed form."""
    s, weights = 0.5, torch.tensor([[1.0, 0.0, 0.0], [0.0, -2.0, 0.0]], **DOUBLE)  # diagonal, so the posterior is too
    ours = model(noise=s, field=Still())
    ours.decoder = nn.Linear(3, 2, bias=False).double()  # type: ignore[assignment]
    with torch.no_grad():
        ours.decoder.weight.copy_(weights)
    values = torch.full((1, 3, 2), torch.nan, **DOUBLE)
    values[0, 0, 0], values[0, 2, 0], values[0, 1, 1] = 0.4, 0.9, -1.0
    rows = torch.stack([weights[0], weights[0], weights[1]])
    data = torch.tensor([0.4, 0.9, -1.0], **DOUBLE)
    evidence = MultivariateNormal(torch.zeros(3, **DOUBLE), rows @ rows.mT + s**2 * torch.eye(3, **DOUBLE)).log_prob(
        data
    )
    precision = torch.eye(3, **DOUBLE) + rows.mT @ rows / s**2
    mean = torch.linalg.solve(precision, rows.mT @ data / s**2)
    law = Posterior(mean[None], -precision.diagonal().log()[None])
    if not exact:
        law = Posterior(law.mean + 0.3, law.log_variance + 0.5)
    many = Posterior(law.mean.expand(400, 3), law.log_variance.expand(400, 3))
    monkeypatch.setattr(ours, "encode", lambda times, values: many)
    bounds = ours.elbo(TIMES[:3], values.expand(400, 3, 2), rng=1, step=0).detach()
    error = float(bounds.std()) / 20
    gap = float(evidence - bounds.mean())
    posterior = MultivariateNormal(mean, precision_matrix=precision)
    proposed = MultivariateNormal(law.mean[0], torch.diag(law.log_variance[0].exp()))
    expected = float(kl_divergence(proposed, posterior))  # type: ignore[no-untyped-call]
    assert (expected < 1e-10) is exact
    assert abs(gap - expected) < 4 * error
    assert error < 0.2


def test_the_weight_of_the_divergence_and_the_target_are_used() -> None:
    values, ours = series(), model()
    full, none = (ours.elbo(TIMES, values, rng=0, step=3, beta=beta) for beta in (1.0, 0.0))
    torch.testing.assert_close(none - full, ours.encode(TIMES, values).kl())
    target = TIMES + 1.0, torch.randn(values.shape, **DOUBLE)
    found = ours.elbo(TIMES, values, rng=0, step=3, beta=0.0, target=target)
    z0 = ours.encode(TIMES, values).sample(0, 3)
    torch.testing.assert_close(found, ours.log_likelihood(ours.decode(z0, target[0]), target[1]))


def test_bad_series_are_refused_in_one_line() -> None:
    values, ours = series(), model()
    empty = values.clone()
    empty[2] = torch.nan
    lost = TIMES.expand(4, -1).clone()
    lost[:, -1] = torch.nan
    full = torch.zeros(4, len(TIMES), 2, **DOUBLE)
    cases: list[tuple[Tensor, Tensor, str]] = [
        (TIMES, values[..., :1], r"values need shape \(B, T, 2\)"),
        (TIMES[:3], values, r"times need shape \(6,\) or \(4, 6\)"),
        (TIMES, empty, "series 2 has no observed value"),
        (TIMES.flip(0), values, "times must increase"),
        (TIMES - 1.0, full, "before the first latent state at 0"),
        (lost, full, "a time that is NaN"),
    ]
    for times, given, text in cases:
        with pytest.raises(InvalidInput, match=text):
            ours.encode(times, given)
    with pytest.raises(InvalidInput, match="noise of observations must be positive"):
        LatentODE(1, noise=0.0)
