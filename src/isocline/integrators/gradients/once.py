"""Gradients that can be had once: a second derivative is refused, also of linear losses, where torch would let it be zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput


class _Once(torch.autograd.Function):
    """The identity, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, mode: str, gradient: Tensor, *behind: Tensor) -> Tensor:
        ctx.mode = mode
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise InvalidInput(f"{ctx.mode} has no second derivatives (create_graph=True): pass gradient=Direct()")


def once(gradients: Sequence[Tensor | None], behind: Sequence[Tensor | None], mode: str) -> tuple[Tensor | None, ...]:
    """Return gradients that raise where they are differentiated; `behind` are the tensors that they depend on."""
    if not torch.is_grad_enabled():
        return tuple(gradients)
    needed = [x for x in behind if x is not None and x.requires_grad]
    return tuple(None if g is None else _Once.apply(mode, g, *needed) for g in gradients)
