import math

import pytest
import torch
from torch import nn

from isocline._core import files
from isocline._core.errors import Mismatch, NotFinite
from isocline._core.stream import Stream
from isocline.training import Settings, train


def regression(seed=0):
    torch.manual_seed(seed)
    network = nn.Linear(3, 1)

    def loss(step):
        x = Stream(1, "x").normal((8, 3), step=step)
        return (network(x) - x.sum(1, keepdim=True)).square().mean()

    return network, loss


def test_a_resumed_run_has_the_same_bits_as_an_uninterrupted_one(tmp_path):
    settings = Settings(steps=60, batch=8, rate=0.05, warmup=5, checkpoint_every=20)
    whole = train(*regression(), settings, tmp_path / "whole")

    network, loss = regression()

    def dies(step):
        if step == 47:
            raise KeyboardInterrupt
        return loss(step)

    with pytest.raises(KeyboardInterrupt):
        train(network, dies, settings, tmp_path / "cut")
    resumed = train(*regression(seed=5), settings, tmp_path / "cut")
    assert resumed.losses == whole.losses
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name])


def test_it_learns_and_the_average_follows(tmp_path):
    network, loss = regression()
    trained = train(network, loss, Settings(steps=400, batch=8, rate=0.05, warmup=5, average=0.9), tmp_path)
    torch.testing.assert_close(trained.weights["weight"], torch.ones(1, 3), atol=2e-2, rtol=0)
    assert trained.losses[-1][1] < 1e-3 < trained.losses[0][1]


def test_the_average_is_the_stated_recursion(tmp_path):
    network, loss = regression()
    seen = []

    def recording(step):
        if step:
            seen.append(network.weight.detach().clone())
        return loss(step)

    settings = Settings(steps=30, batch=8, average=0.8)
    average = network.weight.detach().clone()
    trained = train(network, recording, settings, tmp_path)
    for step, weight in enumerate([*seen, network.weight.detach()]):
        keep = min(0.8, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * weight
    torch.testing.assert_close(trained.weights["weight"], average)


def test_the_rate_warms_up_and_falls_to_zero():
    settings = Settings(steps=1000, rate=2.0, warmup=100)
    assert settings.rate_at(0) == pytest.approx(0.02)
    assert settings.rate_at(49) == pytest.approx(1.0 * 0.5 * (1 + math.cos(math.pi * 0.049)))
    assert settings.rate_at(999) < 1e-4


def test_nan_stops_with_its_step_and_the_last_checkpoint(tmp_path):
    network, loss = regression()
    settings = Settings(steps=30, batch=8, checkpoint_every=10)
    with pytest.raises(NotFinite, match=r"nan at step 13; the last good checkpoint is .*checkpoint\.safetensors"):
        train(network, lambda step: loss(step) * (math.nan if step == 13 else 1), settings, tmp_path)
    assert files.read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == "10"


def test_other_settings_are_refused(tmp_path):
    train(*regression(), Settings(steps=5, batch=8), tmp_path)
    with pytest.raises(Mismatch, match="written with other settings"):
        train(*regression(), Settings(steps=6, batch=8), tmp_path)
