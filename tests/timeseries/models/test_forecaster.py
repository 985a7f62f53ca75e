"""Forecasting paths: the score against its definition, what the network may see, seasons, and learning a law."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.timeseries.models.forecaster import NeuralForecaster, Window, crps


def windows(batch: int = 3, seed: int = 0, periods: int = 0) -> Window:
    g = torch.Generator().manual_seed(seed)
    times = torch.rand(batch, 5, generator=g).sort(1).values - 1
    values = torch.randn(batch, 5, 2, generator=g)
    values[0, 1:3] = torch.nan
    asked = torch.rand(batch, 4, generator=g).sort(1).values
    return Window(
        times, values, torch.randn(batch, 2 * periods, generator=g), asked, torch.randn(batch, 4, 2, generator=g)
    )


def model(**more: Any) -> NeuralForecaster:
    torch.manual_seed(0)
    return NeuralForecaster(2, width=12, latent=3, **more)


def test_the_score_is_its_definition() -> None:
    g = torch.Generator().manual_seed(0)
    paths, targets = torch.randn(7, 3, 4, 2, generator=g), torch.randn(3, 4, 2, generator=g)
    targets[1, 2:] = torch.nan
    total, count = 0.0, 0
    for b in range(3):
        for s in range(4):
            for c in range(2):
                y = targets[b, s, c]
                if not y.isnan():
                    x = paths[:, b, s, c]
                    total += float((x - y).abs().mean() - (x[:, None] - x).abs().sum() / (2 * 7 * 6))
                    count += 1
    assert abs(float(crps(paths, targets)) - total / count) < 1e-6


def test_the_score_of_a_normal_law_is_unbiased() -> None:
    """CRPS of N(0, 1) at y = 0: (sqrt 2 - 1) / sqrt pi, for two paths as for many."""
    exact = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    for m in (2, 5):
        paths = torch.randn(m, 200_000, 1, 1, generator=torch.Generator().manual_seed(m))
        assert abs(float(crps(paths, torch.zeros(200_000, 1, 1))) - exact) < 0.006


def test_what_is_missing_changes_nothing() -> None:
    ours, window = model(), windows()
    first = ours(window, paths=4, rng=0)
    longer = Window(
        torch.cat([torch.full((3, 2), -7.0), window.times], 1),
        torch.cat([torch.full((3, 2, 2), torch.nan), window.values], 1),
        window.phases,
        window.asked,
        window.targets + 1,
    )
    assert torch.allclose(ours(longer, paths=4, rng=0)[:, 1:], first[:, 1:], atol=1e-5)  # and targets are not read
    moved = window.times.clone()
    moved[0, 1:3] = -0.5
    other = Window(moved, window.values, window.phases, window.asked, window.targets)
    assert torch.equal(ours(other, paths=4, rng=0)[:, 1:], first[:, 1:])


def test_seasons_turn_with_time() -> None:
    ours = model(periods=(0.5, 2.0))
    phase = torch.tensor([0.3, 1.1])
    start = torch.cat([phase.sin(), phase.cos()])[None]
    tau = torch.tensor([[0.0, 0.2, -0.7]])
    turned = phase + 2 * torch.pi * tau[0, :, None] / torch.tensor([0.5, 2.0])
    assert torch.allclose(ours.season(start, tau)[0], torch.cat([turned.sin(), turned.cos()], -1), atol=1e-5)


def test_paths_are_repeatable_and_start_near_the_history() -> None:
    ours, window = model(), windows()
    assert torch.equal(ours(window, paths=4, rng=0), ours(window, paths=4, rng=0))
    assert not torch.equal(ours(window, paths=4, rng=0), ours(window, paths=4, rng=1))
    assert ours(window, paths=4, rng=0).shape == (4, 3, 4, 2)


@pytest.mark.slow
def test_it_learns_the_law_of_a_random_walk() -> None:
    """y(tau) ~ N(0, tau): after training the spread of paths at tau = 1 is about 1, in every one of 5 seeds."""
    for seed in range(5):
        torch.manual_seed(seed)
        ours = NeuralForecaster(1, width=16, latent=4)
        optimizer = torch.optim.Adam(ours.parameters(), lr=1e-2)
        asked = torch.tensor([0.25, 0.5, 1.0]).expand(64, 3)
        for step in range(120):
            steps = torch.randn(64, 3, 1) * torch.tensor([0.25, 0.25, 0.5]).sqrt()[:, None]
            window = Window(torch.zeros(64, 1), torch.zeros(64, 1, 1), torch.zeros(64, 0), asked, steps.cumsum(1))
            optimizer.zero_grad()
            crps(ours(window, paths=8, rng=step), window.targets).backward()
            optimizer.step()
        with torch.no_grad():
            spread: Tensor = ours(window.take(torch.arange(1)), paths=2000, rng=0).std(0)[0, :, 0]
        assert 0.75 < float(spread[2]) < 1.25
        assert float(spread[0]) < 0.8 * float(spread[2])


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="positive lengths"):
        model(periods=(0.0,))
    with pytest.raises(InvalidInput, match="at least two paths"):
        crps(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))
    with pytest.raises(InvalidInput, match="differ in their number"):
        Window(torch.zeros(2, 1), torch.zeros(1, 1, 1), torch.zeros(1, 0), torch.zeros(1, 1), torch.zeros(1, 1, 1))
