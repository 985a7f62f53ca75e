r"""What is done with a weighted squared error before it is averaged: ``(process, t, error) -> loss``, each (B,).

``error`` is the weighted mean square over the entries of one datum, ``w(t) |D - x_0|^2 / d``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes import GaussianProcess

Penalty = Callable[[GaussianProcess, Tensor, Tensor], Tensor]


def squared(process: GaussianProcess, t: Tensor, error: Tensor) -> Tensor:
    """Return the error itself: least squares, whose minimiser is the conditional mean."""
    return error


@dataclass(frozen=True)
class PseudoHuber:
    """``sqrt(error + c^2) - c``: quadratic below ``c``, linear above, so that few large errors do not decide the fit.

    Its minimiser is the conditional mean only where a pair determines its datum, as for the pairs of reflow.

    Args:
        c: on the scale of the root mean square over entries; arXiv 2405.20320 takes ``0.00054 d`` for the norm of ``d`` entries,
            which is ``0.00054 sqrt(d)`` here.
        fading: multiply by the share of the time range that is left, ``1 - t / T``, as that paper does.
    """

    c: float
    fading: bool = False

    def __post_init__(self) -> None:
        require(self.c > 0, f"the pseudo-Huber penalty needs c > 0, got {self.c}")

    def __call__(self, process: GaussianProcess, t: Tensor, error: Tensor) -> Tensor:
        """Return the loss (B,)."""
        value = torch.sqrt(error + self.c**2) - self.c
        return value * (1 - t / process.t_max).to(value.dtype) if self.fading else value
