"""Networks on graphs: diffusion (GRAND), a convolutional baseline, rewiring."""

from isocline.networks.graph.attention import GraphAttention, neighbour_mean
from isocline.networks.graph.edges import Graph, propagate, scatter_softmax, scatter_sum
from isocline.networks.graph.gcn import GCN
from isocline.networks.graph.grand import Diffusion, Grand, LinearDiffusion, NonlinearDiffusion
from isocline.networks.graph.rewiring import personalised_pagerank

__all__ = [
    "GCN",
    "Diffusion",
    "Grand",
    "Graph",
    "GraphAttention",
    "LinearDiffusion",
    "NonlinearDiffusion",
    "neighbour_mean",
    "personalised_pagerank",
    "propagate",
    "scatter_softmax",
    "scatter_sum",
]
