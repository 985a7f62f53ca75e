"""A field that takes a value on the sphere around a ball by construction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.points import Ball


class BallAnsatz(nn.Module):
    r"""The field ``u(x) = g + (1 - |y|^2) N(sqrt(d + 2) y)``, ``y = (x - c) / R``, of a ball of radius R around c; g on the sphere.

    Uniform points have coordinates of variance ``1 / (d + 2)``; the network sees them with variance one.

    Args:
        body: any module (N, d) to (N, k).
        ball: the domain.
        values: g, a number for each of the k outputs; 0 by default.

    Examples:
        >>> field = BallAnsatz(nn.Linear(2, 1), Ball((0.0, 0.0)), (3.0,))
        >>> float(field(torch.tensor([[0.6, 0.8]])).detach())
        3.0
    """

    centre: Tensor
    values: Tensor

    def __init__(self, body: nn.Module, ball: Ball, values: tuple[float, ...] = (0.0,)) -> None:
        super().__init__()
        require(isinstance(ball, Ball), f"a BallAnsatz needs a Ball, got {type(ball).__name__}")
        self.body, self.radius, self.scale = body, ball.radius, math.sqrt(ball.d + 2)
        dtype = next((p.dtype for p in body.parameters()), torch.float64)
        self.register_buffer("centre", torch.tensor(ball.centre, dtype=dtype))
        self.register_buffer("values", torch.tensor(values, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return u (N, k) at points (N, d)."""
        y = (x - self.centre) / self.radius
        found: Tensor = self.values + (1 - torch.linalg.vecdot(y, y)).unsqueeze(1) * self.body(self.scale * y)
        return found
