r"""GRAND: a graph network that is a diffusion equation (Chamberlain et al., arXiv 2106.10934).

    X(0) = encoder(features) ,        dX/dt = sigmoid(alpha) (A - I) X + beta X(0) ,        scores = decoder(X(T))

with row-stochastic attention ``A`` (see `attention`). The linear equation freezes ``A = A(X(0))``; the nonlinear one takes
``A(X(t))``. What is depth in a network is the time ``T`` here, and layers are steps of an integrator: explicit Euler with
``h = 1`` is a residual network with one set of weights.

What is known, with ``s = sigmoid(alpha)`` and ``beta = 0``. Explicit Euler's step is ``(1 - s h) I + s h A``: for ``s h <= 1`` a
mean, so that every coordinate stays between its smallest and its largest value (maximum principle). Beyond, an eigenvalue
-1 of ``A``, which a bipartite graph has without self-loops, is multiplied by ``|1 - 2 s h| > 1`` at each step: it diverges.
Implicit Euler's ``((1 + s h) I - s h A)^{-1}`` is a mean for every ``h``. As ``t`` grows, ``X`` tends to a constant on each
component of the graph: the source ``beta X(0)`` is what works against that; with it the mean over a component, weighted by
the stationary law of ``A``, grows like ``1 + beta t``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.integrators import PID, Dopri5, Solution, integrate
from isocline.networks.graph.attention import GraphAttention
from isocline.networks.graph.edges import Graph, propagate

METHOD = Method(
    "grand",
    "GRAND",
    "GRAND: Graph Neural Diffusion",
    "Chamberlain, Rowbottom, Gorinova, Webb, Rossi, Bronstein",
    2021,
    "2106.10934",
    room="networks.graph",
    when="Node classification where depth should be a time and a step that can be chosen.",
)

Solve = Callable[..., Solution]
ADAPTIVE: Solve = partial(integrate, method=Dopri5(), controller=PID(1e-3, 1e-3))


class Diffusion(nn.Module):
    """What both equations share: ``alpha``, ``beta`` and the attention.

    Args:
        width: size ``d`` of a node's state.
        heads: of the attention.
        size: of keys and queries of one head.
    """

    def __init__(self, width: int, *, heads: int = 4, size: int = 16) -> None:
        super().__init__()
        self.attention = GraphAttention(width, heads=heads, size=size)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.beta = nn.Parameter(torch.zeros(()))

    def flow(self, weights: Tensor, x: Tensor, source: Tensor, graph: Graph) -> Tensor:
        """Return ``sigmoid(alpha) (A x - x) + beta source`` for weights (E,) of the edges."""
        return torch.sigmoid(self.alpha) * (propagate(weights, x, graph) - x) + self.beta * source

    def arguments(self, x0: Tensor, graph: Graph) -> tuple[Any, ...]:
        """Return what the field is given besides time and state, from the first state (nodes, d)."""
        raise NotImplementedError

    def field(self, graph: Graph) -> Callable[[Tensor, Tensor, Any], Tensor]:
        """Return the vector field ``f(t, x, arguments)`` on a graph."""
        return _Field(self, graph)


class _Field(nn.Module):
    """A diffusion on one graph: a module, so that gradients find its parameters."""

    def __init__(self, diffusion: Diffusion, graph: Graph) -> None:
        super().__init__()
        self.diffusion, self.graph = diffusion, graph

    def forward(self, t: Tensor, x: Tensor, args: tuple[Tensor, ...]) -> Tensor:
        out: Tensor = self.diffusion(x, self.graph, *args)
        return out


@METHOD.variant()
class LinearDiffusion(Diffusion):
    """GRAND-l: attention of the first state, kept for all times; a linear equation.

    Source: Chamberlain et al., arXiv 2106.10934, section 4.
    """

    def arguments(self, x0: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Return the weights (E,) and the source."""
        return self.attention(x0, graph), x0

    def forward(self, x: Tensor, graph: Graph, weights: Tensor, source: Tensor) -> Tensor:
        """Return ``dX/dt`` (nodes, d)."""
        return self.flow(weights, x, source, graph)


@METHOD.variant()
class NonlinearDiffusion(Diffusion):
    """GRAND-nl: attention of the present state, computed at every evaluation.

    Source: Chamberlain et al., arXiv 2106.10934, section 4.
    """

    def arguments(self, x0: Tensor, graph: Graph) -> tuple[Tensor]:
        """Return the source."""
        return (x0,)

    def forward(self, x: Tensor, graph: Graph, source: Tensor) -> Tensor:
        """Return ``dX/dt`` (nodes, d)."""
        return self.flow(self.attention(x, graph), x, source, graph)


@METHOD.variant()
class Grand(nn.Module):
    """Node classification by diffusion: encoder, integration to time ``T``, decoder.

    Called as ``model(features, graph)`` with features (nodes, F), returns scores (nodes, classes). The graph should have
    self-loops: a node without any edge would only decay. `solution` returns the integration with its cost.

    Args:
        features: ``F``.
        classes: number of classes.
        diffusion: the equation, `LinearDiffusion` or `NonlinearDiffusion`, whose width is that of the state.
        width: size of a node's state.
        time: ``T``.
        solve: integrates ``(field, x0, 0, T, args=...)``: `isocline.integrators.integrate` with method, controller and gradient
            filled in by `functools.partial`; `Dopri5` with tolerances 1e-3 by default.
        dropout: share of features, and of states before the decoder, that are dropped in training.

    Raises:
        InvalidInput: a size is below 1, the time is negative, or the equation has another width.
        NotFinite: the integration failed, in a call.

    Source: Chamberlain et al., arXiv 2106.10934.

    Examples:
        >>> from isocline.integrators import Euler
        >>> graph = Graph.undirected(torch.tensor([[0, 1], [1, 2]]), 3).with_self_loops()
        >>> model = Grand(5, 2, LinearDiffusion(8), width=8, time=3.0, solve=partial(integrate, method=Euler(), dt0=1.0))
        >>> model(torch.zeros(3, 5), graph).shape, model.solution(torch.zeros(3, 5), graph).stats.nfe
        (torch.Size([3, 2]), 3)
    """

    def __init__(
        self,
        features: int,
        classes: int,
        diffusion: Diffusion,
        *,
        width: int = 64,
        time: float = 4.0,
        solve: Solve = ADAPTIVE,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(min(features, classes, width) >= 1, "GRAND needs features, classes and width of at least 1")
        require(time >= 0, f"the time of diffusion must not be negative, got {time}")
        expected = diffusion.attention.key.in_features
        require(width == expected, f"the diffusion is made for states of width {expected}, the model has width={width}")
        self.encoder = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, width))
        self.diffusion, self.time, self.solve = diffusion, time, solve
        self.decoder = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, classes))

    def solution(self, features: Tensor, graph: Graph) -> Solution:
        """Return the integration of the encoded features (nodes, F) up to ``T``."""
        require(
            features.ndim == 2 and len(features) == graph.nodes,
            f"features have shape (nodes, F) with {graph.nodes} nodes, got {tuple(features.shape)}",
        )
        x0 = self.encoder(features)
        field, args = self.diffusion.field(graph), self.diffusion.arguments(x0, graph)
        return self.solve(field, x0, 0.0, self.time, args=args)

    def forward(self, features: Tensor, graph: Graph) -> Tensor:
        """Return scores (nodes, classes)."""
        scores: Tensor = self.decoder(self.solution(features, graph).check().y1)
        return scores
