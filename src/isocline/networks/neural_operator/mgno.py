r"""The multipole graph neural operator (Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart, Anandkumar, arXiv 2006.09535).

Nested node sets ``J_1 > ... > J_L``, of which J_1 are all points and each other one is a random part of the one before, carry
features on the way down (v) and on the way up (u). A V-cycle is

    down:   v_1 = u_1 ,     v_{l+1} = act(u_{l+1} + K_{l+1,l} v_l)
    up:     u_L = act(W_L v_L + K_{L,L} v_L) ,     u_l = act(W_l v_l + K_{l,l} v_l + K_{l,l+1} u_{l+1})

and every K is an integral over the nodes of its source level, cut off at a radius: r_l within level l, r_{l+1} between l and l + 1.
Far points meet on coarse levels, where nodes are few. All cycles share their kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.networks.mlp import MLP
from isocline.networks.neural_operator.kernel_integral import kernel_integral
from isocline.networks.neural_operator.neighbours import within_radius

METHOD = Method(
    "mgno",
    "multipole graph neural operator",
    "Multipole Graph Neural Operator for Parametric Partial Differential Equations",
    "Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart, Anandkumar",
    2020,
    "2006.09535",
    room="networks",
    when="Maps between functions on many scattered points where far points matter: the edges grow linearly with the points.",
)


@dataclass(frozen=True, eq=False)
class Level:
    """One node set of all cases and its edges; nodes of a level are counted from zero.

    Args:
        nodes: indices into the points, (J,).
        weights: quadrature weights of the nodes, (J,).
        within: target and source of the edges between nodes of this level, ``(2, E)``.
        between: target in the next finer level and source in this one, ``(2, E)``; no edges at the finest level.
    """

    nodes: Tensor
    weights: Tensor
    within: Tensor
    between: Tensor


def spaced_levels(points: int, volume: float, dimension: int, *, levels: int = 3) -> tuple[list[int], list[float]]:
    """Return sizes of the node sets, each a quarter of the one before, and radii of two mean spacings of the nodes.

    So a node has about as many neighbours on every level, and the number of edges is linear in that of the points.

    Args:
        points: typical number of points of a case.
        volume: of the domain.
        dimension: D, of space.
        levels: L.

    Raises:
        InvalidInput: no points, no volume, no dimension or no level.
    """
    require(min(points, dimension, levels) >= 1 and volume > 0, "points, volume, dimension and levels must be positive")
    sizes = [max(1, points // 4**level) for level in range(levels)]
    return sizes, [float(2 * (volume / size) ** (1 / dimension)) for size in sizes]


def nested_levels(
    coordinates: Tensor,
    weights: Tensor,
    offsets: Tensor,
    sizes: Sequence[int],
    radii: Sequence[float],
    *,
    rng: Stream | int,
    step: int = 0,
) -> list[Level]:
    """Return the levels of a batch, finest first.

    The nodes are a function of the seed, the step and the number of points of the case: a case has the same nodes in every batch.
    The weight of a coarse node is the sum of those of the finer nodes nearest to it; the sum over a case stays.

    Args:
        coordinates: points of all cases, ``(sum N, D)``.
        weights: quadrature weights, (sum N,).
        offsets: where each case begins, and the end, ``(B + 1,)``.
        sizes: nodes of a case at each level; the first is ignored, as the finest level has all points.
        radii: r at each level, in units of the coordinates.
        rng: draws the nodes.
        step: another step draws other nodes, for example the number of the epoch.

    Raises:
        InvalidInput: sizes and radii of different number, sizes that grow or end below one, radii that are not positive, or offsets
            that do not cover the points.
    """
    require(len(sizes) == len(radii) >= 1, f"each level needs a size and a radius, got {len(sizes)} and {len(radii)}")
    shrinking = all(coarse <= fine for fine, coarse in pairwise(sizes)) and sizes[-1] >= 1
    require(shrinking, f"sizes must not grow from level to level nor end below 1, got {list(sizes)}")
    stream = as_stream(rng, "nodes")
    bounds = offsets.tolist()
    orders = [stream.permutation(b - a, step=step) + a for a, b in pairwise(bounds)]
    nodes, starts = torch.arange(len(coordinates), device=coordinates.device), offsets
    none = torch.zeros(2, 0, dtype=torch.int64, device=coordinates.device)
    result = [Level(nodes, weights, within_radius(coordinates, offsets, radii[0]), none)]
    for size, radius in zip(sizes[1:], radii[1:], strict=True):
        drawn = [order[:size] for order in orders]
        finer, finer_starts = result[-1], starts
        nodes = torch.cat(drawn).to(coordinates.device)
        starts = torch.tensor([0, *np.cumsum([len(part) for part in drawn]).tolist()], device=offsets.device)
        x, y = coordinates[finer.nodes], coordinates[nodes]
        near, between = _across(x, finer_starts, y, starts, radius)
        summed = weights.new_zeros(len(nodes)).index_add(0, near, finer.weights)
        result.append(Level(nodes, summed, within_radius(y, starts, radius), between))
    return result


def _across(x: Tensor, starts: Tensor, y: Tensor, coarse: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Return the nearest coarse node of each fine one, and the pairs of fine and coarse nodes at most `radius` apart."""
    fine, few = (part.detach().cpu().double().numpy() for part in (x, y))
    nearest, pairs = [np.zeros(0, dtype=np.int64)], [np.zeros((2, 0), dtype=np.int64)]
    for (a, b), (c, d) in zip(pairwise(starts.tolist()), pairwise(coarse.tolist()), strict=True):
        if b > a:
            tree = cKDTree(few[c:d])
            nearest.append(tree.query(fine[a:b])[1] + c)
            found = cKDTree(fine[a:b]).sparse_distance_matrix(tree, radius, output_type="ndarray")
            pairs.append(np.stack([found["i"] + a, found["j"] + c]))
    return torch.from_numpy(np.concatenate(nearest)).to(x.device), torch.from_numpy(np.concatenate(pairs, 1)).to(
        x.device
    )


class _Kernel(nn.Module):
    def __init__(self, features: int, width: int, kernel_width: int, *, diagonal: bool) -> None:
        super().__init__()
        self.shape = (width,) if diagonal else (width, width)
        size = width if diagonal else width * width
        self.network = MLP(2 * features, size, width=kernel_width, depth=2, activation=nn.GELU)

    def forward(self, targets: Tensor, sources: Tensor, edges: Tensor) -> Tensor:
        pairs = torch.cat([targets[edges[0]], sources[edges[1]]], dim=1)
        kernel: Tensor = self.network(pairs).unflatten(1, self.shape)
        return kernel


@METHOD.variant()
class MGNO(nn.Module):
    """A multipole graph neural operator.

    Args:
        dimension: D, of space.
        inputs: channels of a.
        outputs: channels of u.
        levels: L.
        width: channels inside.
        cycles: number of V-cycles.
        kernel_width: hidden size of the kernels' networks.
        diagonal: whether the kernels are diagonals instead of full matrices.

    Raises:
        InvalidInput: fewer than one level or cycle.
    """

    def __init__(
        self,
        dimension: int,
        inputs: int,
        outputs: int,
        *,
        levels: int = 3,
        width: int = 64,
        cycles: int = 4,
        kernel_width: int = 64,
        diagonal: bool = True,
    ) -> None:
        super().__init__()
        require(min(levels, cycles) >= 1, f"an MGNO needs at least one level and cycle, got {levels} and {cycles}")
        self.cycles = cycles
        features = dimension + inputs

        def kernels(count: int) -> nn.ModuleList:
            return nn.ModuleList(_Kernel(features, width, kernel_width, diagonal=diagonal) for _ in range(count))

        self.lift = nn.Linear(features, width)
        self.within, self.down, self.up = kernels(levels), kernels(levels - 1), kernels(levels - 1)
        self.linear = nn.ModuleList(nn.Linear(width, width) for _ in range(levels))
        self.project = MLP(width, outputs, width=width, depth=1, activation=nn.GELU)

    def forward(self, coordinates: Tensor, values: Tensor, levels: Sequence[Level]) -> Tensor:
        """Return u at the points, ``(sum N, outputs)``.

        Args:
            coordinates: points of all cases, ``(sum N, D)``.
            values: a at the points, ``(sum N, inputs)``.
            levels: of `nested_levels` for these points.

        Raises:
            InvalidInput: another number of levels than the network has.
        """
        require(len(levels) == len(self.linear), f"this MGNO needs {len(self.linear)} levels, got {len(levels)}")
        known = torch.cat([coordinates, values], dim=1)
        kernels = self._kernels(known, levels)
        lifted = self.lift(known)
        u = [lifted, *(lifted.new_zeros(len(level.nodes), lifted.shape[1]) for level in levels[1:])]
        for _ in range(self.cycles):
            u = self._cycle(u, levels, *kernels)
        output: Tensor = self.project(u[0])
        return output

    def _kernels(self, known: Tensor, levels: Sequence[Level]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        at = [known[level.nodes] for level in levels]
        within = [kernel(x, x, level.within) for kernel, x, level in zip(self.within, at, levels, strict=True)]
        steps = list(zip(at[:-1], at[1:], levels[1:], strict=True))
        down = [kernel(y, x, z.between.flip(0)) for kernel, (x, y, z) in zip(self.down, steps, strict=True)]
        up = [kernel(x, y, z.between) for kernel, (x, y, z) in zip(self.up, steps, strict=True)]
        return within, down, up

    def _cycle(
        self, u: list[Tensor], levels: Sequence[Level], within: list[Tensor], down: list[Tensor], up: list[Tensor]
    ) -> list[Tensor]:
        v = [u[0]]
        for kernel, fine, coarse, state in zip(down, levels[:-1], levels[1:], u[1:], strict=True):
            sums = kernel_integral(kernel, v[-1], fine.weights, coarse.between.flip(0), len(coarse.nodes))
            v.append(nn.functional.gelu(state + sums))
        result: list[Tensor] = []
        for number in reversed(range(len(levels))):
            level = levels[number]
            sums = kernel_integral(within[number], v[number], level.weights, level.within, len(level.nodes))
            if result:
                coarse = levels[number + 1]
                sums = sums + kernel_integral(up[number], result[0], coarse.weights, coarse.between, len(level.nodes))
            result.insert(0, nn.functional.gelu(self.linear[number](v[number]) + sums))
        return result
