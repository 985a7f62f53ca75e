r"""Neural signature kernels: the law of a controlled residual network of infinite width (arXiv 2303.17671).

    S_{k+1} = S_k + sum_j (A_j phi(S_k) / sqrt(N) + b_j) dx^j_k ,    S_0 ~ N(0, sa^2),  A ~ N(0, sA^2),  b ~ N(0, sb^2)

with one set of weights for all steps. As the width ``N`` and then the number of steps grow, ``<S(x), S(y)> / N`` tends to ``K``,

    d^2 K / ds dt = (sA^2 V_phi(K(x_s, x_s), K(x_s, y_t), K(y_t, y_t)) + sb^2) <x'_s, y'_t> ,     K = sa^2 on both axes,

``V_phi`` being the activation's moment. Both diagonals ``K(x_s, x_s)``, ``K(y_t, y_t)`` come first: problems of the same kind with
one path. Neither time nor speed enters: a path that is run through otherwise has the same kernel. With ``phi(x) = x`` the equation
is linear and ``K + sb^2 / sA^2`` a multiple of the signature kernel of ``sA x`` and ``sA y``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.timeseries.kernels import goursat
from isocline.timeseries.kernels.activations import Activation, Identity, ReLU

METHOD = Method(
    "neural-signature-kernel",
    "Neural signature kernel",
    "Neural signature kernels as infinite-width-depth-limits of controlled ResNets",
    "Cirone, Lemercier, Salvi",
    2023,
    "2303.17671",
    room="timeseries.kernels",
    when="A kernel on few, short paths, without training; cost grows with the square of series and of their length.",
)


@METHOD.variant(order=2)
@dataclass(frozen=True)
class NeuralSignatureKernel:
    """The kernel of the network whose layers share their weights; called as ``kernel(x, y)``.

    A Gram matrix costs a grid of ``T^2 4^refine`` cells for each pair. It is symmetric, and positive semidefinite up to the error
    of the scheme, which is of order 2. Gradients reach the paths; memory is then that of all grids.

    Args:
        activation: `Identity`, `ReLU`, `Erf`.
        initial: ``sa``, of the first state.
        weight: ``sA``.
        bias: ``sb``.
        refine: dyadic order of the grid: every interval is cut into ``2^refine``.
        batch: pairs that are computed at once.

    Raises:
        InvalidInput: a standard deviation is negative, both `weight` and `bias` are 0, or, in a call, the paths do not fit.

    Source: Cirone, Lemercier and Salvi, arXiv 2303.17671.

    Examples:
        >>> line = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
        >>> kernel = NeuralSignatureKernel(Identity(), refine=7)
        >>> round(kernel(line, line).item(), 4)  # Bessel's I_0(2)
        2.2796
    """

    activation: Activation = field(default_factory=ReLU)
    initial: float = 1.0
    weight: float = 1.0
    bias: float = 0.0
    refine: int = 0
    batch: int = 256

    def __post_init__(self) -> None:
        require(min(self.initial, self.weight, self.bias) >= 0, "standard deviations must not be negative")
        require(max(self.weight, self.bias) > 0, "a kernel needs a weight or a bias above 0; it would be constant")
        require(self.refine >= 0 and self.batch >= 1, "refine must be at least 0 and batch at least 1")

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the Gram matrix (n, m) of paths `x` (n, T, C) and `y` (m, S, C); of `x` with itself where `y` is None."""
        check_paths(x, y)
        other = x if y is None else y
        own, others = self._own(x), self._own(other) if y is not None else None
        others = own if others is None else others
        index = index_of(len(x), len(other), symmetric=y is None)
        values = [self._pairs(x[i], other[j], own[i], others[j]) for i, j in batches(index, self.batch)]
        return filled(torch.cat(values), index, len(x), len(other), symmetric=y is None)

    def diagonal(self, x: Tensor) -> Tensor:
        """Return ``K(x, x)`` of each path, (n,): the diagonal of the Gram matrix, without the rest of it."""
        check_paths(x, None)
        parts = zip(x.split(self.batch), self._own(x).split(self.batch), strict=True)
        return torch.cat([self._pairs(part, part, own, own) for part, own in parts])

    @property
    def _linear(self) -> bool:
        return isinstance(self.activation, Identity) or self.weight == 0

    def _own(self, x: Tensor) -> Tensor:
        """Return ``K(x_s, x_s)`` at the fine nodes (n, k), which the linear equation does not need."""
        if self._linear:
            return x.new_empty(len(x), 0)
        start = x.new_tensor(self.initial**2)
        parts = x.split(self.batch)
        found = [
            goursat.diagonal(goursat.inner_products(p, p), start, self._moment, self._square, self.refine)
            for p in parts
        ]
        return torch.cat(found)

    def _pairs(self, x: Tensor, y: Tensor, own: Tensor, others: Tensor) -> Tensor:
        a = goursat.inner_products(x, y)
        if self.weight == 0:
            return self.initial**2 + self.bias**2 * a.sum((1, 2))
        if self._linear:
            shift = (self.bias / self.weight) ** 2
            return (self.initial**2 + shift) * goursat.linear(self.weight**2 * a, self.refine) - shift
        return goursat.pairwise(a, own, others, self._moment, self.refine)

    def _moment(self, uu: Tensor, uv: Tensor, vv: Tensor) -> Tensor:
        return self.weight**2 * self.activation.moment(uu, uv, vv) + self.bias**2

    def _square(self, uu: Tensor) -> Tensor:
        return self.weight**2 * self.activation.square(uu) + self.bias**2


def check_paths(x: Tensor, y: Tensor | None) -> None:
    """Raise `InvalidInput` unless both are paths (n, T, C) of at least two finite points, in equally many dimensions."""
    for name, path in (("x", x), ("y", y)):
        if path is not None:
            fine = path.ndim == 3 and path.is_floating_point() and len(path) > 0 and path.shape[1] >= 2
            require(
                fine,
                f"{name} holds paths (n, T, C), floating, of at least 2 points; got {tuple(path.shape)}, {path.dtype}",
            )
            require(
                bool(path.isfinite().all()),
                f"{name} holds values that are not finite; fill gaps, repeat the last point",
            )
    if y is not None:
        require(
            x.shape[2] == y.shape[2] and x.dtype == y.dtype,
            f"paths x and y differ in channels or dtype: {tuple(x.shape)}, {x.dtype} and {tuple(y.shape)}, {y.dtype}",
        )


def index_of(n: int, m: int, *, symmetric: bool) -> Tensor:
    """Return the pairs (2, P) to be computed."""
    return torch.triu_indices(n, m) if symmetric else torch.cartesian_prod(torch.arange(n), torch.arange(m)).T


def batches(index: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of an index (2, P)."""
    for part in index.split(size, dim=1):
        yield part[0], part[1]


def filled(values: Tensor, index: Tensor, n: int, m: int, *, symmetric: bool) -> Tensor:
    """Return the matrix (n, m) with `values` (P,) at `index` (2, P), and at its mirror image where symmetric."""
    matrix = values.new_zeros(n, m).index_put((index[0], index[1]), values)
    return matrix + matrix.triu(1).mT if symmetric else matrix
