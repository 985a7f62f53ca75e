r"""A small U-Net for images: residual blocks with FiLM conditioning on time and class, attention at the lowest resolution.

The image is cut into ``patch x patch`` pixels (space to depth) before the first convolution, which makes the network fast
on a CPU: most of its multiplications happen on grids of 14 x 14 and 7 x 7 for 28 x 28 images.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, require

GROUPS = 8


@dataclass(frozen=True)
class UNetShape:
    """The numbers that define a `UNet`.

    Args:
        channels: image channels.
        side: height and width of the images it was made for.
        patch: side of the pixel blocks folded into channels.
        widths: channels at each resolution, each half as fine as the one before; multiples of 8.
        blocks: residual blocks at each resolution on the way down, and as many on the way up.
        middle: residual blocks at the lowest resolution.
        heads: attention heads at the lowest resolution.
        embedding: width of the time and class embedding.
        classes: number of classes; 0 for an unconditional network.
    """

    channels: int = 1
    side: int = 28
    patch: int = 2
    widths: tuple[int, ...] = (32, 128)
    blocks: int = 1
    middle: int = 2
    heads: int = 4
    embedding: int = 128
    classes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        require(all(w % GROUPS == 0 for w in self.widths), f"U-Net widths must be multiples of {GROUPS}: {self.widths}")
        require(self.widths[-1] % self.heads == 0, f"{self.heads} heads do not divide the width {self.widths[-1]}")

    def as_dict(self) -> dict[str, Any]:
        """Return the shape as plain data for a file."""
        return asdict(self)


class UNet(nn.Module):
    """Maps images (B, C, H, W), times (B,) and class labels (B,) to images of the same shape.

    Labels are integers in ``[0, classes)``; the value ``classes`` (or no labels) stands for "no class". The output layer
    starts at zero. ``H`` and ``W`` must be multiples of ``patch * 2 ** (len(widths) - 1)``.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        width, embedding = shape.widths, shape.embedding
        folded = shape.channels * shape.patch**2
        self.embed = Embedding(embedding, shape.classes)
        self.first = nn.Conv2d(folded, width[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for fine, coarse in itertools.pairwise(width):
            self.down.append(_stage([fine] * shape.blocks, fine, embedding))
            self.down.append(nn.Conv2d(fine, coarse, 2, stride=2))
            self.up.insert(0, _stage([2 * fine] * shape.blocks, fine, embedding))
            self.up.insert(0, nn.Conv2d(coarse, 4 * fine, 1))
        self.middle = _stage([width[-1]] * shape.middle, width[-1], embedding)
        self.attention = Attention(width[-1], shape.heads)
        self.last_norm = nn.GroupNorm(GROUPS, width[0])
        self.last = nn.Conv2d(width[0], folded, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the network's output (B, C, H, W)."""
        self._check(x)
        code = self.embed(time, label)
        h, skips = self.first(F.pixel_unshuffle(x, self.shape.patch)), []
        for stage, shrink in zip(self.down[0::2], self.down[1::2], strict=True):
            for block in stage:  # type: ignore[attr-defined]
                h = block(h, code)
                skips.append(h)
            h = shrink(h)
        for i, block in enumerate(self.middle):
            h = block(h, code)
            h = self.attention(h) if i == 0 else h
        for grow, stage in zip(self.up[0::2], self.up[1::2], strict=True):
            h = F.pixel_shuffle(grow(h), 2)
            for block in stage:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), code)
        return F.pixel_shuffle(self.last(F.silu(self.last_norm(h))), self.shape.patch)

    def _check(self, x: Tensor) -> None:
        unit = self.shape.patch * 2 ** (len(self.shape.widths) - 1)
        if x.ndim != 4 or x.shape[1] != self.shape.channels or x.shape[2] % unit or x.shape[3] % unit:
            raise InvalidInput(
                f"this U-Net takes images (B, {self.shape.channels}, H, W) with H and W multiples of {unit}, "
                f"got shape {tuple(x.shape)}"
            )


class Embedding(nn.Module):
    """Sinusoidal features of the time plus a learned class vector, through a two-layer network."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width, self.classes = width, classes
        self.network = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.label = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, time: Tensor, label: Tensor | None) -> Tensor:
        """Return the code (B, width)."""
        steps = torch.arange(self.width // 2, device=time.device, dtype=time.dtype)
        frequency = torch.exp(steps * (-math.log(100.0) / max(self.width // 2 - 1, 1))) * 16
        angle = time[:, None] * frequency
        code = torch.cat([torch.cos(angle), torch.sin(angle)], dim=1)
        if self.label is not None:
            none = torch.full(time.shape, self.classes, device=time.device, dtype=torch.long)
            code = code + self.label(none if label is None else label)
        return self.network(code)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions; the second normalisation is scaled and shifted by the code."""

    def __init__(self, width_in: int, width_out: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, width_in), nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, width_out), nn.Conv2d(width_out, width_out, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width_out)
        self.skip = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Return (B, width_out, H, W) for `x` (B, width_in, H, W) and `code` (B, embedding)."""
        scale, shift = self.film(code)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return self.skip(x) + self.conv2(F.silu(torch.addcmul(shift, h, 1 + scale)))


class Attention(nn.Module):
    """Self-attention over all positions, with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, width)
        self.mix_in, self.mix_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.zeros_(self.mix_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x` (B, C, H, W)."""
        batch, width, height, breadth = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        parts = self.mix_in(tokens).view(batch, height * breadth, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.mix_out(mixed).transpose(1, 2).reshape(x.shape)


def _stage(inputs: list[int], output: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(width, output, embedding) for width in inputs)
