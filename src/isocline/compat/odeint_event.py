"""`odeint_event` with torchdiffeq's signature: integrate until an event, whose time has gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isocline.compat.odeint import odeint


def odeint_event(
    func: Callable[[Tensor, Any], Any],
    y0: Any,
    t0: Tensor,
    *,
    event_fn: Callable[[Tensor, Any], Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **settings: Any,
) -> Any:
    """Return the time of the event and the states (2, *) at the start and there; both have gradients.

    Args:
        func: ``func(t, y)``, the derivative in the structure of `y0`.
        y0: the first state: a tensor, or a tuple of tensors of one dtype.
        t0: start, a tensor with one element.
        event_fn: ``event_fn(t, y)``; of several values the first that becomes zero counts. It is looked for over 10^6 units of
            time.
        reverse_time: integrate backwards.
        odeint_interface: `odeint`.
        settings: `rtol`, `atol`, `method`, `options` of `odeint`.

    Raises:
        NotFinite: the event did not happen, or the integration failed before.

    Examples:
        >>> fall = lambda t, y: torch.stack([y[1], torch.full_like(y[1], -9.81)])
        >>> y0, t0 = torch.tensor([10.0, 0.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        >>> t, y = odeint_event(fall, y0, t0, event_fn=lambda t, y: y[0])
        >>> round(float(t), 4)  # sqrt(2 * 10 / 9.81)
        1.4278
    """
    start = t0.reshape(1)
    ahead = start.detach() + (-1.0 if reverse_time else 1.0)
    return odeint_interface(func, y0, torch.cat([start, ahead]), event_fn=event_fn, **settings)
