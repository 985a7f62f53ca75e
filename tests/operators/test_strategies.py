from dataclasses import replace

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, Window
from isocline.objectives.fields import mean_square, relative_l2
from isocline.operators import (
    AllToAll,
    Denoise,
    Draws,
    GridModel,
    OneStep,
    OperatorModel,
    Pushforward,
    Strategy,
    Unrolled,
)
from tests.operators.beds import Waves, convolution, spec

SOURCE = Waves(spec())


def model(window: Window) -> GridModel:
    torch.manual_seed(0)
    return GridModel(convolution, SOURCE.spec, window)


def gradient(strategy: Strategy, network: GridModel, batch: Batch, rng: Draws) -> tuple[float, Tensor]:
    network.zero_grad()
    loss = strategy.loss(network, batch, mean_square, rng)
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


class Exact(OperatorModel):
    def __init__(self, window: Window) -> None:
        super().__init__()
        self.spec, self.window = SOURCE.spec, window

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        if lead is not None:
            return torch.stack([x[-1].roll(int(k), 0) for x, k in zip(batch.x, lead, strict=True)]).unsqueeze(1)
        return torch.stack([batch.x[:, -1].roll(k, 1) for k in range(1, self.window.future + 1)], 1)


@pytest.mark.parametrize(
    "strategy", [OneStep(), Pushforward(3), Unrolled(3), Unrolled(3, detach=True), AllToAll(5), Denoise(0.0)]
)
@pytest.mark.parametrize("future", [1, 2])
def test_an_exact_model_has_no_loss(strategy: Strategy, future: int) -> None:
    if isinstance(strategy, AllToAll) and future > 1:
        pytest.skip("predicts one frame")
    exact = Exact(Window(1, future))
    for step in range(5):
        batch = SOURCE.batch(4, strategy.window(exact.window), step=step)
        assert float(strategy.loss(exact, batch, relative_l2, Draws(Stream(0), step))) < 1e-5


@pytest.mark.parametrize("window", [Window(1, 1), Window(2, 3)])
def test_pushforward_is_a_step_from_where_the_model_would_be(window: Window) -> None:
    network, strategy = model(window), Pushforward(2)
    counts = set()
    for step in range(12):
        rng = Draws(Stream(1), step)
        batch = SOURCE.batch(4, strategy.window(window), step=step)
        count = strategy.drawn(rng)
        counts.add(count)
        x = batch.x
        for _ in range(count):
            x = torch.cat([x, network(replace(batch, x=x))], 1)[:, -window.past :].detach()
        y = batch.target[:, count * window.future : (count + 1) * window.future]
        expected = gradient(OneStep(), network, replace(batch, x=x, y=y), rng)
        found = gradient(strategy, network, batch, rng)
        assert found[0] == pytest.approx(expected[0])
        torch.testing.assert_close(found[1], expected[1])
    assert counts == {0, 1, 2}


def test_pushforward_grows_over_its_warmup() -> None:
    strategy = Pushforward(3, warmup=300)
    early = {strategy.drawn(Draws(Stream(0), step)) for step in range(100)}
    late = {strategy.drawn(Draws(Stream(0), step)) for step in range(300, 400)}
    assert (early, late) == ({0}, {0, 1, 2, 3})


def test_all_parts_of_a_batch_unroll_as_often() -> None:
    strategy = Pushforward(5)
    for step in range(10):
        assert strategy.drawn(Draws(Stream(0), step)) == strategy.drawn(Draws(Stream(0), step, first=8))


def test_unrolling_sends_gradients_through_the_predictions_and_detaching_does_not() -> None:
    window = Window()
    network, batch, rng = model(window), SOURCE.batch(4, Window(1, 2)), Draws(Stream(0))

    def naive(detach: bool) -> Tensor:
        network.zero_grad()
        first = network(batch)
        second = network(replace(batch, x=first.detach() if detach else first))
        loss = (mean_square(first, batch.target[:, :1]).mean() + mean_square(second, batch.target[:, 1:]).mean()) / 2
        loss.backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    through = gradient(Unrolled(2), network, batch, rng)[1]
    torch.testing.assert_close(through, naive(False))
    cut = gradient(Unrolled(2, detach=True), network, batch, rng)[1]
    torch.testing.assert_close(cut, naive(True))
    assert not torch.allclose(through, cut)


def test_noise_has_the_size_that_was_asked_for_and_a_batch_may_be_split() -> None:
    class Shows(Exact):
        def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
            return batch.x

    batch = SOURCE.batch(64, Window())
    clean = replace(batch, y=batch.x)
    rms = float(batch.x.square().mean((2, 3)).mean())
    strategy, shows = Denoise(0.1), Shows(Window())
    found = float(strategy.loss(shows, clean, mean_square, Draws(Stream(0), 3)))
    assert found == pytest.approx(0.01 * rms, rel=0.1)
    halves = [replace(clean, x=clean.x[k : k + 32], y=clean.x[k : k + 32]) for k in (0, 32)]
    parts = [
        float(strategy.loss(shows, half, mean_square, Draws(Stream(0), 3, 32 * k))) for k, half in enumerate(halves)
    ]
    assert sum(parts) / 2 == pytest.approx(found)


def test_all_to_all_needs_one_frame() -> None:
    with pytest.raises(InvalidInput, match="predicts one frame"):
        AllToAll(3).window(Window(1, 2))


def test_the_relative_distance_is_finite_with_its_gradient_at_the_truth() -> None:
    v = torch.zeros(2, 1, 8, 1, requires_grad=True)
    loss = relative_l2(v, torch.zeros(2, 1, 8, 1)).sum()
    loss.backward()
    assert v.grad is not None
    assert bool(v.grad.isfinite().all())
    u = torch.randn(3, 2, 8, 1, dtype=torch.float64)
    torch.testing.assert_close(relative_l2(1.5 * u, u), torch.full((3,), 0.5, dtype=torch.float64))
