"""Several small networks trained at once: one batched product for each layer instead of one product for each network.

A batch of ``members * n`` samples holds those of member 0 first, then those of member 1, and so on. Members share nothing: the
loss is a mean over samples, so each gets its own gradient (times 1 / members, which Adam does not see), and `member_streams`
gives each its own initial weights, data and noise, whatever the number of members.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isocline._core.stream import Stream


class StackedMLP(nn.Module):
    """`members` fully connected networks ``(x, time) -> output``, called with the members' samples one after the other.

    Initial weights are uniform in ``+- 1 / sqrt(inputs of the layer)``, as those of `torch.nn.Linear`.
    """

    def __init__(self, members: int, inputs: int, outputs: int, *, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.members = members
        sizes = list(pairwise([inputs, *[width] * depth, outputs]))
        streams = [Stream(member, "weights") for member in range(members)]
        self.weights = nn.ParameterList([_uniform(streams, f"weight {i}", a, (a, b)) for i, (a, b) in enumerate(sizes)])
        self.biases = nn.ParameterList([_uniform(streams, f"bias {i}", a, (1, b)) for i, (a, b) in enumerate(sizes)])

    def forward(self, *parts: Tensor) -> Tensor:
        """Return (members n, outputs) for parts of the input, (members n, k) or (members n,) each."""
        x = torch.cat([part[:, None] if part.ndim == 1 else part for part in parts], dim=1)
        h = x.view(self.members, -1, x.shape[1])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, F.silu(h) if i else h, weight)
        return h.flatten(0, 1)


def _uniform(streams: list[Stream], name: str, fan_in: int, shape: tuple[int, int]) -> nn.Parameter:
    return nn.Parameter(torch.stack([2 * s.child(name).uniform(shape) - 1 for s in streams]) / math.sqrt(fan_in))


def drawn_from(sets: Tensor, name: str = "rows") -> Callable[[int, int, int], Tensor]:
    """Return ``(n, step, first) -> (n, *)``: rows drawn with replacement from each member's own set (members, N, *)."""
    members, size = sets.shape[:2]
    streams = [Stream(member, name) for member in range(members)]

    def take(n: int, step: int, first: int) -> Tensor:
        rows = [stream.integers(size, (n // members,), step=step) for stream in streams]
        return torch.cat([data[index] for data, index in zip(sets, rows, strict=True)])

    return take
