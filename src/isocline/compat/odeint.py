r"""`odeint` with torchdiffeq's signature (Chen et al., arXiv 1806.07366), over `isocline.integrators.integrate`.

Gradients with respect to the times follow from the equation and cost one evaluation for each time that wants them:

    dL/dt_i = <dL/dy_i, f(t_i, y_i)> ,       dL/dt_0 = -<dL/dy(t_0), f(t_0, y_0)>

where ``dL/dy(t_0)`` is what later states say about the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, require
from isocline.compat.options import setup
from isocline.integrators import Direct, Event, Gradient, SaveAt, integrate

FAR = 1e6
CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
) -> Any:
    """Integrate ``dy/dt = func(t, y)`` from ``y(t[0]) = y0``; gradients by backpropagation through the steps.

    Args:
        func: ``func(t, y)``, the derivative in the structure of `y0`.
        y0: the first state: a tensor, or a tuple of tensors of one dtype.
        t: (T,) times, strictly increasing or decreasing; may want gradients.
        rtol: tolerated error relative to the state, for methods that choose their steps.
        atol: tolerated absolute error; a number, or a tensor that broadcasts against `y0`.
        method: ``"dopri5"`` (default), ``"dopri8"``, ``"tsit5"``, ``"bosh3"``, ``"fehlberg2"``, ``"adaptive_heun"``; with fixed
            steps ``"euler"``, ``"midpoint"``, ``"heun2"``, ``"heun3"``, ``"rk4"``, ``"explicit_adams"``, ``"implicit_adams"``.
        options: see the migration page; what is not known is refused.
        event_fn: ``event_fn(t, y)``: integrate from ``t[0]`` in the direction of ``t[1]`` until it is zero.

    Returns:
        States (T, *), in the structure of `y0`; with `event_fn` the time of the event and the states (2, *) at the start and
        there.

    Raises:
        InvalidInput: the arguments do not fit together, or an option is not known.
        NotFinite: the integration failed; the text names the time, the cause and the way out.

    Examples:
        >>> t = torch.linspace(0, 1, 3, dtype=torch.float64)
        >>> odeint(lambda t, y: -y, torch.ones(1, dtype=torch.float64), t).squeeze()
        tensor([1.0000, 0.6065, 0.3679], dtype=torch.float64)
    """
    return solved(func, y0, t, rtol, atol, method, options, event_fn, Direct())


def solved(
    func: Callable[[Tensor, Any], Any],
    y0: Any,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str | None,
    options: Any,
    event_fn: Callable[[Tensor, Any], Tensor] | None,
    gradient: Gradient,
) -> Any:
    """Return the result of `odeint` with a given gradient mode."""
    _check(func, y0, t)
    how = setup(func, y0, t.detach(), rtol, atol, method, options)
    given = {
        "method": how.method,
        "controller": how.controller,
        "dt0": how.dt0,
        "max_steps": how.max_steps,
        "gradient": gradient,
    }
    wants = t.requires_grad and torch.is_grad_enabled()
    start = _shifted(func, y0, t[0], -1.0) if wants else y0
    if event_fn is not None:
        return _until(func, y0, start, t, event_fn, given)
    if len(t) == 1:
        return pytree.tree_map(lambda x: x[None], y0)
    solution = integrate(func, start, t[0], t[-1], saveat=SaveAt(ts=t.detach()[1:]), **given).check()
    later = solution.ys
    if wants:
        states = [_shifted(func, pytree.tree_map(lambda x, i=i: x[i - 1], later), t[i], 1.0) for i in range(1, len(t))]
        later = pytree.tree_map(lambda *x: torch.stack(x), *states)
    return pytree.tree_map(lambda first, rest: torch.cat([first[None], rest]), y0, later)


def _until(func: Any, y0: Any, start: Any, t: Tensor, event_fn: Any, given: dict[str, Any]) -> Any:
    require(len(t) == 2, f"with event_fn t needs two times, the start and one that tells the direction, got {len(t)}")
    t0, ahead = t.tolist()
    event = Event(_combined(event_fn, t.detach()[0], y0), required=True, name="event_fn")
    solution = integrate(func, start, t0, t0 + (FAR if ahead > t0 else -FAR), events=event, **given).check()
    assert solution.t1 is not None
    ends = pytree.tree_map(lambda first, last: torch.stack([first, last]), y0, solution.y1)
    return solution.t1.to(t), ends


def _combined(event_fn: Callable[[Tensor, Any], Tensor], t0: Tensor, y0: Any) -> Callable[[Tensor, Any], Tensor]:
    """Return one number that becomes zero when the first of several events happens."""
    with torch.no_grad():
        sign = torch.sign(event_fn(t0.to(pytree.tree_leaves(y0)[0]), y0))
    if sign.ndim == 0:
        return event_fn
    return lambda t, y: (sign * event_fn(t, y)).min()


def _shifted(func: Callable[[Tensor, Any], Any], y: Any, t: Tensor, sign: float) -> Any:
    """Return the state as it is, with the derivative ``sign * f`` with respect to its time."""
    real = pytree.tree_leaves(y)[0]
    with torch.no_grad():
        slope = func(t.to(real.real.dtype if real.is_complex() else real.dtype), y)
    moved = sign * (t - t.detach())
    return pytree.tree_map(lambda x, f: x + f * moved.to(x.dtype), y, slope)


def _check(func: Any, y0: Any, t: Any) -> None:
    if not isinstance(t, Tensor) or t.ndim != 1 or not t.is_floating_point():
        shape = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise InvalidInput(f"t must be a floating-point tensor of shape (T,), got {shape}")
    rising = t.detach().diff()
    require(bool((rising > 0).all() or (rising < 0).all()), "t must be strictly increasing or decreasing")
    require(isinstance(y0, (Tensor, tuple)), f"y0 must be a tensor or a tuple of tensors, got {type(y0).__name__}")
    for name in CALLBACKS:
        require(not hasattr(func, name), f"{name} is not called here: use integrate(..., record=('steps',))")
