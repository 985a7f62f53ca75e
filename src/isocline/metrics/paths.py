r"""How straight the paths of a flow are.

With time scaled to ``u`` in [0, 1] along a path ``x_u`` from ``x_0`` to ``x_1``:

    straightness         S = int E |(x_1 - x_0) - dx/du|^2 du              (Liu et al., arXiv 2209.03003)
    curvature            C = E [ 1 - |x_1 - x_0| / length of the path ]
    first-order defect   F = int E |e(x_t, t) - eps|^2 du                  (Wang et al., arXiv 2410.07303)

``S`` is zero for straight paths of constant speed; Lee et al. (arXiv 2301.12003) call it the average curvature. ``C`` lies in
[0, 1) and does not know the speed, nor the unit. ``F`` is zero where the noise prediction stays constant on the path ``x_t = alpha
x_0 + sigma eps`` of a pair: such paths are straight in ``(x / alpha, sigma / alpha)``, so that DDIM is exact in one step, and may
be curved in ``x``. Pass ``x / alpha`` and ``sigma / alpha`` as states and times to measure the other two there.

Recorded states give the polygon through them: its ``S`` and ``C`` are those of a smooth path from below, and grow with the
number of states.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import Mismatch, require
from isocline._core.estimate import Estimate
from isocline._core.registry import Method
from isocline.metrics.mean import mean_estimate

Field = Callable[[Tensor, Tensor], Tensor]

DEFECT = Method(
    "first-order-defect",
    "First-order defect",
    "Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow",
    "Fu-Yun Wang, Ling Yang, Zhaoyang Huang, Mengdi Wang, Hongsheng Li",
    2024,
    "2410.07303",
    room="metrics",
    when="Whether few DDIM steps suffice; the path need not be straight in x for that.",
)


def straightness(states: Tensor, times: Tensor, velocity: Field | None = None, level: float = 0.95) -> Estimate:
    """Return ``S`` over recorded paths with its interval, in the squared unit of the states; 0 for straight paths.

    Args:
        states: (n+1, B, *), B independent paths.
        times: (n+1,) strictly monotone; their unit does not matter.
        velocity: ``(x, t) -> dx/dt`` (B, *), integrated by the trapezoidal rule; the polygon's own velocity by default.
        level: coverage of the interval.

    Examples:
        >>> u = torch.linspace(0, 1, 5)[:, None, None]
        >>> straightness(u * torch.ones(5, 3, 2), u.flatten()).value
        0.0
    """
    flat, share = _paths(states, times)
    chord = flat[-1] - flat[0]
    if velocity is None:
        defects = (chord - flat.diff(dim=0) / share[:, None, None]).square().sum(-1)
        return mean_estimate((share[:, None] * defects).sum(0), level)
    span = float(times[-1] - times[0])
    return _average(lambda x, t: chord - span * _flat(velocity, x, t), states, times, share, level)


def curvature(states: Tensor, level: float = 0.95) -> Estimate:
    """Return ``C`` over recorded paths with its interval: 0 for straight paths, near 1 for paths that return.

    Args:
        states: (n+1, B, *), B independent paths; their speed does not matter.
        level: coverage of the interval.

    Examples:
        >>> angle = torch.linspace(0, torch.pi, 101)[:, None]
        >>> half_circle = torch.stack([angle.cos(), angle.sin()], -1).expand(101, 3, 2)
        >>> round(curvature(half_circle).value, 4)  # 1 - 2 / pi
        0.3634
    """
    flat, _ = _paths(states, torch.arange(len(states)))
    length = torch.linalg.vector_norm(flat.diff(dim=0), dim=-1).sum(0)
    chord = torch.linalg.vector_norm(flat[-1] - flat[0], dim=-1)
    return mean_estimate(torch.where(length > 0, 1 - chord / length, 0.0).clamp_min(0), level)


@DEFECT.variant()
def first_order_defect(noise: Field, states: Tensor, eps: Tensor, times: Tensor, level: float = 0.95) -> Estimate:
    """Return ``F`` with its interval over pairs of datum and noise; 0 where DDIM is exact in one step.

    Args:
        noise: noise prediction ``(x, t) -> e`` (B, *), for example ``lambda x, t: denoiser.predict(x, t).eps``.
        states: (n+1, B, *), ``alpha x_0 + sigma eps`` of each pair at each time.
        eps: (B, *), the noise of the pairs.
        times: (n+1,) strictly monotone; ``du`` is proportional to ``dt``.
        level: coverage of the interval.
    """
    _, share = _paths(states, times)
    require(eps.shape == states.shape[1:], f"eps needs the shape {tuple(states.shape[1:])}, got {tuple(eps.shape)}")
    target = eps.flatten(1).double()
    return _average(lambda x, t: _flat(noise, x, t) - target, states, times, share, level)


def _average(defect: Field, states: Tensor, times: Tensor, share: Tensor, level: float) -> Estimate:
    """Return the mean over paths of ``int |defect|^2 du`` by the trapezoidal rule."""
    squares = torch.stack([defect(x, t).square().sum(-1) for x, t in zip(states, times, strict=True)])
    return mean_estimate((share[:, None] * (squares[1:] + squares[:-1]) / 2).sum(0), level)


def _flat(field: Field, x: Tensor, t: Tensor) -> Tensor:
    found = field(x, t)
    if found.shape != x.shape:
        raise Mismatch(f"the field returned shape {tuple(found.shape)} for states of shape {tuple(x.shape)}")
    return found.flatten(1).double()


def _paths(states: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states as (n+1, B, d) in float64, and the share (n,) of the time that each step takes."""
    require(
        states.ndim >= 3 and len(states) >= 2, f"paths are (n+1, B, *) with n at least 1, got {tuple(states.shape)}"
    )
    fits = times.shape == states.shape[:1]
    require(fits, f"{len(states)} states need as many times, got shape {tuple(times.shape)}")
    steps = times.double().diff()
    monotone = bool((steps > 0).all() or (steps < 0).all())
    require(monotone, "times must be strictly monotone; of a plan with stages keep the states at its nodes")
    return states.flatten(2).double(), steps / steps.sum()
