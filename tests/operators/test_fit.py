from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from isocline._core.errors import Mismatch, NotFinite
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.datasets import Buffer, PoolSource, Reservoir
from isocline.datasets.fields import Batch, FieldSpec, Window
from isocline.datasets.simulators import Burgers1D
from isocline.metrics import relative_error
from isocline.objectives.fields import mean_square
from isocline.operators import GridModel, Normaliser, Pushforward, Unrolled, fit, rollout
from isocline.training import Part, Settings
from tests.operators.beds import Waves, convolution, spec

SOURCE = Waves(spec())
SETTINGS = Settings(steps=300, batch=16, rate=3e-2, warmup=10, average=0.9, clip=10.0)


def model() -> GridModel:
    torch.manual_seed(0)
    window = Window()
    normaliser = Normaliser.of(SOURCE.spec, [SOURCE.batch(32, window)])
    return GridModel(convolution, SOURCE.spec, window, normaliser)


@pytest.mark.parametrize("strategy", [None, Pushforward(2), Unrolled(2)])
def test_a_shift_is_learned_and_rolled_out(strategy: Unrolled | Pushforward | None, tmp_path: Path) -> None:
    found = fit(model(), SOURCE, SETTINGS, tmp_path, strategy=strategy, objective=mean_square)
    batch = SOURCE.batch(8, Window(1, 32), seed=7)
    frames = rollout(found.model, batch, 32).frames
    assert float(relative_error(frames, batch.target)[:, -1].max()) < 0.05
    assert found.cost.calls == 300 * 16


def test_a_training_cut_in_two_ends_at_the_same_bits(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=40, checkpoint_every=1)
    whole = fit(model(), SOURCE, settings, tmp_path / "whole", strategy=Pushforward(2))
    cut = fit(model(), SOURCE, settings, tmp_path / "cut", strategy=Pushforward(2), budget=Budget(seconds=1e-6))
    assert not cut.trained.finished
    again = fit(model(), SOURCE, settings, tmp_path / "cut", strategy=Pushforward(2))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_parts_of_a_batch_give_the_same_update(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=10)
    whole = fit(model(), SOURCE, settings, tmp_path / "whole")
    parts = fit(model(), SOURCE, replace(settings, accumulate=4), tmp_path / "parts")
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(value, parts.model.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_other_fields_are_refused_before_any_update(tmp_path: Path) -> None:
    other = Waves(replace(SOURCE.spec, fields=(FieldSpec("h"), FieldSpec("k", varies=False))))
    with pytest.raises(Mismatch, match="u, k"):
        fit(model(), other, SETTINGS, tmp_path)


def test_a_nan_stops_with_its_place(tmp_path: Path) -> None:
    class Broken(Waves):
        def draw(
            self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Part | None = None
        ) -> Batch:
            batch = super().draw(step, window, batch_size, split, rng, part)
            return replace(batch, x=batch.x / 0) if step == 3 else batch

    with pytest.raises(NotFinite, match=r"step 3; the batch holds \d+ of \d+ values"):
        fit(model(), Broken(spec()), SETTINGS, tmp_path)


@pytest.mark.slow
def test_a_model_is_trained_on_a_stream(tmp_path: Path) -> None:
    simulator, strategy = Burgers1D(32, 6, low=0.02, high=0.05, steps=50), Pushforward(1)
    window = strategy.window(Window())
    with PoolSource(simulator, Buffer(Reservoir(256, 16)), window, cases=60, batch=4) as source:
        network = GridModel(lambda a, b, _: nn.Conv1d(a, b, 3, padding=1), simulator.spec, Window())
        settings = replace(SETTINGS, steps=40, batch=8)
        fitted = fit(network, source, settings, tmp_path, strategy=strategy, objective=mean_square)
    losses = [loss for _, loss in fitted.trained.losses]
    assert losses[-1] < losses[0]
    assert fitted.trained.steps == 40
