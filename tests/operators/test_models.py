from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, Mismatch, NotFinite
from isocline.datasets.fields import FieldSpec, Window
from isocline.operators import Channels, GridModel, Normaliser
from tests.operators.beds import Told, Waves, convolution, spec

SOURCE = Waves(spec())


class Zero(nn.Module):
    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.inputs
        return x.new_zeros(len(x), self.outputs, *x.shape[2:])


def normaliser(window: Window) -> Normaliser:
    return Normaliser.of(SOURCE.spec, [SOURCE.batch(16, window, step=k) for k in range(4)])


def test_the_normaliser_has_the_moments_of_all_batches_together() -> None:
    window = Window(2, 3)
    found = normaliser(window)
    batches = [SOURCE.batch(16, window, step=k) for k in range(4)]
    frames = torch.cat([torch.cat([b.x, b.target], 1) for b in batches]).double()
    torch.testing.assert_close(found.field_mean, frames.mean().reshape(1).float())
    torch.testing.assert_close(found.field_std, frames.std(unbiased=False).reshape(1).float())
    torch.testing.assert_close(found.difference_std, frames.diff(dim=1).square().mean().sqrt().reshape(1).float())
    assert found.constant_std.tolist() == [1.0]  # a constant that never varies keeps its scale


def test_the_normaliser_names_a_channel_that_is_not_finite() -> None:
    batch = SOURCE.batch(2, Window())
    with pytest.raises(NotFinite, match="waves, fields: channel 0"):
        Normaliser.of(SOURCE.spec, [replace(batch, x=batch.x.log())])


@pytest.mark.parametrize("parameters", ["channels", "none"])
@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("window", [Window(1, 1), Window(3, 2)])
def test_a_network_that_says_nothing_keeps_the_last_frame(window: Window, coordinates: bool, parameters: str) -> None:
    channels = Channels("difference", parameters, coordinates)  # type: ignore[arg-type]
    model = GridModel(Zero, SOURCE.spec, window, normaliser(window), channels)
    batch = SOURCE.batch(4, window)
    torch.testing.assert_close(model(batch), batch.x[:, -1:].expand(-1, window.future, -1, -1))


def test_a_network_that_says_nothing_of_the_state_predicts_the_mean() -> None:
    window = Window()
    model = GridModel(Zero, SOURCE.spec, window, normaliser(window), Channels("state"))
    batch = SOURCE.batch(4, window)
    torch.testing.assert_close(model(batch), model.normaliser.field_mean.expand(4, 1, 32, 1))


@pytest.mark.parametrize("predicts", ["state", "difference"])
def test_normalised_is_the_inverse_of_frames(predicts: str) -> None:
    window = Window(2, 3)
    model = GridModel(convolution, SOURCE.spec, window, normaliser(window), Channels(predicts))  # type: ignore[arg-type]
    batch = SOURCE.batch(4, window)
    torch.testing.assert_close(model.frames(model.normalised(batch.target, batch), batch), batch.target)


def test_a_parameter_reaches_the_network_either_way() -> None:
    window = Window()
    batch = SOURCE.batch(4, window)
    other = replace(batch, parameters=batch.parameters + 1)
    for make, how in ((convolution, "channels"), (Told, "vector")):
        model = GridModel(make, SOURCE.spec, window, normaliser(window), Channels(parameters=how))  # type: ignore[arg-type]
        assert not torch.allclose(model(batch), model(other))
    assert torch.equal(*(GridModel(Zero, SOURCE.spec, window)(b) for b in (batch, other)))


def test_without_coordinates_a_model_follows_shifts_and_with_them_it_does_not() -> None:
    window = Window()
    batch = SOURCE.batch(4, window)
    shifted = replace(batch, x=batch.x.roll(5, 2))
    plain = GridModel(convolution, SOURCE.spec, window)
    torch.testing.assert_close(plain(shifted), plain(batch).roll(5, 2))
    placed = GridModel(convolution, SOURCE.spec, window, channels=Channels(coordinates=True))
    assert not torch.allclose(placed(shifted), placed(batch).roll(5, 2))


def test_weights_bring_their_normaliser() -> None:
    window = Window()
    model = GridModel(convolution, SOURCE.spec, window, normaliser(window))
    other = GridModel(convolution, SOURCE.spec, window)
    other.load_state_dict(model.state_dict())
    batch = SOURCE.batch(4, window)
    assert torch.equal(model(batch), other(batch))


def test_other_fields_and_another_past_are_refused() -> None:
    model = GridModel(convolution, SOURCE.spec, Window())
    batch = SOURCE.batch(2, Window())
    renamed = replace(SOURCE.spec, fields=(FieldSpec("h"), FieldSpec("k", varies=False)))
    with pytest.raises(Mismatch, match=r"waves has the fields u, k \(constant\), but waves has h"):
        model(replace(batch, spec=renamed))
    with pytest.raises(Mismatch, match="given 1 past frames, the batch has 2"):
        model(SOURCE.batch(2, Window(2)))
    with pytest.raises(InvalidInput, match="needs a past frame"):
        GridModel(convolution, SOURCE.spec, Window(0), channels=Channels("difference"))
