"""Functions of torch that Taylor mode writes in others that have rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch

from isocline._core.errors import require


def softmax(x: Any, dim: int = -1, **_: Any) -> Any:
    """Return exponentials over their sum; a shift, which changes nothing, keeps them from overflowing."""
    e = torch.exp(x - x.primal.detach().amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


def layer_norm(
    x: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    """Return x without its mean, over its standard deviation, along the last axes."""
    axes = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    found = centred * torch.rsqrt(torch.square(centred).mean(axes, keepdim=True) + eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def prod(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the product along an axis."""
    require(isinstance(dim, int), "Taylor mode takes prod along one axis: prod(dim)")
    found = reduce(torch.mul, (x.select(dim, i) for i in range(x.shape[dim])))
    return found.unsqueeze(dim) if keepdim else found


def norm(x: Any, p: Any = None, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:
    """Return the Euclidean norm along an axis; it has no derivative at zero."""
    axis = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    fits = more.get("ord", p) in (None, 2, "fro") and isinstance(axis, int)
    require(fits, "Taylor mode takes Euclidean norms along one axis: norm(dim=...)")
    return torch.sqrt(torch.square(x).sum(axis, keepdim=keepdim))


COMPOSITE: dict[str, Callable[..., Any]] = {
    "softmax": softmax,
    "layer_norm": layer_norm,
    "prod": prod,
    "norm": norm,
    "linalg_norm": norm,
    "linalg_vector_norm": norm,
}
