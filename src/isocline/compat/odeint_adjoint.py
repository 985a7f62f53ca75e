r"""`odeint_adjoint` with torchdiffeq's signature: gradients from the adjoint equation, solved backwards (arXiv 1806.07366).

The mode behind it is `isocline.integrators.Backsolve`. Its gradient is that of the exact solution to the tolerance of the way
back; `Checkpointed` and, for reversible methods, `ReversibleAdjoint` give the gradient of the steps themselves for as little
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.compat.methods import ADAPTIVE
from isocline.compat.odeint import solved
from isocline.compat.options import adaptive
from isocline.integrators import Backsolve
from isocline.integrators.controllers.base import Controller


def odeint_adjoint(
    func: Callable[[Tensor, Any], Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
    adjoint_rtol: float | None = None,
    adjoint_atol: float | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """Integrate as `odeint`; gradients by the adjoint equation, in memory that does not grow with the steps.

    Args:
        func: as in `odeint`.
        y0: as in `odeint`.
        t: as in `odeint`.
        rtol: as in `odeint`.
        atol: as in `odeint`.
        method: as in `odeint`.
        options: as in `odeint`.
        event_fn: not available here; `odeint` has gradients of events.
        adjoint_rtol: relative tolerance of the way back; `rtol` by default.
        adjoint_atol: absolute tolerance of the way back; `atol` by default.
        adjoint_method: the same as `method`, or None.
        adjoint_options: ``{"norm": "seminorm"}`` leaves gradients of parameters out of the error that steers the way back.
        adjoint_params: tensors that `func` depends on; searched for in it by default, which need not be a module.

    Returns:
        States (T, *), in the structure of `y0`.

    Raises:
        InvalidInput: the arguments do not fit together, or an option is not known.
        NotFinite: the integration failed, or in the backward pass the adjoint equation did.

    Examples:
        >>> rate = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> ys = odeint_adjoint(lambda t, y: -rate * y, torch.ones(1, dtype=torch.float64), t, adjoint_params=(rate,))
        >>> ys[-1].sum().backward()
        >>> round(float(rate.grad), 6)  # -exp(-2)
        -0.135335
    """
    require(event_fn is None, "odeint_adjoint has no gradient of events: use odeint, whose events have gradients")
    same = adjoint_method in (None, method, method or "dopri5")
    require(same, "the way back is made by the same method: leave adjoint_method out")
    asked = dict(adjoint_options or {})
    require(
        asked in ({}, {"norm": "seminorm"}) or asked == dict(options or {}),
        'adjoint_options may be {"norm": "seminorm"}; tolerances are adjoint_rtol and adjoint_atol',
    )
    mode = Backsolve(
        controller=_steering(method, options, (rtol, atol), (adjoint_rtol, adjoint_atol)),
        seminorm=asked.get("norm") == "seminorm",
        parameters=None if adjoint_params is None else tuple(adjoint_params),
    )
    return solved(func, y0, t, rtol, atol, method, options, None, mode)


def _steering(
    method: str | None, options: Any, tolerances: tuple[Any, Any], back: tuple[float | None, float | None]
) -> Controller | None:
    """Return what chooses the steps backwards; None for that of the way there, where steps are fixed."""
    if (method or "dopri5") not in ADAPTIVE:
        require(back == (None, None), f"{method} takes fixed steps: it has no tolerances")
        return None
    rtol, atol = (there if given is None else given for given, there in zip(back, tolerances, strict=True))
    plain = torch.as_tensor(atol).numel() == 1
    require(plain, "a tensor atol cannot be spread over the adjoint state: pass adjoint_atol as one number")
    return adaptive(rtol, float(torch.as_tensor(atol)), options)
