"""Bits per dimension: dequantised images of a known law cost its entropy."""

import math

import pytest
import torch
from scipy import stats

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import bits_per_dimension, dequantise

SPANS = [(-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("levels", [2, 256])
def test_the_bins_fill_the_span_and_give_the_pixel_back(span: tuple[float, float], levels: int) -> None:
    images = Stream(0).integers(levels, (50, 3, 4))
    x = dequantise(images, 1, levels=levels, span=span)
    unit = (x - span[0]) / (span[1] - span[0]) * levels
    assert torch.equal(unit.floor().long(), images)
    assert stats.kstest((unit - images).flatten().numpy(), stats.uniform.cdf).pvalue > 1e-3
    assert torch.equal(dequantise(images[20:], 1, levels=levels, span=span, first=20), x[20:])


@pytest.mark.parametrize("span", SPANS)
def test_a_law_that_is_flat_in_each_bin_costs_its_own_code_length(span: tuple[float, float]) -> None:
    """``log p(x) = log P(k) - log w`` for each pixel, so the bound is an equality and the unit of the model is gone."""
    levels, shape = 8, (200, 5)
    law = torch.softmax(Stream(0, "law").normal((levels,), dtype=torch.float64), 0)
    pixels = torch.searchsorted(law.cumsum(0)[:-1], Stream(0, "pixels").uniform(shape, dtype=torch.float64))
    x = dequantise(pixels, 2, levels=levels, span=span)
    width = (span[1] - span[0]) / levels
    density = torch.log(law[((x - span[0]) / width).long()] / width).sum(1)
    found = bits_per_dimension(density, 5, levels=levels, span=span)
    code = -torch.log2(law[pixels]).mean(1)
    assert found.value == pytest.approx(float(code.mean()), rel=1e-12)
    assert found.n == 200
    entropy = -float((law * torch.log2(law)).sum())
    assert found.low < entropy < found.high
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 199) * float(code.std()) / math.sqrt(200))


def test_any_other_density_costs_more_by_its_divergence() -> None:
    """Uniform pixels under a normal density in [-1, 1]: ``8 + KL / log 2`` bits, the integral by a fine sum."""
    images = Stream(0).integers(256, (4000, 4))
    law = torch.distributions.Normal(0.3, torch.tensor(0.8, dtype=torch.float64))
    found = bits_per_dimension(law.log_prob(dequantise(images, 1)).sum(1), 4)
    line = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000 - 1
    divergence = float((math.log(0.5) - law.log_prob(line)).mean())
    assert divergence > 0.05
    assert found.low < 8 + divergence / math.log(2) < found.high


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"only integer images are dequantised, got torch\.float32"):
        dequantise(torch.zeros(2, 3), 0)
    for pixel in (-1, 256):
        with pytest.raises(InvalidInput, match=r"pixels must lie in 0\.\.255; name the number of levels"):
            dequantise(torch.tensor([[pixel]]), 0)
    with pytest.raises(InvalidInput, match="needs two values or more"):
        bits_per_dimension(torch.zeros(1), 3)
