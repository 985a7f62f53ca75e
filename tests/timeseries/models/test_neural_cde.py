"""Neural CDEs: a closed form, padding, gaps, asked times, causality, gradients, and that one learns what it should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.integrators import RK4, Checkpointed, LinearPath, NaturalCubicPath
from isocline.timeseries.models import MatrixField, NeuralCDE, Solving

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


class Growth(nn.Module):
    """dz = z (dX_1 - dX_0 / 2): channel 0 is time."""

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.stack([-z / 2, z], -1)


def series(seed: int = 0, batch: int = 4, n: int = 7, channels: int = 1, missing: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(batch, n, generator=generator, **DOUBLE).add(0.1).cumsum(-1)
    values = torch.randn(batch, n, channels, generator=generator, **DOUBLE)
    return times, values.masked_fill(torch.rand(values.shape, generator=generator) < missing, torch.nan)


def model(seed: int = 0, channels: int = 1, **more: Any) -> NeuralCDE:
    torch.manual_seed(seed)
    return NeuralCDE(channels, 2, hidden=5, **more).double()


@pytest.mark.parametrize("path", [LinearPath, NaturalCubicPath])
def test_a_closed_form_at_the_end_and_at_every_observation(path: Any) -> None:
    net = model(field=Growth(), path=path, solving=Solving(method=RK4(), dt0=0.1))
    times, values = series()
    first = net.start(torch.cat([torch.zeros(4, 1, **DOUBLE), values[:, 0]], -1))
    grown = torch.exp((values - values[:, :1]) - (times - times[:, :1])[..., None] / 2)
    exact = net.readout(first[:, None] * grown)
    torch.testing.assert_close(net(times, values), exact[:, -1], rtol=1e-4, atol=1e-4)
    shared = net(times[0], values, times[0])
    grown = torch.exp((values - values[:, :1]) - (times[0] - times[0, 0])[:, None] / 2)
    torch.testing.assert_close(shared, net.readout(first[:, None] * grown), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("intensity", [False, True])
def test_a_series_is_as_it_is_alone_whatever_pads_it(missing: float, intensity: bool) -> None:
    net = model(channels=2, intensity=intensity)
    times, values = series(1, channels=2, missing=missing)
    times[1, 4:], values[1, 4:] = torch.nan, torch.nan
    times[2, 6:], values[2, 6:] = torch.nan, torch.nan
    at = torch.tensor([0.2, 0.9, 9.0], **DOUBLE)
    ends, states = net(times, values), net(times, values, at)
    assert ends.shape == (4, 2)
    assert states.shape == (4, 3, 2)
    for b, n in enumerate((7, 4, 6, 7)):
        alone = net(times[b, :n], values[b : b + 1, :n])
        torch.testing.assert_close(ends[b], alone[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(states[b, 2], ends[b], rtol=0, atol=1e-10)  # 9 lies behind all ends
        torch.testing.assert_close(states[b], net(times[b, :n], values[b : b + 1, :n], at)[0], rtol=0, atol=1e-10)


def test_the_count_of_observations_is_seen_where_it_is_asked_for() -> None:
    values = series(2)[1]
    middle = values.clone()
    middle[:, 3] = (values[:, 2] + values[:, 4]) / 2
    gap = middle.clone()
    gap[:, 3] = torch.nan
    even = torch.arange(7, **DOUBLE)  # the line across the gap goes through the value that is missing
    plain, counting = model(), model(intensity=True)
    torch.testing.assert_close(plain(even, gap), plain(even, middle), rtol=0, atol=1e-12)
    assert float((counting(even, gap) - counting(even, middle)).detach().abs().max()) > 1e-4


def test_predictions_do_not_depend_on_later_data_nor_on_the_first_time() -> None:
    net = model()
    times, values = series(3)
    later = values.clone()
    later[:, 5:] += 1.0
    at = times[0, :5]
    assert torch.equal(net(times[0], values, at), net(times[0], later, at))
    torch.testing.assert_close(net(times + 100.0, values), net(times, values), rtol=0, atol=1e-10)


def test_gradients_reach_everything_in_every_mode() -> None:
    times, values = series(4, channels=2, missing=0.3)
    found = []
    for gradient in (None, Checkpointed()):
        net = model(channels=2, solving=Solving(method=RK4(), dt0=1.0, gradient=gradient))
        loss = net(times, values).square().sum()
        found.append(torch.autograd.grad(loss, list(net.parameters())))
        assert all(float(g.abs().max()) > 0 for g in found[-1])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


def spirals(seed: int, count: int = 64, n: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Spirals that turn left or right, at times of their own, 30 % of the values missing."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(count, n, generator=generator).sort(1).values.mul(6.0) + 1e-3 * torch.arange(n)
    turn = torch.randint(0, 2, (count,), generator=generator)
    angle = times * (2 * turn[:, None] - 1) + 6.28 * torch.rand(count, 1, generator=generator)
    values = torch.stack([torch.cos(angle), torch.sin(angle)], -1) * torch.exp(-0.1 * times)[..., None]
    return times, values.masked_fill(torch.rand(values.shape, generator=generator) < 0.3, torch.nan), turn


@pytest.mark.slow
def test_it_learns_which_way_spirals_turn() -> None:
    scores = []
    for seed in range(5):
        torch.manual_seed(seed)
        net = NeuralCDE(2, 2, hidden=8, field=MatrixField(8, 3, width=16))
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        times, values, turn = spirals(seed)
        for _ in range(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(times, values), turn).backward()
            optimiser.step()
        times, values, turn = spirals(seed + 100)
        scores.append(float((net(times, values).argmax(1) == turn).float().mean()))
    assert min(scores) > 0.9, scores


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="channels, outputs and hidden of at least 1"):
        NeuralCDE(0, 1)
    with pytest.raises(InvalidInput, match=r"this neural CDE reads values \(B, T, 1\), got \(4, 7, 2\)"):
        model()(*series(channels=2))
    times, values = series()
    times[2, 3] = times[2, 2]
    with pytest.raises(InvalidInput, match=r"increase strictly \(sample 2\)"):
        model()(times, values)
