r"""Rewiring by personalised PageRank: graph diffusion convolution (Gasteiger et al., arXiv 1911.05485), the -rw of GRAND.

    S = p sum_k (1 - p)^k (D^{-1} A)^k = p (I - (1 - p) D^{-1} A)^{-1}

is where a walk is found that starts anew at its node with probability ``p`` in each step. Every node keeps edges to the
``top`` nodes of its row, and the result is made symmetric.
"""

from __future__ import annotations

import torch

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.graph.attention import neighbour_mean
from isocline.networks.graph.edges import Graph

METHOD = Method(
    "gdc",
    "Graph diffusion convolution",
    "Diffusion Improves Graph Learning",
    "Gasteiger, Weissenberger, Guennemann",
    2019,
    "1911.05485",
    room="networks.graph",
    when="Rewiring a sparse graph before GRAND or a GCN, up to a few thousand nodes.",
)


@METHOD.variant()
def personalised_pagerank(graph: Graph, *, top: int = 16, restart: float = 0.15) -> Graph:
    """Return the undirected graph that joins each node with the `top` others that its PageRank favours; no self-loops.

    Solves with a dense matrix: memory is that of ``nodes**2`` numbers. Only nodes of the same component are joined.

    Args:
        graph: a graph without a node of degree 0; self-loops count as edges.
        top: number of neighbours, before the graph is made symmetric.
        restart: ``p``, between 0 and 1.

    Raises:
        InvalidInput: `top` or `restart` is out of range, or a node has no edge.

    Source: Gasteiger et al., arXiv 1911.05485.

    Examples:
        >>> path = Graph.undirected(torch.tensor([[0, 1], [1, 2], [2, 3]]), 4)
        >>> personalised_pagerank(path, top=2).edges.T.tolist()[:3]
        [[1, 0], [2, 0], [0, 1]]
    """
    require(1 <= top < graph.nodes, f"top must lie in 1..{graph.nodes - 1}, got {top}")
    require(0 < restart < 1, f"restart must lie between 0 and 1, got {restart}")
    require(bool((graph.degrees > 0).all()), "a node has no edge; use graph.with_self_loops()")
    walk = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64, device=graph.edges.device)
    walk[graph.target, graph.source] = neighbour_mean(graph, walk)
    eye = torch.eye(graph.nodes, dtype=walk.dtype, device=walk.device)
    rank = restart * torch.linalg.inv(eye - (1 - restart) * walk)
    rank.fill_diagonal_(0.0)
    best = rank.topk(top, dim=1)
    node = torch.arange(graph.nodes, device=walk.device)[:, None].expand(-1, top)
    reached = best.values > 1e-12
    return Graph.undirected(torch.stack([node[reached], best.indices[reached]], 1), graph.nodes)
