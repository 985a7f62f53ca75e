r"""The graph neural operator (Kovachki, Li, Liu, Azizzadenesheli, Bhattacharya, Stuart, Anandkumar, arXiv 2108.08481).

    v_0 = P(x, a) ,     v_{l+1}(x) = act(W v_l(x) + int_{|x - y| <= r} kappa(x, y, a(x), a(y)) v_l(y) dy + b) ,     u = Q(v_L)

kappa is a network whose output is a diagonal or a d x d matrix; the integral is a sum over the points in the ball, each with its
quadrature weight. So the weights of the network belong to no point set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.mlp import MLP
from isocline.networks.neural_operator.kernel_integral import kernel_integral
from isocline.networks.neural_operator.neighbours import within_radius

METHOD = Method(
    "gno",
    "graph neural operator",
    "Neural Operator: Learning Maps Between Function Spaces",
    "Kovachki, Li, Liu, Azizzadenesheli, Bhattacharya, Stuart, Anandkumar",
    2021,
    "2108.08481",
    room="networks",
    when="Maps between functions on scattered points, to be used on other point sets.",
)


class _Layer(nn.Module):
    def __init__(self, features: int, width: int, kernel_width: int, *, diagonal: bool) -> None:
        super().__init__()
        self.shape = (width,) if diagonal else (width, width)
        size = width if diagonal else width * width
        self.kernel = MLP(features, size, width=kernel_width, depth=2, activation=nn.GELU)
        self.linear = nn.Linear(width, width)

    def forward(self, v: Tensor, pairs: Tensor, weights: Tensor, edges: Tensor) -> Tensor:
        kernel = self.kernel(pairs).unflatten(1, self.shape)
        result: Tensor = self.linear(v) + kernel_integral(kernel, v, weights, edges, len(v))
        return result


@METHOD.variant()
class GNO(nn.Module):
    """A graph neural operator.

    Args:
        dimension: D, of space.
        inputs: channels of a.
        outputs: channels of u.
        radius: r of the ball, in units of the coordinates.
        width: d, channels inside.
        depth: number of layers.
        kernel_width: hidden size of the kernel's network.
        diagonal: whether kappa is a diagonal instead of a full matrix.

    Raises:
        InvalidInput: fewer than one layer, or a radius that is not positive.
    """

    def __init__(
        self,
        dimension: int,
        inputs: int,
        outputs: int,
        *,
        radius: float,
        width: int = 64,
        depth: int = 4,
        kernel_width: int = 64,
        diagonal: bool = True,
    ) -> None:
        super().__init__()
        require(depth >= 1, f"a GNO needs a depth of at least 1, got {depth}")
        require(radius > 0, f"radius must be positive, got {radius}")
        self.radius = radius
        self.lift = nn.Linear(dimension + inputs, width)
        features = 2 * (dimension + inputs)
        self.layers = nn.ModuleList(_Layer(features, width, kernel_width, diagonal=diagonal) for _ in range(depth))
        self.project = MLP(width, outputs, width=width, depth=1, activation=nn.GELU)

    def forward(self, coordinates: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Return u at the points, ``(sum N, outputs)``.

        Args:
            coordinates: points of all cases, ``(sum N, D)``.
            values: a at the points, ``(sum N, inputs)``.
            weights: quadrature weights, (sum N,); those of a case sum to the volume of its domain.
            offsets: where each case begins, and the end, ``(B + 1,)``.
        """
        edges = within_radius(coordinates, offsets, self.radius)
        known = torch.cat([coordinates, values], dim=1)
        pairs = torch.cat([known[edges[0]], known[edges[1]]], dim=1)
        v = self.lift(known)
        for number, layer in enumerate(self.layers):
            v = layer(v if number == 0 else nn.functional.gelu(v), pairs, weights, edges)
        output: Tensor = self.project(nn.functional.gelu(v))
        return output
