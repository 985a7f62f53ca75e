r"""From log densities to bits: the code length of images whose pixels are integers.

A pixel of value ``k`` stands for the bin ``[k, k + 1) w`` of width ``w = (b - a) / levels`` in the model's scale ``[a, b]``. With
uniform noise in the bin, Jensen's inequality gives ``log2 P(k) >= E log2 (p(x) w^d)`` (Theis, van den Oord and Bethge, arXiv
1511.01844), so

    bits per dimension = -(log p(x) + d log w) / (d log 2)

is in the mean an upper bound of the model's code length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Estimate
from isocline._core.stream import Stream, as_stream
from isocline.metrics.mean import mean_estimate


def dequantise(
    images: Tensor, rng: Stream | int, *, levels: int = 256, span: tuple[float, float] = (-1.0, 1.0), first: int = 0
) -> Tensor:
    """Return `images` (B, *) of integers from 0 to ``levels - 1`` as float64 with uniform noise in each level's bin.

    Args:
        images: (B, *) of an integer dtype.
        rng: stream or seed of the noise.
        levels: number of values a pixel can have.
        span: the interval that the bins fill, in the model's scale.
        first: index of the first image.

    Examples:
        >>> x = dequantise(torch.tensor([[0, 255]]), rng=0)
        >>> [-1 < x[0, 0] < -1 + 2 / 256, 1 - 2 / 256 < x[0, 1] < 1]
        [tensor(True), tensor(True)]
    """
    require(not images.is_floating_point(), f"only integer images are dequantised, got {images.dtype}")
    inside = images.numel() > 0 and int(images.min()) >= 0 and int(images.max()) < levels
    require(inside, f"pixels must lie in 0..{levels - 1}; name the number of levels")
    noise = as_stream(rng, "dequantise").uniform(tuple(images.shape), first=first, dtype=torch.float64)
    return span[0] + (span[1] - span[0]) / levels * (images + noise)


def bits_per_dimension(
    log_density: Tensor,
    dimension: int,
    *,
    levels: int = 256,
    span: tuple[float, float] = (-1.0, 1.0),
    level: float = 0.95,
) -> Estimate:
    """Return the mean code length of images in bits for each coordinate, with its interval over the images.

    From log densities of dequantised images it is an upper bound (Theis et al., arXiv 1511.01844). The interval is that of the
    choice of images; the error of each log density comes on top.

    Args:
        log_density: (B,) in nats, of images made by `dequantise` with the same `levels` and `span`.
        dimension: coordinates of an image.
        levels: number of values a pixel can have.
        span: the interval that the bins fill.
        level: coverage of the interval.

    Examples:
        >>> flat = torch.full((3,), -10 * math.log(2.0), dtype=torch.float64)  # uniform in [-1, 1]^10
        >>> round(bits_per_dimension(flat, 10).value, 9)
        8.0
    """
    bins = dimension * math.log((span[1] - span[0]) / levels)
    return mean_estimate(-(log_density.double() + bins) / (dimension * math.log(2)), level)
