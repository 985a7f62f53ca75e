r"""Networks of other interfaces, called as `PointModel` calls networks: coordinates, values, quadrature weights, offsets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isocline.networks.neural_operator import MGNO, CloudBranch, DeepONet, LowRankOperator, nested_levels


class PointMGNO(nn.Module):
    """An `MGNO` called as `PointModel` calls networks: the levels are drawn from the points of each call.

    Args:
        network: the operator.
        sizes: nodes of a case at each level, as `spaced_levels` returns them.
        radii: at each level, in units of the coordinates.
        seed: draws the nodes.
    """

    def __init__(self, network: MGNO, sizes: Sequence[int], radii: Sequence[float], *, seed: int = 0) -> None:
        super().__init__()
        self.network, self.sizes, self.radii, self.seed = network, sizes, radii, seed

    def forward(self, coordinates: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Return (sum N, outputs), of what `GNO` takes."""
        levels = nested_levels(coordinates, weights, offsets, self.sizes, self.radii, rng=self.seed)
        found: Tensor = self.network(coordinates, values, levels)
        return found


class PointLowRank(nn.Module):
    """Layers of `LowRankOperator` between a lift and a projection: ``v <- act(W v + K v)`` (arXiv 2108.08481, section 4.2).

    Args:
        dimension: D, of space.
        inputs: channels of a.
        outputs: channels of u.
        width: channels inside.
        depth: number of layers.
        rank: of each kernel.
    """

    def __init__(
        self, dimension: int, inputs: int, outputs: int, *, width: int = 64, depth: int = 4, rank: int = 4
    ) -> None:
        super().__init__()
        known = dimension + inputs
        self.lift, self.project = nn.Linear(known, width), nn.Linear(width, outputs)
        self.linear = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.kernels = nn.ModuleList(LowRankOperator(known, width, rank=rank, width=width) for _ in range(depth))

    def forward(self, coordinates: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Return (sum N, outputs), of what `GNO` takes."""
        known = torch.cat([coordinates, values], 1)
        v = self.lift(known)
        for linear, kernel in zip(self.linear, self.kernels, strict=True):
            v = nn.functional.gelu(linear(v) + kernel(known, v, weights, offsets))
        output: Tensor = self.project(v)
        return output


class PointDeepONet(nn.Module):
    """A `DeepONet` with a `CloudBranch`, asked at the points of its input.

    Args:
        dimension: D, of space.
        inputs: channels of a.
        outputs: channels of u.
        basis: functions for each output.
        width: of branch and trunk.
    """

    def __init__(self, dimension: int, inputs: int, outputs: int, *, basis: int = 32, width: int = 128) -> None:
        super().__init__()
        branch = CloudBranch(dimension, inputs, basis * outputs, width=width)
        self.network = DeepONet(branch, dimension, outputs, basis=basis, width=width)

    def forward(self, coordinates: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Return (sum N, outputs), of what `GNO` takes."""
        found: Tensor = self.network((coordinates, values, weights, offsets), coordinates, offsets)
        return found
