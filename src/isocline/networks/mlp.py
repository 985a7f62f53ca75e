"""Fully connected networks: a plain one, and one that denoises vectors."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from isocline._core.errors import require


class MLP(nn.Sequential):
    """A fully connected network.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        width: size of each hidden layer.
        depth: number of hidden layers.
        activation: makes the non-linearity of each hidden layer.

    Examples:
        >>> MLP(2, 1, width=8)(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 128,
        depth: int = 3,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        require(min(inputs, outputs, width, depth) >= 1, "an MLP needs inputs, outputs, width and depth of at least 1")
        sizes = [inputs, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), activation())]
        super().__init__(*hidden, nn.Linear(width, outputs))


class DenoisingMLP(nn.Module):
    """A network for vectors ``x`` (B, d): called as ``network(x, time)`` or ``network(x, time, label)``, returns (B, d).

    The time is one more input, so tell it something of moderate size (``log t``, ``log s / 4``), not an index up to 1000.

    Args:
        dimension: ``d``.
        width: size of each hidden layer.
        depth: number of hidden layers.
        classes: number of labels; one more, ``classes`` itself, means no label. None where it is 0.
    """

    def __init__(self, dimension: int, *, width: int = 128, depth: int = 3, classes: int = 0) -> None:
        super().__init__()
        self.build: dict[str, int] = {"dimension": dimension, "width": width, "depth": depth, "classes": classes}
        self.classes = classes
        extra = classes + 1 if classes else 0
        self.layers = MLP(dimension + 1 + extra, dimension, width=width, depth=depth)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the raw output (B, d) for states `x` (B, d), times (B,) and labels (B,)."""
        parts = [x, time[:, None]]
        if self.classes:
            label = torch.full_like(time, self.classes, dtype=torch.int64) if label is None else label
            parts.append(nn.functional.one_hot(label, self.classes + 1).to(x.dtype))
        output: Tensor = self.layers(torch.cat(parts, dim=1))
        return output
