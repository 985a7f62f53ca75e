r"""The graph convolutional network of Kipf and Welling (arXiv 1609.02907), as a baseline.

    X_{k+1} = relu( D^{-1/2} A D^{-1/2} X_k W_k + b_k )

with ``A`` the adjacency matrix with self-loops and ``D`` its degrees; no ReLU after the last layer. Deep ones lose what tells
nodes apart: the matrix is an averaging one, and its powers tend to rank one on each component.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.graph.edges import Graph, propagate

METHOD = Method(
    "gcn",
    "Graph convolutional network",
    "Semi-Supervised Classification with Graph Convolutional Networks",
    "Kipf, Welling",
    2016,
    "1609.02907",
    room="networks.graph",
    when="A baseline on graphs, at depth 2 or 3.",
)


@METHOD.variant()
class GCN(nn.Module):
    """A plain graph convolutional network, called as ``model(features, graph)``; returns scores (nodes, classes).

    Args:
        features: size of a node's features.
        classes: number of classes.
        width: of the hidden layers.
        depth: number of layers.
        dropout: share of the input of each layer that is dropped in training.

    Raises:
        InvalidInput: a size is below 1; in a call, a node has no edge.

    Source: Kipf and Welling, arXiv 1609.02907.

    Examples:
        >>> graph = Graph.undirected(torch.tensor([[0, 1], [1, 2]]), 3).with_self_loops()
        >>> GCN(5, 2, depth=3)(torch.zeros(3, 5), graph).shape
        torch.Size([3, 2])
    """

    def __init__(self, features: int, classes: int, *, width: int = 64, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        require(
            min(features, classes, width, depth) >= 1, "a GCN needs features, classes, width and depth of at least 1"
        )
        sizes = [features, *[width] * (depth - 1), classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, graph: Graph) -> Tensor:
        """Return scores (nodes, classes) for features (nodes, F)."""
        require(bool((graph.degrees > 0).all()), "a node has no edge; use graph.with_self_loops()")
        weights = symmetric_weights(graph, features)
        x = features
        for k, layer in enumerate(self.layers):
            x = propagate(weights, layer(self.dropout(x)), graph)
            x = torch.relu(x) if k < len(self.layers) - 1 else x
        return x


def symmetric_weights(graph: Graph, like: Tensor) -> Tensor:
    """Return ``D^{-1/2} A D^{-1/2}`` on the edges, (E,), in the dtype of `like`."""
    root = graph.degrees.to(like.dtype).rsqrt()
    return root[graph.target] * root[graph.source]
