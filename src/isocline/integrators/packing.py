"""States of any structure as one tensor: the loop and the methods see a tensor, the field sees what the user gave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, require


@dataclass(frozen=True)
class Packing:
    """How a nested state lies in one tensor.

    A single tensor stays as it is. The leaves of a structure are flattened and joined: to shape (N,), or to (B, N) where each
    sample has steps of its own and the leaves have shape (B, *).

    Args:
        spec: the structure, or None for a single tensor.
        shapes: of the leaves, without the batch axis where there is one.
        batched: whether the first axis of every leaf counts samples.
    """

    spec: Any
    shapes: tuple[torch.Size, ...]
    batched: bool

    @classmethod
    def of(cls, y0: Any, *, batched: bool = False) -> Packing:
        """Return the packing of a state; its leaves must be floating-point tensors of one dtype and device."""
        leaves, spec = pytree.tree_flatten(y0)
        require(bool(leaves), "the state y0 is empty: it needs at least one tensor")
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise InvalidInput(f"the state must be made of tensors, got {type(leaf).__name__}; use torch.as_tensor")
            kind = f"the state has dtype {leaf.dtype}; integrate a floating-point or complex tensor, e.g. y0.double()"
            require(leaf.is_floating_point() or leaf.is_complex(), kind)
            same = leaf.dtype == leaves[0].dtype and leaf.device == leaves[0].device
            require(same, "the tensors of the state differ in dtype or device; bring them to one")
        if batched:
            sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
            one = len(sizes) == 1 and None not in sizes
            require(one, f'batching="per-sample" needs tensors of shape (B, *), got {[tuple(x.shape) for x in leaves]}')
        shapes = tuple(leaf.shape[1:] if batched else leaf.shape for leaf in leaves)
        return cls(None if isinstance(y0, Tensor) else spec, shapes, batched)

    def pack(self, y: Any) -> Tensor:
        """Return the state as one tensor; extra leading axes, where there are any, stay."""
        if self.spec is None:
            return y
        leaves = pytree.tree_leaves(y)
        flat = [x.reshape((*x.shape[: x.ndim - len(shape)], -1)) for x, shape in zip(leaves, self.shapes, strict=True)]
        return torch.cat(flat, dim=-1)

    def unpack(self, packed: Tensor) -> Any:
        """Return the user's structure of views; leading axes (times, samples) stay in front."""
        if self.spec is None:
            return packed
        parts = packed.split([math.prod(shape) for shape in self.shapes], dim=-1)
        leaves = [part.reshape((*part.shape[:-1], *shape)) for part, shape in zip(parts, self.shapes, strict=True)]
        return pytree.tree_unflatten(leaves, self.spec)

    @property
    def event_dims(self) -> int:
        """Number of axes of one packed sample (per-sample) or of the whole packed state (joint)."""
        return len(self.shapes[0]) if self.spec is None else 1
