r"""Controlled residual networks of finite width, whose limits the kernels are (arXiv 2303.17671).

    S_{k+1} = S_k + sum_j (A_j phi(S_k) / sqrt(N) + b_j) dx^j_k ,    S_0 ~ N(0, sa^2),  A ~ N(0, sA^2),  b ~ N(0, sb^2)

With weights shared by all steps a layer is a step of Euler's method of a random controlled differential equation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.timeseries.kernels.activations import Activation, ReLU
from isocline.timeseries.kernels.neural_signature import METHOD, check_paths


@METHOD.variant(order=1)
@dataclass(frozen=True)
class ControlledResNet:
    """A random network that reads paths; called as ``network(x, rng)`` with paths (n, T, C), returns states (n, width).

    All paths of a call meet the same weights; another `rng` draws others.

    Args:
        width: ``N``.
        activation: ``phi``.
        initial: ``sa``.
        weight: ``sA``.
        bias: ``sb``.
        refine: every interval is cut into ``2^refine`` layers.

    Raises:
        InvalidInput: a size is out of range.

    Source: Cirone, Lemercier and Salvi, arXiv 2303.17671.

    Examples:
        >>> import torch
        >>> ControlledResNet(8)(torch.zeros(3, 5, 2), rng=0).shape
        torch.Size([3, 8])
    """

    width: int
    activation: Activation = field(default_factory=ReLU)
    initial: float = 1.0
    weight: float = 1.0
    bias: float = 0.0
    refine: int = 0

    def __post_init__(self) -> None:
        require(self.width >= 1 and self.refine >= 0, "a network needs a width of at least 1 and refine of at least 0")

    def __call__(self, x: Tensor, rng: Stream | int) -> Tensor:
        """Return the last states (n, width) of paths (n, T, C)."""
        check_paths(x, None)
        stream, n, c = as_stream(rng, "resnet"), self.width, x.shape[2]
        scale = self.weight / math.sqrt(n)
        a = scale * stream.child("weight").normal((n * c, n), dtype=x.dtype, device=x.device)
        b = self.bias * stream.child("bias").normal((c, n), dtype=x.dtype, device=x.device)
        s = self.initial * stream.child("initial").normal((1, n), dtype=x.dtype, device=x.device).expand(len(x), n)
        parts = 2**self.refine
        for dx in x.diff(dim=1).unbind(1):
            for _ in range(parts):
                directions = (self.activation(s) @ a.T).reshape(len(x), c, n) + b
                s = s + (directions * dx[:, :, None]).sum(1) / parts
        return s
