r"""Attention over the neighbours of a node: the diffusivity of GRAND (arXiv 2106.10934, section 4).

For each head with matrices ``W_K, W_Q`` (d_k, d)

    a_{ij} = softmax_j  (W_K x_i) . (W_Q x_j) / sqrt(d_k) ,        j over the neighbours of i ,

and ``A`` is the mean over heads. All entries are positive and each row adds up to 1, so that ``A`` averages: its eigenvalues
lie in the unit disc, 1 among them. The matrices start at about 1e-5: then ``A`` is the plain mean over neighbours to 1e-9,
and diffusion is learnt from there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.networks.graph.edges import Graph, scatter_softmax, take


class GraphAttention(nn.Module):
    """Scaled dot-product attention along the edges of a graph; a row-stochastic matrix.

    The matrices are drawn uniformly between ``-scale`` and ``scale``. Constant ones would be just as uniform but leave all
    heads, and all rows of a head, equal for ever: they would have equal gradients.

    Args:
        width: size ``d`` of a node's state.
        heads: number of heads.
        size: ``d_k``, of keys and queries of one head.
        scale: of the first weights.

    Raises:
        InvalidInput: a size is below 1.

    Examples:
        >>> graph = Graph.undirected(torch.tensor([[0, 1], [1, 2]]), 3).with_self_loops()
        >>> [round(a, 3) for a in GraphAttention(4)(torch.eye(3, 4), graph).tolist()]
        [0.5, 0.5, 0.333, 0.333, 0.333, 0.5, 0.5]
    """

    def __init__(self, width: int, *, heads: int = 4, size: int = 16, scale: float = 1e-5) -> None:
        super().__init__()
        require(min(width, heads, size) >= 1, "attention needs width, heads and size of at least 1")
        self.heads, self.size = heads, size
        self.key, self.query = (nn.Linear(width, heads * size, bias=False) for _ in range(2))
        for layer in (self.key, self.query):
            nn.init.uniform_(layer.weight, -scale, scale)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Return the weight (E,) of each edge for states `x` (nodes, d)."""
        require(x.ndim == 2 and len(x) == graph.nodes, f"states have shape ({graph.nodes}, d), got {tuple(x.shape)}")
        key, query = (layer(x).reshape(-1, self.heads, self.size) for layer in (self.key, self.query))
        scores = (take(key, graph.target) * take(query, graph.source)).sum(-1) / math.sqrt(self.size)
        mean: Tensor = scatter_softmax(scores, graph.target, graph.nodes).mean(1)
        return mean


def neighbour_mean(graph: Graph, like: Tensor) -> Tensor:
    """Return the weights (E,) of the plain mean over neighbours, in the dtype of `like`."""
    return torch.ones(graph.edges.shape[1], dtype=like.dtype, device=like.device) / graph.degrees[graph.target]
