r"""Proportional-integral-derivative step control.

With ``r_n`` the error ratio of attempt ``n`` and ``k`` the power of h in the error estimate (Soderlind, "Digital filters in
adaptive time-stepping", ACM TOMS 29, 2003):

    h_{n+1} = h_n * clip(0.9 r_n^{-b1} r_{n-1}^{-b2} r_{n-2}^{-b3}, 0.2, 10)
    b1 = (P + I + D) / k ,    b2 = -(P + 2 D) / k ,    b3 = D / k

Earlier ratios are those of accepted steps. A rejected attempt is repeated with a factor below one; one with a result that is not
finite, with the smallest factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.integrators.controllers.base import Array, Decision, Memory

Norm = Callable[[Tensor, int], Tensor]
T = TypeVar("T", Array, Tensor)


def plain(x: Tensor) -> Tensor:
    """Return the tensor without its gradient; itself where it has none, which costs nothing."""
    return x.detach() if x.requires_grad else x


def rms_norm(x: Tensor, event_dims: int) -> Tensor:
    """Return the root mean square over the last `event_dims` axes."""
    if event_dims == x.ndim:
        return torch.linalg.vector_norm(x) * max(1, x.numel()) ** -0.5
    if event_dims == 0:
        return x.abs()
    axes = tuple(range(x.ndim - event_dims, x.ndim))
    return torch.linalg.vector_norm(x, dim=axes) * max(1, math.prod(x.shape[-event_dims:])) ** -0.5


def max_norm(x: Tensor, event_dims: int) -> Tensor:
    """Return the largest absolute value over the last `event_dims` axes."""
    axes = tuple(range(x.ndim - event_dims, x.ndim))
    return x.abs().amax(axes) if axes else x.abs()


@dataclass(frozen=True)
class PID:
    """Steps chosen so that the local error stays near what is tolerated.

    Args:
        rtol: tolerated error relative to the state.
        atol: tolerated absolute error; a number, or a tensor that broadcasts against the packed state.
        p: proportional coefficient; ``p=0.4, i=0.3`` for fields that change abruptly, ``p=0.1, i=0.3`` for SDEs.
        i: integral coefficient.
        d: derivative coefficient.
        norm: ``(error ratios (*), number of axes of one sample) -> ()`` or (B,).
        safety: factor on every proposed step.
        shrink: smallest factor between two steps.
        grow: largest factor between two steps.

    Examples:
        >>> import numpy as np
        >>> controller = PID(1e-5, 1e-5)
        >>> found = controller.decide(np.array(0.1), np.array(2.0**-5), controller.start(()), order=5)
        >>> bool(found.accept), round(float(found.h), 3)  # the error is 32 times below: 0.9 * 32^(1/5) = 1.8
        (True, 0.18)
    """

    rtol: float
    atol: float | Tensor
    p: float = 0.0
    i: float = 1.0
    d: float = 0.0
    norm: Norm = rms_norm
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0

    adaptive = True

    def __post_init__(self) -> None:
        low = float(torch.as_tensor(self.atol).min())
        require(self.rtol >= 0 and low >= 0, f"tolerances cannot be negative, got rtol={self.rtol}, atol={low}")
        require(self.rtol > 0 or low > 0, "rtol and atol are both zero: no step could be accepted")
        if not 0 < self.shrink < 1 < self.grow or not 0 < self.safety < 1:
            raise InvalidInput("step factors need 0 < shrink < 1 < grow and 0 < safety < 1")
        require(self.p + self.i + self.d > 0, "the coefficients p, i and d must add up to more than zero")

    @property
    def stops(self) -> Sequence[float]:
        """None."""
        return ()

    @property
    def jumps(self) -> Sequence[float]:
        """None."""
        return ()

    def start(self, shape: tuple[int, ...]) -> Memory:
        """Return two earlier ratios of one."""
        return np.ones(shape), np.ones(shape)

    def scale(self, y: Tensor) -> Tensor:
        """Return what is tolerated at a state, shape (*)."""
        return self.atol + self.rtol * y.detach().abs()

    def ratio(self, error: Tensor | None, y: Tensor, y1: Tensor, event_dims: int) -> Tensor:
        """Return the norm of the error over what is tolerated at the larger of both states."""
        if error is None:
            raise InvalidInput("this method has no error estimate: pass dt0 and constant steps, or another method")
        tolerated = torch.maximum(plain(y).abs(), plain(y1).abs()).mul_(self.rtol).add_(self.atol)
        return self.norm(error / tolerated, event_dims)

    def decide(self, h: Array, ratio: Array, memory: Memory, order: int) -> Decision:
        """Return the decision of the filter above."""
        accept = ratio <= 1.0  # not where the ratio is NaN
        inverse = 1.0 / np.maximum(ratio, 1e-12)
        factor = self._factor(inverse, memory, order)
        if self.p or self.d:
            memory = np.where(accept, inverse, memory[0]), np.where(accept, memory[0], memory[1])
        factor = np.fmin(np.fmax(factor, self.shrink), np.where(accept, self.grow, self.safety))
        return Decision(accept, h * factor, memory)

    def filtered(
        self, ratio: Tensor, memory: tuple[Tensor, ...], order: int
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return `decide`'s acceptance, factor and memory for tensors, as compiled loops need it."""
        accept = ratio <= 1.0
        inverse = 1.0 / ratio.clamp(min=1e-12)
        factor = self._factor(inverse, memory, order).nan_to_num(nan=self.shrink).clamp(min=self.shrink)
        factor = torch.where(accept, factor.clamp(max=self.grow), factor.clamp(max=self.safety))
        kept = torch.where(accept, inverse, memory[0]), torch.where(accept, memory[0], memory[1])
        return accept, factor, kept

    def _factor(self, inverse: T, memory: tuple[T, ...], order: int) -> T:
        factor = self.safety * inverse ** ((self.p + self.i + self.d) / order)
        if self.p or self.d:
            factor = factor * memory[0] ** (-(self.p + 2 * self.d) / order) * memory[1] ** (self.d / order)
        return factor
