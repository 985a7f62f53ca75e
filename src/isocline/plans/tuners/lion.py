r"""Lion: the sign of momentum (Chen et al., arXiv 2302.06675).

    p <- p - rate sign( b_1 m + (1 - b_1) g ) ,      m <- b_2 m + (1 - b_2) g .

Every number moves by the same amount, however small its gradient, so weights of late rows keep pace with times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """The optimiser, without weight decay.

    Args:
        params: what to move.
        lr: how far each step moves each number.
        betas: the two momenta ``b_1`` and ``b_2``.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.sub_(group["lr"] * torch.sign(momentum.lerp(p.grad, 1 - first)))
                momentum.lerp_(p.grad, 1 - second)
