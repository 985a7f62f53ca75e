r"""The classical U-Net for steppers on grids, with residual blocks and a condition.

    h = conv(act(norm(x))) ,      y = conv(act(shift(norm(h), c))) + W x

on grids that are halved between levels on the way down; on the way up each level sees what left it on the way down (Ronneberger,
Fischer, Brox, arXiv 1505.04597; as a neural PDE solver: Gupta and Brandstetter, arXiv 2209.15616). The U-Net of this room for
images, `UNet`, is for denoisers of square pictures with classes: it has attention, and no periodic edges.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from isocline._core.errors import require
from isocline.networks.grid import Embedding, Shift, Stage, UShaped, conv, doubled, halved


class GridUNet(UShaped):
    """Maps fields on a grid to fields on the same grid.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        axes: of space, 1 to 3.
        width: channels at the finest level, a multiple of `groups`; every level has twice as many as the one above, up to 4 times.
        levels: grids; the coarsest has ``1 / 2^(levels - 1)`` of the points of an axis.
        blocks: residual blocks a level, down and up.
        conditions: length of the condition; 0 for none.
        periodic: whether edges wrap around; zeros lie outside otherwise.
        groups: of the group norms.

    Raises:
        InvalidInput: in `forward`, a grid that cannot be halved so often, or a condition of another length.

    Source: arXiv 1505.04597.

    Examples:
        >>> import torch
        >>> GridUNet(3, 1, 1, width=8)(torch.zeros(2, 3, 64)).shape
        torch.Size([2, 1, 64])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: int,
        *,
        width: int = 32,
        levels: int = 4,
        blocks: int = 1,
        conditions: int = 0,
        periodic: bool = True,
        groups: int = 8,
    ) -> None:
        super().__init__()
        require(1 <= axes <= 3, f"a grid has 1 to 3 axes, got {axes}")
        require(width % groups == 0, f"the width {width} is no multiple of {groups} groups")
        require(min(inputs, outputs, levels, blocks) >= 1, "a U-Net needs channels, levels and blocks of at least 1")
        self.levels, self.conditions = levels, conditions
        widths = [width * min(2**k, 4) for k in range(levels)]
        told = 4 * width if conditions else 0
        self.embed = Embedding(conditions, told) if conditions else None

        def block(a: int, b: int) -> ResidualBlock:
            return ResidualBlock(axes, a, b, told, periodic, groups)

        self.first = conv(axes, inputs, width, 3, periodic=periodic)
        self.down = nn.ModuleList(Stage(block(w, w) for _ in range(blocks)) for w in widths)
        self.coarser = nn.ModuleList(halved(axes, a, b) for a, b in pairwise(widths))
        self.finer = nn.ModuleList(doubled(axes, b, a) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Stage(block(2 * w if k == 0 else w, w) for k in range(blocks)) for w in widths[:-1])
        self.join = nn.ModuleList(nn.Identity() for _ in widths[:-1])
        self.last = nn.Sequential(
            nn.GroupNorm(groups, width), nn.GELU(), conv(axes, width, outputs, 3, periodic=periodic)
        )


class ResidualBlock(nn.Module):
    """Two convolutions of three points beside a linear path.

    Args:
        axes: of space.
        inputs: channels of the input.
        outputs: channels of the output.
        conditions: length of the features of the condition; 0 for none.
        periodic: whether edges wrap around.
        groups: of the norms.
    """

    def __init__(self, axes: int, inputs: int, outputs: int, conditions: int, periodic: bool, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv1 = conv(axes, inputs, outputs, 3, periodic=periodic)
        self.conv2 = conv(axes, outputs, outputs, 3, periodic=periodic)
        self.shift = Shift(conditions, outputs)
        self.straight = nn.Identity() if inputs == outputs else conv(axes, inputs, outputs, 1, periodic=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return ``(B, outputs, *S)`` for x ``(B, inputs, *S)``."""
        h = self.conv1(nn.functional.gelu(self.norm1(x)))
        h = self.conv2(nn.functional.gelu(self.shift(self.norm2(h), condition)))
        found: Tensor = h + self.straight(x)
        return found
