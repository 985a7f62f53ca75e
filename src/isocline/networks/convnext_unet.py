r"""A U-Net of ConvNeXt blocks (Liu et al., arXiv 2201.03545), a baseline of The Well (Ohana et al., arXiv 2412.00568).

    y = x + gamma W_2 gelu(W_1 shift(norm(D x), c))

D is a convolution of seven points an axis, one kernel for each channel; the norm is over the channels of a point; W_1 widens four
times and W_2 narrows again, both at each point; gamma starts small, so that a block starts as the identity.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.grid import Embedding, Shift, Stage, UShaped, conv, doubled, halved

METHOD = Method(
    "convnext-unet",
    "ConvNeXt U-Net",
    "The Well: a Large-Scale Collection of Diverse Physics Simulations for Machine Learning",
    "Ohana et al.",
    2024,
    "2412.00568",
    room="networks",
    when="Steppers on regular grids with structures of many sizes, periodic or with walls.",
)
SCALE = 1e-6  # where gamma starts


@METHOD.variant()
class ConvNeXtUNet(UShaped):
    """Maps fields on a grid to fields on the same grid.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        axes: of space, 1 to 3.
        width: channels at the finest level; every level has twice as many as the one above.
        levels: grids; the coarsest has ``1 / 2^(levels - 1)`` of the points of an axis.
        blocks: a level, down and up.
        conditions: length of the condition; 0 for none.
        periodic: whether edges wrap around; zeros lie outside otherwise.
        kernel: points an axis of the convolutions, odd.

    Raises:
        InvalidInput: in `forward`, a grid that cannot be halved so often, or a condition of another length.

    Source: arXiv 2412.00568, arXiv 2201.03545.

    Examples:
        >>> ConvNeXtUNet(3, 1, 2, width=8, levels=3)(torch.zeros(2, 3, 16, 32)).shape
        torch.Size([2, 1, 16, 32])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: int,
        *,
        width: int = 32,
        levels: int = 4,
        blocks: int = 2,
        conditions: int = 0,
        periodic: bool = True,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        require(1 <= axes <= 3, f"a grid has 1 to 3 axes, got {axes}")
        require(kernel % 2 == 1, f"a kernel has an odd number of points, got {kernel}")
        require(
            min(inputs, outputs, levels, blocks, width) >= 1, "a U-Net needs channels, levels and blocks of at least 1"
        )
        self.levels, self.conditions, self.least = levels, conditions, kernel // 2
        widths = [width * 2**k for k in range(levels)]
        told = 4 * width if conditions else 0
        self.embed = Embedding(conditions, told) if conditions else None

        def stage(channels: int) -> Stage:
            return Stage(ConvNeXtBlock(axes, channels, told, periodic, kernel) for _ in range(blocks))

        self.first = conv(axes, inputs, width, 3, periodic=periodic)
        self.down = nn.ModuleList(stage(w) for w in widths)
        self.coarser = nn.ModuleList(nn.Sequential(ChannelNorm(a), halved(axes, a, b)) for a, b in pairwise(widths))
        self.finer = nn.ModuleList(nn.Sequential(ChannelNorm(b), doubled(axes, b, a)) for a, b in pairwise(widths))
        self.join = nn.ModuleList(conv(axes, 2 * w, w, 1, periodic=False) for w in widths[:-1])
        self.up = nn.ModuleList(stage(w) for w in widths[:-1])
        self.last = nn.Sequential(ChannelNorm(width), conv(axes, width, outputs, 3, periodic=periodic))


class ConvNeXtBlock(nn.Module):
    """One block; the identity at the start up to its small scale.

    Args:
        axes: of space.
        channels: C.
        conditions: length of the features of the condition; 0 for none.
        periodic: whether edges wrap around.
        kernel: points an axis.
    """

    def __init__(self, axes: int, channels: int, conditions: int, periodic: bool, kernel: int = 7) -> None:
        super().__init__()
        self.each = conv(axes, channels, channels, kernel, periodic=periodic, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.shift = Shift(conditions, channels)
        self.widen, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), SCALE))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return ``(B, C, *S)`` for x ``(B, C, *S)``."""
        h = self.norm(self.each(x).movedim(1, -1))
        if self.shift.linear is not None:
            h = self.shift(h.movedim(-1, 1), condition).movedim(1, -1)
        h = self.narrow(nn.functional.gelu(self.widen(h)))
        return x + (self.scale * h).movedim(-1, 1)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every point.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, *S)`` for x ``(B, C, *S)``."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)
