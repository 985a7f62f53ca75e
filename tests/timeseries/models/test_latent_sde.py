"""Latent SDEs: what the encoder may see, the divergence against its closed form, and a bound that training raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.integrators import Checkpointed
from isocline.timeseries.models.latent_sde import SMALLEST, LatentSDE

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
TIMES = torch.tensor([0.1, 0.3, 0.35, 0.8, 1.1, 1.2], **DOUBLE)


def model(**more: Any) -> LatentSDE:
    torch.manual_seed(0)
    return LatentSDE(2, latent=3, width=7, **more).double()


def series(batch: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, len(TIMES), 2, generator=generator, **DOUBLE)
    return torch.where(torch.rand(values.shape, generator=generator) < 0.4, torch.nan, values)


def test_a_time_without_observation_changes_nothing() -> None:
    values, ours = series(), model()
    alone = ours.elbo(TIMES, values, rng=0, step=0)
    times = torch.cat([TIMES[:3], torch.tensor([0.6], **DOUBLE), TIMES[3:]])
    more = torch.cat([values[:, :3], torch.full((4, 1, 2), torch.nan, **DOUBLE), values[:, 3:]], dim=1)
    assert torch.allclose(ours.elbo(times, more, rng=0, step=0), alone, rtol=1e-12)


def test_samples_do_not_depend_on_each_other_and_may_have_their_own_times() -> None:
    values, ours = series(), model()
    whole = ours.elbo(TIMES, values, rng=0, step=0)
    assert torch.allclose(ours.elbo(TIMES, values[:2], rng=0, step=0), whole[:2], rtol=1e-12)
    assert torch.allclose(ours.elbo(TIMES.expand(4, -1), values, rng=0, step=0), whole, rtol=1e-12)


def test_the_context_is_that_of_the_next_observation() -> None:
    values, ours = torch.zeros(1, 6, 2, **DOUBLE), model()
    context = ours.encode(TIMES, values)
    for k, t in ((0, 0.0), (1, 0.2), (3, 0.8), (5, 1.15)):
        state, known = context.at(torch.tensor(t, **DOUBLE))
        assert bool(known)
        assert torch.equal(state[0], context.states[0, k])
    assert not bool(context.at(torch.tensor(1.3, **DOUBLE))[1])
    later = values.clone()
    later[0, :3] = 1.0  # what lies before a time does not change what is known from there on
    assert torch.equal(ours.encode(TIMES, later).states[0, 3:], context.states[0, 3:])
    assert not torch.equal(ours.encode(TIMES, later).states[0, 2], context.states[0, 2])


class Constantly(nn.Module):
    """A drift that does not depend on anything."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :3], self.value)


def test_the_divergence_of_constant_drifts_is_known() -> None:
    """f - h = 0.7 - 0.2 in each of 3 coordinates, g constant, up to the last observation at 1.2: 3 / 2 (0.5 / g)^2 1.2."""
    ours = model(step=0.05)
    ours.prior, ours.posterior = Constantly(0.2), Constantly(0.7)  # type: ignore[assignment]
    with torch.no_grad():
        ours.slopes.copy_(torch.tensor([[0.0] * 3, [0.3] * 3], **DOUBLE))
    g = SMALLEST + torch.sigmoid(torch.tensor(0.3, **DOUBLE)).item()
    context = ours.encode(TIMES, torch.zeros(1, 6, 2, **DOUBLE))
    paths = ours.solve(torch.zeros(1, 3, **DOUBLE), 1.2, 0, context)
    assert abs(float(paths.divergence[0, -1].detach()) - 1.5 * (0.5 / g) ** 2 * 1.2) < 1e-10
    beyond = ours.solve(torch.zeros(1, 3, **DOUBLE), 2.4, 0, context)
    assert (
        abs(float(beyond.divergence[0, -1].detach()) - 1.5 * (0.5 / g) ** 2 * 1.2) < 0.03
    )  # nothing more to know behind the last one
    assert float(ours.solve(torch.zeros(1, 3, **DOUBLE), 1.2, 0).divergence.detach().abs().max()) == 0.0


def test_equal_drifts_give_paths_of_the_prior() -> None:
    ours = model()
    ours.posterior = Constantly(0.2)  # type: ignore[assignment]
    ours.prior = Constantly(0.2)  # type: ignore[assignment]
    context = ours.encode(TIMES, torch.zeros(5, 6, 2, **DOUBLE))
    z0 = torch.randn(5, 3, **DOUBLE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.solve(z0, 1.2, 3, context).states, ours.solve(z0, 1.2, 3).states)


def test_the_smallest_diffusion_keeps_the_divergence_finite() -> None:
    ours = model()
    with torch.no_grad():
        ours.slopes.fill_(-50.0)
    assert float(ours.diffusion(torch.ones(2, 3, **DOUBLE)).detach().min()) >= SMALLEST
    assert bool(ours.elbo(TIMES, series(), rng=0, step=0).isfinite().all())


def test_draws_differ_by_step_and_repeat_by_seed() -> None:
    ours, values = model(), series()
    a, b, c = (ours(TIMES, values, rng=seed, step=step) for seed, step in ((0, 0), (0, 0), (0, 1)))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert ours.sample(7, TIMES, rng=0).shape == (7, 6, 2)


@pytest.mark.parametrize("gradient", [None, Checkpointed()], ids=["direct", "checkpointed"])
def test_training_raises_the_bound(gradient: Any) -> None:
    t = torch.linspace(0.1, 1, 10, **DOUBLE)
    raised = 0
    for seed in range(5):
        torch.manual_seed(seed)
        phases = torch.rand(16, 1, **DOUBLE) * 6.28
        values = torch.sin(6 * t + phases)[..., None]
        ours = LatentSDE(1, latent=2, width=12, noise=0.2, step=0.1, gradient=gradient).double()
        optimizer = torch.optim.Adam(ours.parameters(), lr=2e-2)
        first = float(ours.elbo(t, values, rng=seed, step=10**6).mean().detach())
        for step in range(25):
            optimizer.zero_grad()
            (-ours.elbo(t, values, rng=seed, step=step, beta=0.1).mean()).backward()
            optimizer.step()
        raised += float(ours.elbo(t, values, rng=seed, step=10**6).mean().detach()) > first
        if gradient is not None:
            break
    assert raised == (5 if gradient is None else 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LatentSDE(1, noise=0.0), "must be positive"),
        (lambda: LatentSDE(1, step=-1.0), "must be positive"),
        (lambda: model().encode(TIMES, torch.zeros(4, 6, 3, **DOUBLE)), "values need shape"),
        (lambda: model(start=0.2).encode(TIMES, torch.zeros(4, 6, 2, **DOUBLE)), "pass a smaller start"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
