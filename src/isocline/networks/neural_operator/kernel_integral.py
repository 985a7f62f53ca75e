r"""The integral of a kernel operator, on scattered points (Kovachki et al., arXiv 2108.08481).

    out(x_i) = sum_j kappa(x_i, x_j) v(x_j) w_j

The sum goes over the neighbours j of i. With quadrature weights w_j it converges to the integral as points are added; a plain mean
over the neighbours converges to another one wherever the points are not uniform.
"""

from __future__ import annotations

from torch import Tensor

from isocline._core.errors import require


def kernel_integral(kernel: Tensor, values: Tensor, weights: Tensor, edges: Tensor, points: int) -> Tensor:
    """Return the sums at all targets, ``(points, d)``; zero where a target has no neighbours.

    Args:
        kernel: kappa on each edge, ``(E, d)`` for a diagonal kernel or ``(E, d, c)`` for a matrix.
        values: v at the sources, ``(M, d)`` or ``(M, c)``.
        weights: quadrature weights of the sources, (M,).
        edges: target and source of each edge, ``(2, E)``.
        points: number of targets.

    Raises:
        InvalidInput: a kernel that does not have one row an edge.
    """
    require(kernel.shape[0] == edges.shape[1], f"{edges.shape[1]} edges need as many kernels, got {kernel.shape[0]}")
    target, source = edges
    weighted = (values * weights[:, None])[source]
    terms = kernel * weighted if kernel.ndim == 2 else (kernel @ weighted[..., None])[..., 0]
    return terms.new_zeros(points, terms.shape[1]).index_add(0, target, terms)
