r"""Errors of predicted fields, one for each case: relative norms, VRMSE, correlation, how long a rollout stays correlated.

Fields are ``(B, T, *S, C)``: cases, times, axes of space, channels. With ``<.>`` for the mean over space,

    relative L_p   |u - v|_p / |v|_p       over space and channels, at each time
    NMSE           <(u - v)^2> / <v^2>     for each channel and time
    VRMSE          sqrt(<(u - v)^2> / <(v - <v>)^2>)     for each channel and time; predicting the mean scores 1

(VRMSE: Ohana et al., The Well, arXiv 2412.00568). The correlation is Pearson's, of all values at one time. The high-correlation
time is when it first falls below a threshold, between two frames by linear interpolation (Lippe et al., arXiv 2308.05732).
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require

EPS = 1e-7


def relative_error(u: Tensor, v: Tensor, p: float = 2.0) -> Tensor:
    """Return the relative L_p distance of predictions u from v, both ``(B, T, *S, C)``, at each time: (B, T).

    Where v is zero everywhere it is infinite, or NaN where both are.
    """
    _same(u, v)
    return _norm(u - v, p) / _norm(v, p)


def nmse(u: Tensor, v: Tensor) -> Tensor:
    """Return the squared error over the mean square of v, for each channel and time: (B, T, C)."""
    _same(u, v)
    return _mean((u - v).square()) / _mean(v.square())


def vrmse(u: Tensor, v: Tensor, eps: float = EPS) -> Tensor:
    """Return the root of the squared error over the variance of v in space, for each channel and time: (B, T, C).

    Source: arXiv 2412.00568; `eps` is added to the variance, as there.

    Examples:
        >>> v = torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1)
        >>> round(float(vrmse(torch.full_like(v, 2.0), v)), 4)
        1.0
    """
    _same(u, v)
    centred = v - _spread(_mean(v), v)
    return (_mean((u - v).square()) / (_mean(centred.square()) + eps)).sqrt()


def correlation(u: Tensor, v: Tensor) -> Tensor:
    """Return Pearson's correlation of all values at each time, (B, T); 0 where one of the two does not vary."""
    _same(u, v)
    a, b = (w.flatten(2) - w.flatten(2).mean(-1, keepdim=True) for w in (u, v))
    scale = a.norm(dim=-1) * b.norm(dim=-1)
    return torch.where(scale > 0, (a * b).sum(-1) / scale.where(scale > 0, torch.ones_like(scale)), 0.0)


def high_correlation_time(correlations: Tensor, t: Tensor, threshold: float = 0.9) -> Tensor:
    """Return when the correlation first falls below `threshold`, for each case (B,), in the unit of t.

    Args:
        correlations: (B, T); at ``t = 0`` it is 1. A NaN counts as 0.
        t: times since the start, (T,) or (B, T), positive and increasing.
        threshold: usually 0.8 or 0.9.

    Returns:
        The last time for cases that never fall below: then it is a lower bound.

    Examples:
        >>> high_correlation_time(torch.tensor([[1.0, 0.8, 0.2]]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1.5000])
    """
    require(correlations.ndim == 2, f"correlations are (B, T), got {tuple(correlations.shape)}")
    t = t.expand_as(correlations).to(correlations.dtype)
    c = torch.cat([torch.ones_like(correlations[:, :1]), correlations.nan_to_num(0.0)], 1)
    t = torch.cat([torch.zeros_like(t[:, :1]), t], 1)
    below = c < threshold
    first = below.int().argmax(1).clamp(min=1)[:, None]
    high, low = c.gather(1, first - 1), c.gather(1, first)
    share = (high - threshold) / (high - low).where(high > low, torch.ones_like(high))
    found = t.gather(1, first - 1) + share * (t.gather(1, first) - t.gather(1, first - 1))
    return torch.where(below.any(1), found[:, 0], t[:, -1])


def _same(u: Tensor, v: Tensor) -> None:
    require(
        u.shape == v.shape and u.ndim >= 3,
        f"fields are ``(B, T, *S, C)`` and of one shape, got {tuple(u.shape)} and {tuple(v.shape)}",
    )


def _norm(w: Tensor, p: float) -> Tensor:
    return torch.linalg.vector_norm(w.flatten(2), p, dim=-1)


def _mean(w: Tensor) -> Tensor:
    """Return the mean over space, (B, T, C)."""
    return w.flatten(2, -2).mean(2) if w.ndim > 3 else w


def _spread(m: Tensor, like: Tensor) -> Tensor:
    return m.reshape(*m.shape[:2], *[1] * (like.ndim - 3), m.shape[-1])
