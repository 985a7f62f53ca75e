"""The names that torchdiffeq gives to methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isocline._core.errors import InvalidInput, nearest
from isocline.integrators import (
    RK38,
    AdamsBashforth,
    AdamsBashforthMoulton,
    Bosh3,
    Dopri5,
    Dopri8,
    Euler,
    ExplicitRungeKutta,
    Heun,
    Midpoint,
    Tableau,
    Tsit5,
)

HEUN3 = Tableau("Heun 3", a=((1 / 3,), (0.0, 2 / 3)), b=(1 / 4, 0.0, 3 / 4), order=3)
FEHLBERG2 = Tableau(
    "Fehlberg 2(1)",
    a=((1 / 2,), (1 / 256, 255 / 256)),
    b=(1 / 512, 255 / 256, 1 / 512),
    order=2,
    error=(-1 / 512, 0.0, 1 / 512),
    embedded_order=1,
)

ADAPTIVE: dict[str, Callable[[], Any]] = {
    "dopri8": Dopri8,
    "dopri5": Dopri5,
    "tsit5": Tsit5,
    "bosh3": Bosh3,
    "fehlberg2": lambda: ExplicitRungeKutta(FEHLBERG2),
    "adaptive_heun": Heun,
}
FIXED: dict[str, Callable[[], Any]] = {
    "euler": Euler,
    "midpoint": Midpoint,
    "heun2": Heun,
    "heun3": lambda: ExplicitRungeKutta(HEUN3),
    "rk4": RK38,  # torchdiffeq's rk4 is the 3/8 rule
    "explicit_adams": AdamsBashforth,
    "implicit_adams": AdamsBashforthMoulton,
    "fixed_adams": AdamsBashforthMoulton,
}


def method_named(name: str, order: int | None = None) -> tuple[Any, bool]:
    """Return the method of that name and whether it chooses its steps; `order` is for Adams methods.

    >>> method_named("rk4")[0].tableau.name, method_named("dopri5")[1]
    ("Kutta's 3/8 rule", True)
    """
    if name == "scipy_solver":
        raise InvalidInput(
            "scipy_solver is not available: for stiff equations use isocline.integrators.integrate(..., method=Kvaerno5())"
        )
    if name not in ADAPTIVE and name not in FIXED:
        raise InvalidInput(f"there is no method {name!r} in compat.odeint. {nearest(name, [*ADAPTIVE, *FIXED])}")
    if name in ADAPTIVE:
        return ADAPTIVE[name](), True
    return (FIXED[name]() if order is None else FIXED[name](order)), False  # type: ignore[call-arg]
