r"""Control paths X: R -> R^C, piecewise polynomials that are made of data.

On the piece [t_i, t_{i+1}),

    X(t) = c_{i,0} + c_{i,1} s + ... + c_{i,P-1} s^{P-1} ,        s = t - t_i

Outside of its span a path stands still: it has the value of its nearer end and the derivative 0. So a sample that ends before its
batch mates is not driven on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators.controllers.base import Controller
from isocline.integrators.controllers.clip import Clip


@dataclass(frozen=True, eq=False)
class ControlPath:
    """A piecewise polynomial path, one for each sample of a batch.

    Gradients reach the values that a path was made of, not their times.

    Args:
        pieces: where pieces begin and end, (N + 1,) or (*, N + 1), float64, increasing.
        coefficients: (*, N, P, C), from the constant upwards.
        end: where the path ends, () or (*); pieces beyond it are padding.
        smooth: whether the derivative is continuous.
    """

    pieces: Tensor = field(repr=False)
    coefficients: Tensor = field(repr=False)
    end: Tensor
    smooth: bool = True

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.coefficients.shape[-1]

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch, (*); () where one path drives all samples."""
        return tuple(self.coefficients.shape[:-3])

    @property
    def start(self) -> Tensor:
        """Where the path starts, () or (*), float64."""
        return self.pieces[..., 0]

    @property
    def knots(self) -> tuple[float, ...]:
        """Times at which pieces meet, both ends included, of all samples together; for ``Clip(times=...)`` and `Steps`."""
        inside = self.pieces <= self.end[..., None]
        return tuple(self.pieces.expand(inside.shape)[inside].unique().tolist())

    @property
    def jumps(self) -> tuple[float, ...]:
        """Times strictly inside the span of the batch at which the derivative jumps; for ``Clip(jump_times=...)``."""
        ends = torch.cat([self.start.reshape(-1), self.end.reshape(-1)]).unique().tolist()
        return tuple(ends if self.smooth else self.knots)[1:-1]

    def clip(self, inner: Controller) -> Clip:
        """Return the controller with steps that end where pieces meet, and that start afresh behind a jump of the derivative.

        Inside a piece the path is smooth. A step across the end of one has order 1 or 2 whatever the method, and its
        error estimate may not tell. Where samples have times of their own, the steps end at those of all samples. Methods
        of several steps (`AdamsBashforth`) want ``Clip(inner, jump_times=path.knots)``, which starts afresh at every piece.
        """
        return Clip(inner, times=self.knots, jump_times=self.jumps)

    def evaluate(self, t: Tensor | float, rows: Tensor | None = None) -> Tensor:
        """Return X(t).

        Args:
            t: broadcasts against a value of the path, (*, C): a number, (B, 1) for a time of each sample, (m, 1, 1) for m
                times of a batch (B,), (m, 1) for m times of a single path.
            rows: which samples of the batch `t` is about, (m,); all by default.

        Returns:
            (*, C), or more leading axes where `t` has them.
        """
        _, s, powers = self._at(t, rows)
        return _horner(s, list(powers))

    def derivative(self, t: Tensor | float, rows: Tensor | None = None) -> Tensor:
        """Return X'(t), to the right of `t` where it jumps; arguments and shape as in `evaluate`."""
        still, s, powers = self._at(t, rows)
        return _horner(s, [powers[1], *(k * c for k, c in enumerate(powers[2:], 2))]).masked_fill(still, 0.0)

    @cached_property
    def _search(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What is searched: where new pieces begin; start and end (..., 1); size of the times; first piece of each sample."""
        inner, end, start = self.pieces[..., 1:-1], self.end[..., None], self.pieces[..., :1]
        inner = torch.where(inner < end, inner, torch.inf).contiguous()
        first = torch.arange(math.prod(self.batch), device=inner.device).reshape(self.batch)
        return inner, start, end, start.abs() + end.abs(), first

    def _at(self, t: Tensor | float, rows: Tensor | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return whether the path stands still at `t`, where in its piece `t` lies (..., 1), and P coefficients (..., C)."""
        t = _time(t)
        inner, start, end, size, sample = self._search
        if rows is not None and self.batch:
            sample, inner = sample[rows], inner[rows] if inner.ndim > 1 else inner
            start, end, size = (x[rows] if x.ndim > 1 else x for x in (start, end, size))
        time = t.to(start)
        inside = torch.clamp(time, start, end)
        still = (time - inside).abs() > 2 * torch.finfo(t.dtype).eps * size  # t + h may miss the end by rounding
        place = _located(inner, inside.detach())
        n, *shape = self.coefficients.shape[-3:]
        row = sample * n + place
        powers = self.coefficients.reshape(-1, *shape).index_select(0, row.reshape(-1)).reshape(*row.shape, *shape)
        edge = place if self.pieces.ndim == 1 else row + sample  # each sample has one edge more than pieces
        begin = self.pieces.reshape(-1).index_select(0, edge.reshape(-1)).reshape(edge.shape)
        return still, (inside - begin[..., None]).to(powers), powers.unbind(-2)


def _located(inner: Tensor, t: Tensor) -> Tensor:
    """Return how many of the sorted numbers (n,) or (*, n) are not larger than `t` (..., 1) or (..., *, 1)."""
    if inner.ndim == 1:
        return torch.searchsorted(inner, t[..., 0], right=True)
    moments = t.reshape(-1, *inner.shape[:-1]).movedim(0, -1).contiguous()
    return torch.searchsorted(inner, moments, right=True).movedim(-1, 0).reshape(t.shape[:-1])


def _time(t: Tensor | float) -> Tensor:
    t = t if isinstance(t, Tensor) and t.is_floating_point() else torch.as_tensor(t, dtype=torch.float64)
    if t.ndim and t.shape[-1] != 1:
        raise InvalidInput(
            f"t has shape {tuple(t.shape)}; it must broadcast against X(t): pass (), (B, 1) or (m, 1, 1)"
        )
    return t


def _horner(s: Tensor, powers: list[Tensor]) -> Tensor:
    total = powers[-1]
    for c in reversed(powers[:-1]):
        total = total * s + c
    return total
