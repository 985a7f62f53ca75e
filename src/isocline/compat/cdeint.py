r"""`cdeint` with torchcde's signature (Kidger, Morrill, Foster and Lyons, arXiv 2005.08926), over `odeint` and `odeint_adjoint`.

z(t) = z0 + int_{t_0}^t f(s, z) dX_s ,        dz/dt = f(t, z) X'(t)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.compat.odeint import odeint
from isocline.compat.odeint_adjoint import odeint_adjoint
from isocline.integrators.cde import contracted


def cdeint(
    X: Any,
    func: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    t: Tensor,
    adjoint: bool = True,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    adjoint_rtol: float | None = None,
    adjoint_atol: float | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Tensor:
    """Integrate ``dz = func(t, z) dX`` from ``z(t[0]) = z0``.

    Args:
        X: a control path such as `isocline.integrators.HermitePath`, or anything with ``derivative(t)`` that returns (..., C).
        func: ``func(t, z)``, returns (..., hidden, C); where it has a method ``prod(t, z, dXdt)``, that is called.
        z0: first state, (..., hidden).
        t: (T,) times, strictly increasing or decreasing.
        adjoint: gradients by the adjoint equation, solved backwards; by backpropagation through the steps where it is False.
        rtol: tolerated error relative to the state, for methods that choose their steps.
        atol: tolerated absolute error.
        method: as in `odeint`.
        options: as in `odeint`; ``{"jump_t": X.knots}`` where the derivative of the path jumps.
        adjoint_rtol: as in `odeint_adjoint`.
        adjoint_atol: as in `odeint_adjoint`.
        adjoint_options: as in `odeint_adjoint`.
        adjoint_params: as in `odeint_adjoint`; searched for in `func` and `X` by default.

    Returns:
        States (..., T, hidden).

    Raises:
        InvalidInput: the arguments do not fit together, or an option is not known.
        NotFinite: the integration failed; the text names the time, the cause and the way out.

    Examples:
        >>> import torch
        >>> from isocline.integrators import LinearPath
        >>> t = torch.tensor([0.0, 1.0])
        >>> X = LinearPath(t, torch.tensor([[0.0], [1.0]]))
        >>> cdeint(X, lambda t, z: z[..., None], torch.ones(1), t).squeeze()  # dz = z dX
        tensor([1.0000, 2.7183])
    """
    if not hasattr(X, "derivative"):
        raise InvalidInput(f"X must be a control path such as HermitePath(times, values), got {type(X).__name__}")
    require(
        isinstance(z0, Tensor), f"z0 must be a tensor, got {type(z0).__name__}; for structures use integrate(CDE(...))"
    )
    product = getattr(func, "prod", None)

    def driven(s: Tensor, z: Tensor) -> Tensor:
        slope = X.derivative(s)
        return product(s, z, slope) if product is not None else contracted(func(s, z), z, slope, slope.ndim - 1)

    given: dict[str, Any] = {"rtol": rtol, "atol": atol, "method": method, "options": options}
    back: dict[str, Any] = {
        "adjoint_rtol": adjoint_rtol,
        "adjoint_atol": adjoint_atol,
        "adjoint_options": adjoint_options,
        "adjoint_params": adjoint_params,
    }
    if adjoint:
        states = odeint_adjoint(driven, z0, t, **given, **back)
    else:
        asked = ", ".join(name for name, value in back.items() if value is not None)
        require(not asked, f"{asked} has no meaning with adjoint=False")
        states = odeint(driven, z0, t, **given)
    found: Tensor = states.movedim(0, -2)
    return found
