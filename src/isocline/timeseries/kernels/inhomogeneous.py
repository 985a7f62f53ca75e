r"""The kernel of a controlled residual network with new weights in every layer (arXiv 2303.17671).

    S_{k+1} = S_k + sum_j (A_j^k phi(S_k) / sqrt(N) + b_j^k) dx^j_k / sqrt(h_k)

has, for infinite width and ``h -> 0``, a kernel that sees both paths at equal times only:

    dK / dt = (sA^2 V_phi(K(x_t, x_t), K(x_t, y_t), K(y_t, y_t)) + sb^2) <x'_t, y'_t> ,     K = sa^2 at the start.

Unlike the kernel of shared weights it depends on how fast a path is run through: time matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.timeseries.kernels.activations import Activation, ReLU
from isocline.timeseries.kernels.neural_signature import METHOD, check_paths, filled, index_of


@METHOD.variant(order=2)
@dataclass(frozen=True)
class InhomogeneousSignatureKernel:
    """The kernel of the network whose layers have weights of their own; called as ``kernel(x, y)``.

    Costs ``T 2^refine`` steps of Heun's method for all pairs together.

    Args:
        activation: `Identity`, `ReLU`, `Erf`.
        initial: ``sa``, of the first state.
        weight: ``sA``.
        bias: ``sb``.
        refine: every interval is cut into ``2^refine``.

    Raises:
        InvalidInput: a standard deviation is negative, or, in a call, the paths do not fit.

    Source: Cirone, Lemercier and Salvi, arXiv 2303.17671.

    Examples:
        >>> line = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
        >>> round(InhomogeneousSignatureKernel(refine=7)(line, line).item(), 4)  # exp(1/2): a ReLU keeps half the variance
        1.6487
    """

    activation: Activation = field(default_factory=ReLU)
    initial: float = 1.0
    weight: float = 1.0
    bias: float = 0.0
    refine: int = 0

    def __post_init__(self) -> None:
        require(min(self.initial, self.weight, self.bias) >= 0, "standard deviations must not be negative")
        require(self.refine >= 0, "refine must be at least 0")

    def __call__(self, x: Tensor, y: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """Return the Gram matrix (n, m) of paths `x` (n, T, C) and `y` (m, T, C) at `times` (T,), by default even in [0, 1]."""
        check_paths(x, y)
        other = x if y is None else y
        require(x.shape[1] == other.shape[1], f"paths need common times, got {x.shape[1]} and {other.shape[1]} of them")
        index = index_of(len(x), len(other), symmetric=y is None)
        dx, dy = rates(x, times), rates(other, times)
        products = (dx.square().sum(2)[index[0]], (dx[index[0]] * dy[index[1]]).sum(2), dy.square().sum(2)[index[1]])
        return filled(self._solved(torch.stack(products)), index, len(x), len(other), symmetric=y is None)

    def diagonal(self, x: Tensor, times: Tensor | None = None) -> Tensor:
        """Return ``K(x, x)`` of each path, (n,)."""
        check_paths(x, None)
        return self._solved(rates(x, times).square().sum(2).expand(3, -1, -1))

    def _solved(self, rates: Tensor) -> Tensor:
        """Return ``K(x, y)`` (P,) from ``<x', x'>, <x', y'>, <y', y'>`` integrated over each interval, (3, P, T - 1)."""
        k = rates.new_full((3, rates.shape[1]), self.initial**2)
        for rate in rates.unbind(2):
            for _ in range(2**self.refine):
                part = rate / 2**self.refine
                first = part * self._slope(k)
                k = k + (first + part * self._slope(k + first)) / 2
        return k[1]

    def _slope(self, k: Tensor) -> Tensor:
        square, moment = self.activation.square, self.activation.moment
        v = torch.stack([square(k[0]), moment(k[0], k[1], k[2]), square(k[2])])
        return self.weight**2 * v + self.bias**2


def rates(x: Tensor, times: Tensor | None) -> Tensor:
    """Return the increments of paths (n, T, C) over the roots of the time they take, (n, T - 1, C)."""
    times = torch.linspace(0, 1, x.shape[1], dtype=x.dtype, device=x.device) if times is None else times.to(x)
    h = times.diff()
    require(times.shape == x.shape[1:2] and bool((h > 0).all()), f"times must be ({x.shape[1]},) and increase")
    return x.diff(dim=1) / torch.sqrt(h)[:, None]
