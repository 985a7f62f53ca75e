r"""The low-rank neural operator (Kovachki et al., arXiv 2108.08481).

    kappa(x, y) = sum_{j <= r} phi_j(x) psi_j(y)^T ,      (K v)(x) = sum_j phi_j(x) int psi_j(y) . v(y) dy

phi and psi are networks. The cost is linear in the number of points, since no pair of points is ever formed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.networks.mlp import MLP


class LowRankOperator(nn.Module):
    """One low-rank kernel integral over each whole case, from d to d channels.

    Args:
        features: size of what is known at each point, for example its coordinates and the input there.
        channels: d.
        rank: r.
        width: hidden size of both networks.

    Raises:
        InvalidInput: a rank below one.
    """

    def __init__(self, features: int, channels: int, *, rank: int = 4, width: int = 64) -> None:
        super().__init__()
        require(rank >= 1, f"rank must be at least 1, got {rank}")
        self.shape = (rank, channels)
        self.phi = MLP(features, rank * channels, width=width, depth=2, activation=nn.GELU)
        self.psi = MLP(features, rank * channels, width=width, depth=2, activation=nn.GELU)

    def forward(self, known: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Return ``K v`` at the points, ``(sum N, d)``.

        Args:
            known: what phi and psi see of each point, ``(sum N, features)``.
            values: v, ``(sum N, d)``.
            weights: quadrature weights, (sum N,).
            offsets: where each case begins, and the end, ``(B + 1,)``.
        """
        phi, psi = self.phi(known).unflatten(1, self.shape), self.psi(known).unflatten(1, self.shape)
        case = torch.repeat_interleave(offsets.diff())
        terms = torch.einsum("nrd,nd,n->nr", psi, values, weights)
        integrals = terms.new_zeros(len(offsets) - 1, self.shape[0]).index_add(0, case, terms)
        return torch.einsum("nrd,nr->nd", phi, integrals[case])
