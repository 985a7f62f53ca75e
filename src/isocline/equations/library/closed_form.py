"""What the problems share: closed forms as references, and columns of coordinates put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isocline.equations.problem import Reference

ROUNDING = 1e-13  # relative error of a closed form in float64


def closed_form(field: Callable[[Tensor], Tensor]) -> Reference:
    """Return a closed form, points (N, d) to (N,) or (N, c), as a reference."""
    return Reference(field, ROUNDING, "closed form")


def stacked(q: Any, names: Sequence[str]) -> Tensor:
    """Return named coordinates as points (N, d)."""
    whole: Tensor | None = getattr(q, "_points", None)
    return torch.stack([getattr(q, name) for name in names], 1) if whole is None else whole
