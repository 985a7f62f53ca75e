"""Directional derivatives by forward mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def along(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Return the derivative of ``function`` at `x` in the direction `v`; one pass."""
    _ready()
    return torch.func.jvp(function, (x,), (v,))[1]


@lru_cache(maxsize=1)
def _ready() -> None:
    """Make the first dual number of the process: PyTorch then loads a module that warns of its own deprecated parts."""
    with warnings.catch_warnings(), torch.autograd.forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.autograd.forward_ad.make_dual(torch.zeros(()), torch.ones(()))
