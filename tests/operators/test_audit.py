import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.datasets.fields import Window
from isocline.networks import FNO
from isocline.operators import Channels, GridModel, audit, first_alias
from tests.operators.beds import N, Waves, spec

SOURCE = Waves(spec())
CHANNELS = Channels("state", "none")


class Shift(nn.Module):
    """Shifts by 1/32 of the circle: in wave numbers, which every grid understands, or by one point, which only one does."""

    def __init__(self, points: bool) -> None:
        super().__init__()
        self.points = points

    def forward(self, x: Tensor) -> Tensor:
        u = x[:, :1]
        if self.points:
            return u.roll(1, -1)
        k = torch.arange(u.shape[-1] // 2 + 1)
        return torch.fft.irfft(torch.fft.rfft(u) * torch.exp(-2j * math.pi * k / N), n=u.shape[-1])


def model(network: nn.Module) -> GridModel:
    return GridModel(lambda *_: network, SOURCE.spec, Window(), channels=CHANNELS)


def test_an_operator_of_functions_has_one_error_on_all_grids() -> None:
    found = audit(model(Shift(False)), SOURCE.batch(4, Window(1, 8)))
    assert [g.sizes for g in found.grids] == [(16,), (32,), (64,), (128,)]
    assert max(g.error.value for g in found.grids[1:]) < 1e-5
    assert max(g.aliasing for g in found.grids) < 1e-5
    assert all(g.wave is None for g in found.grids)
    assert found.alias is None


def test_a_stencil_of_points_is_found_out() -> None:
    found = audit(model(Shift(True)), SOURCE.batch(4, Window(1, 8)))
    errors = {g.sizes[0]: g for g in found.grids}
    assert errors[32].error.value < 1e-5
    assert errors[32].aliasing == 0
    assert errors[64].error.value > 0.1
    assert errors[64].wave == 2  # the power of its error is (2 pi k / 64)^2, above a hundredth from k = 2 on


class ShiftBy(nn.Module):
    """Shifts by as many 32nds of the circle as it is told frames to look ahead, or as `always` says."""

    def __init__(self, always: float | None = None) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        u, lead = x[:, :1], x[:, -1:, :1]
        by = lead if self.always is None else torch.full_like(lead, self.always)
        k = torch.arange(u.shape[-1] // 2 + 1)
        return torch.fft.irfft(torch.fft.rfft(u) * torch.exp(-2j * math.pi * k * by / N), n=u.shape[-1])


@pytest.mark.parametrize("always", [None, 1.0])
def test_the_same_time_is_reached_by_steps_of_several_lengths(always: float | None) -> None:
    channels = Channels("state", "none", leads=True)
    told = GridModel(lambda *_: ShiftBy(always), SOURCE.spec, Window(), channels=channels)
    steps = audit(told, SOURCE.batch(4, Window(1, 11))).steps
    assert [(s.frames, s.calls) for s in steps] == [(1, 8), (2, 4), (4, 2), (8, 1)]
    errors = [s.error.value for s in steps]
    assert errors[0] < 1e-5
    assert (max(errors) < 1e-5) == (always is None)  # one that is not told is right about its own step only
    assert audit(model(Shift(False)), SOURCE.batch(4, Window(1, 8))).steps == ()


def test_a_grid_that_is_too_coarse_is_reported_with_its_reason() -> None:
    torch.manual_seed(0)
    network = FNO(2, 1, (10,), width=4, depth=1)
    found = audit(model(network), SOURCE.batch(2, Window(1, 2)), factors=(0.5, 1))
    assert [g.sizes for g in found.grids] == [(32,)]
    ((sizes, reason),) = found.refused
    assert sizes == (16,)
    assert "too coarse for modes" in reason


def test_the_first_layer_that_aliases_is_named() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    layers = [("lift", nn.Conv1d(2, 3, 1)), ("square", Square()), ("last", nn.Conv1d(3, 1, 1))]
    torch.manual_seed(0)
    found = first_alias(model(nn.Sequential(OrderedDict(layers))), SOURCE.batch(2, Window()))
    assert found is not None
    name, gap = found
    assert name == "square (Square)"  # waves up to 11 square to 22, which 32 points do not hold
    assert gap > 0.05
    linear = nn.Sequential(OrderedDict([layers[0], layers[2]]))
    assert first_alias(model(linear), SOURCE.batch(2, Window())) is None


def test_the_growth_of_a_known_error_is_found() -> None:
    class Late(Shift):
        """A shift that is a little too far: its error grows linearly."""

        def forward(self, x: Tensor) -> Tensor:
            u = x[:, :1]
            k = torch.arange(u.shape[-1] // 2 + 1)
            return torch.fft.irfft(torch.fft.rfft(u) * torch.exp(-2j * math.pi * k / N * 1.002), n=u.shape[-1])

    found = audit(model(Late(False)), SOURCE.batch(4, Window(1, 16)), factors=(1,))
    assert found.growth == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(found.times, SOURCE.spec.dt * torch.arange(1, 17, dtype=torch.float64))


def test_one_case_is_too_few() -> None:
    with pytest.raises(InvalidInput, match="two cases"):
        audit(model(Shift(False)), SOURCE.batch(1, Window()))
