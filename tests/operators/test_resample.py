import math

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets.fields import Window
from isocline.networks.resize import resampled
from isocline.operators.resample import at_resolution
from tests.operators.beds import Waves, spec


def wave(n: int, k: int) -> torch.Tensor:
    return torch.sin(k * torch.arange(n, dtype=torch.float64) * 2 * math.pi / n + 0.3)


@pytest.mark.parametrize(("old", "new"), [(16, 32), (32, 16), (15, 40), (40, 15), (16, 17)])
def test_waves_that_both_grids_hold_are_exact(old: int, new: int) -> None:
    torch.testing.assert_close(resampled(wave(old, 5), [new], 0), wave(new, 5))


def test_high_waves_are_cut_and_not_folded() -> None:
    assert float(resampled(wave(32, 10), [16], 0).abs().max()) < 1e-12


def test_two_axes_and_channels() -> None:
    u = torch.einsum("x,y->xy", wave(16, 2), wave(12, 3))[None, ..., None]
    expected = torch.einsum("x,y->xy", wave(20, 2), wave(24, 3))[None, ..., None]
    torch.testing.assert_close(resampled(u, [20, 24], 1), expected)


@pytest.mark.parametrize("n", [24, 64])
def test_a_batch_on_another_grid_is_what_the_source_has_there(n: int) -> None:
    window = Window(2, 3)
    found, expected = at_resolution(Waves(spec()).batch(3, window), [n]), Waves(spec(n)).batch(3, window)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.target, expected.target, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.coordinates, expected.coordinates)
    assert found.spec.resolution == (n,)


def test_walls_are_refused() -> None:
    from dataclasses import replace

    batch = Waves(spec()).batch(1, Window())
    with pytest.raises(InvalidInput, match="x is not"):
        at_resolution(replace(batch, spec=replace(batch.spec, boundary=("wall",))), [16])
