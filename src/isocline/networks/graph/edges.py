r"""Graphs as lists of edges, and the two operations that layers on them need.

An edge ``(j, i)`` carries a message from its source ``j`` to its target ``i``; "the neighbours of i" are the sources of its
edges. For values ``m_e`` on edges

    scatter_sum       (sum m)_i  =  sum_{e -> i} m_e
    scatter_softmax   a_e        =  exp(m_e) / sum_{e' -> i} exp(m_e')         positive, and 1 in sum at every target

Both are plain torch, on any device, and have derivatives in forward and in reverse mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed graph; an undirected one holds both directions of each edge.

    Args:
        edges: sources and targets, (2, E), int64; no edge twice.
        nodes: number of nodes.

    Raises:
        InvalidInput: an edge names a node that is not there, or is listed twice.

    Examples:
        >>> path = Graph.undirected(torch.tensor([[0, 1], [1, 2]]), nodes=3)
        >>> path.edges.tolist(), path.symmetric, path.looped
        ([[1, 0, 2, 1], [0, 1, 1, 2]], True, False)
        >>> path.with_self_loops().degrees.tolist()
        [2, 3, 2]
    """

    edges: Tensor
    nodes: int

    def __post_init__(self) -> None:
        e = self.edges
        require(self.nodes >= 1, f"a graph needs at least one node, got nodes={self.nodes}")
        require(e.ndim == 2 and e.shape[0] == 2, f"edges have shape (2, E): sources, targets; got {tuple(e.shape)}")
        require(e.dtype == torch.int64, f"edges are indices of type int64, got {e.dtype}")
        if e.shape[1]:
            low, high = int(e.min()), int(e.max())
            require(
                low >= 0 and high < self.nodes,
                f"edges name nodes {low}..{high}; a graph with nodes={self.nodes} has 0..{self.nodes - 1}",
            )
        twice = e.shape[1] - len(torch.unique(self._keys))
        require(twice == 0, f"{twice} edges are listed twice; Graph.undirected drops repetitions")

    @classmethod
    def undirected(cls, pairs: Tensor, nodes: int) -> Graph:
        """Return the graph with both directions of each of the `pairs` (E, 2); repetitions and self-loops are dropped."""
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
            raise InvalidInput(
                f"pairs of nodes have shape (E, 2) and type int64, got {tuple(pairs.shape)}, {pairs.dtype}"
            )
        both = torch.cat([pairs, pairs.flip(1)])
        return cls(_sorted(both[both[:, 0] != both[:, 1]]), nodes)

    @property
    def source(self) -> Tensor:
        """Where messages come from, (E,)."""
        return self.edges[0]

    @property
    def target(self) -> Tensor:
        """Where they go, (E,)."""
        return self.edges[1]

    @property
    def degrees(self) -> Tensor:
        """Number of edges that end at each node, (nodes,), int64; a self-loop counts once."""
        return torch.bincount(self.target, minlength=self.nodes)

    @cached_property
    def symmetric(self) -> bool:
        """Whether every edge is there in both directions."""
        back = self.source * self.nodes + self.target
        return bool(torch.equal(self._keys.sort().values, back.sort().values))

    @property
    def looped(self) -> bool:
        """Whether every node has an edge to itself."""
        return int((self.source == self.target).sum()) == self.nodes

    @property
    def _keys(self) -> Tensor:
        return self.target * self.nodes + self.source

    def with_self_loops(self) -> Graph:
        """Return the graph with an edge from every node to itself."""
        loops = torch.arange(self.nodes, device=self.edges.device).repeat(2, 1)
        return Graph(_sorted(torch.cat([self.edges, loops], 1).T), self.nodes)

    def to(self, device: torch.device | str) -> Graph:
        """Return the graph on a device."""
        return Graph(self.edges.to(device), self.nodes)


def _sorted(pairs: Tensor) -> Tensor:
    """Return edges (2, E) without repetitions, by target and then by source."""
    return torch.unique(pairs.flip(1), dim=0).T.flip(0).contiguous()


def scatter_sum(values: Tensor, index: Tensor, nodes: int) -> Tensor:
    """Return the sums (nodes, *) of `values` (E, *) with equal `index` (E,).

    >>> scatter_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3).tolist()
    [1.0, 0.0, 6.0]
    """
    return values.new_zeros(nodes, *values.shape[1:]).scatter_add(0, _wide(index, values), values)


def scatter_softmax(values: Tensor, index: Tensor, nodes: int) -> Tensor:
    """Return positive weights (E, *) that add up to 1 over edges with equal `index` (E,).

    >>> scatter_softmax(torch.tensor([0.0, 5.0, 5.0]), torch.tensor([0, 2, 2]), 3).tolist()
    [1.0, 0.5, 0.5]
    """
    wide, fixed = _wide(index, values), values.detach()  # the shift changes no value and needs no derivative
    largest = fixed.new_full((nodes, *values.shape[1:]), -torch.inf).scatter_reduce(0, wide, fixed, "amax")
    powers = torch.exp(values - largest.gather(0, wide))
    return powers / scatter_sum(powers, index, nodes).gather(0, wide)


def propagate(weights: Tensor, x: Tensor, graph: Graph) -> Tensor:
    """Return ``A x``, (nodes, d): at each node the sum over its neighbours of ``weights`` (E,) times their `x` (nodes, d)."""
    return scatter_sum(weights[:, None] * take(x, graph.source), graph.target, graph.nodes)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return the rows `index` (E,) of `x` (nodes, *), as ``x[index]`` does but with a faster gradient."""
    return x.gather(0, _wide(index, x))


def _wide(index: Tensor, like: Tensor) -> Tensor:
    return index.reshape(-1, *[1] * (like.ndim - 1)).expand(-1, *like.shape[1:])
