"""torchdiffeq's dictionary of options, read into our arguments; what is not known is refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, nearest, require
from isocline.compat.methods import method_named
from isocline.integrators import PID, Clip, Constant, Steps, rms_norm
from isocline.integrators.controllers.base import Controller
from isocline.integrators.packing import Packing

UNLIMITED = 2**31 - 1
ADAPTIVE_OPTIONS = ("first_step", "max_num_steps", "safety", "ifactor", "dfactor", "step_t", "jump_t", "norm", "dtype")
FIXED_OPTIONS = ("step_size", "grid_constructor", "interp", "perturb", "max_order", "norm")
ELSEWHERE = {
    "min_step": "a step that becomes too small ends the integration with the time and the reason",
    "max_step": "name the times that must not be stepped over with step_t or jump_t",
    "max_iters": "the corrector is applied once (predict, evaluate, correct, evaluate)",
    "grid_points": "pass step_t, or grid_constructor with a method of fixed steps",
    "solver": "scipy's solvers are not wrapped; see isocline.integrators for stiff methods",
}


@dataclass(frozen=True)
class Setup:
    """What an integration is made with besides equation, state and times."""

    method: Any
    controller: Controller
    dt0: float | None
    max_steps: int


def setup(
    func: Callable[..., Any], y0: Any, t: Tensor, rtol: Any, atol: Any, method: str | None, options: Any
) -> Setup:
    """Return what torchdiffeq's arguments ask for."""
    given = dict(options or {})
    chosen, chooses = method_named(method or "dopri5", given.get("max_order"))
    _refuse_unknown(given, ADAPTIVE_OPTIONS if chooses else FIXED_OPTIONS, method or "dopri5")
    if not chooses:
        controller, dt0 = _fixed(func, y0, t, given)
        return Setup(chosen, controller, dt0, UNLIMITED)
    first = given.get("first_step")
    limit = int(given.get("max_num_steps", UNLIMITED))
    steering = adaptive(rtol, _tolerance(y0, atol), given, _norm(y0, given.get("norm")))
    return Setup(chosen, steering, None if first is None else abs(float(first)), limit)


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], method: str) -> None:
    for name in given:
        if name in known:
            continue
        hint = ELSEWHERE.get(name) or nearest(name, known)
        raise InvalidInput(f"the option {name!r} is not available with method {method!r}: {hint}")


def adaptive(
    rtol: Any, atol: float | Tensor, options: Mapping[str, Any] | None, norm: Callable[[Tensor, int], Tensor] = rms_norm
) -> Controller:
    """Return what chooses the steps: tolerances, factors, and times at which a step must end."""
    given = dict(options or {})
    require(given.get("dtype", torch.float64) == torch.float64, "times are always float64: leave the option dtype out")
    steering = PID(
        _number("rtol", rtol),
        atol,
        norm=norm,
        safety=float(given.get("safety", 0.9)),
        grow=float(given.get("ifactor", 10.0)),
        shrink=float(given.get("dfactor", 0.2)),
    )
    stops, jumps = (_times(given.get(name)) for name in ("step_t", "jump_t"))
    return Clip(steering, times=stops, jump_times=jumps) if stops or jumps else steering


def _fixed(func: Callable[..., Any], y0: Any, t: Tensor, given: Mapping[str, Any]) -> tuple[Controller, float | None]:
    step, make = given.get("step_size"), given.get("grid_constructor")
    require(step is None or make is None, "step_size and grid_constructor exclude each other")
    require(given.get("interp", "cubic") == "cubic", 'states inside a step are cubic: leave interp out or pass "cubic"')
    require(not given.get("perturb", False), "perturb is not available; name jumps with an adaptive method and jump_t")
    if step is not None:
        return Constant(), abs(float(step))
    return Steps(t if make is None else make(func, y0, t)), None


def _norm(y0: Any, norm: Callable[[Any], Tensor] | None) -> Callable[[Tensor, int], Tensor]:
    """Return the norm of a packed state; of tuples the largest of the norms of its tensors, as torchdiffeq has it."""
    if norm is None and isinstance(y0, Tensor):
        return rms_norm
    packing, measure = Packing.of(y0), norm or _largest_rms
    return lambda x, dims: measure(packing.unpack(x))


def _largest_rms(state: Any) -> Tensor:
    return torch.stack([rms_norm(x, x.ndim) for x in pytree.tree_leaves(state)]).max()


def _number(name: str, value: Any) -> float:
    tensor = torch.as_tensor(value)
    require(tensor.numel() == 1, f"{name} must be one number, got shape {tuple(tensor.shape)}; atol may be a tensor")
    return float(tensor)


def _tolerance(y0: Any, atol: Any) -> float | Tensor:
    if torch.as_tensor(atol).numel() == 1:
        return float(torch.as_tensor(atol))
    require(isinstance(y0, Tensor), "atol must be one number where the state is a tuple")
    return torch.as_tensor(atol).to(y0)


def _times(times: Any) -> tuple[float, ...]:
    return () if times is None else tuple(torch.as_tensor(times, dtype=torch.float64).flatten().tolist())
