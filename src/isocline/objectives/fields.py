r"""Distances of predicted fields from true ones, one number for each case.

Fields are ``(B, T, *S, C)``; what is minimised is the mean over cases. The relative distance divides by the norm of the truth, so
that cases of small amplitude count as much as large ones (Li et al., arXiv 2010.08895).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FieldObjective = Callable[[Tensor, Tensor], Tensor]


def mean_square(u: Tensor, v: Tensor) -> Tensor:
    """Return the mean squared difference of predictions u from v, (B,)."""
    return (u - v).square().flatten(1).mean(1)


def relative_l2(u: Tensor, v: Tensor) -> Tensor:
    """Return ``|u - v|_2 / |v|_2``, (B,); finite, with a finite gradient, also where they are equal or v is zero."""
    tiny = torch.finfo(v.dtype).tiny ** 0.5
    square = (u - v).square().flatten(1).sum(1)
    return (square + tiny).sqrt() / (v.square().flatten(1).sum(1) + tiny).sqrt()
