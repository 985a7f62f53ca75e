"""The simulators by the names that the command takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from isocline._core.errors import InvalidInput, nearest, require
from isocline.datasets.simulators import (
    KS1D,
    Burgers1D,
    CombinedEquation1D,
    Darcy2D,
    DarcyTensor2D,
    Euler2D,
    Heat2D,
    Kolmogorov2D,
    NS2DForced,
    Obstacle2D,
    ShallowWater2D,
    Simulator,
    Wave1D,
)

SIMULATORS: dict[str, Callable[[], Simulator]] = {
    "burgers1d": Burgers1D,
    "ce1d": CombinedEquation1D,
    "darcy2d": Darcy2D,
    "darcy2d-tensor": DarcyTensor2D,
    "euler2d": Euler2D,
    "heat2d": Heat2D,
    "kolmo2d": Kolmogorov2D,
    "ks1d": KS1D,
    "ns2d_forced": NS2DForced,
    "obstacle2d": Obstacle2D,
    "swe2d": ShallowWater2D,
    "wave1d": Wave1D,
}


def simulator(
    name: str, *, resolution: int | None = None, frames: int | None = None, settings: Sequence[str] = ()
) -> Simulator:
    """Return a simulator.

    Args:
        name: one of `SIMULATORS`.
        resolution: points an axis; its own without it.
        frames: stored frames; its own without it.
        settings: others, written ``name=value``.

    Raises:
        InvalidInput: there is no such simulator, or it has no such setting.
    """
    require(name in SIMULATORS, f"there is no simulator {name!r}. {nearest(name, SIMULATORS)}")
    made: Any = SIMULATORS[name]()
    own = {f.name: getattr(made, f.name) for f in fields(made) if f.init}
    given: dict[str, Any] = {"resolution": resolution, "frames": frames}
    given = {key: value for key, value in given.items() if value is not None}
    for text in settings:
        key, found, value = text.partition("=")
        require(bool(found), f"a setting is written name=value, got {text!r}")
        given[key.strip()] = value.strip()
    missing = sorted(set(given) - set(own))
    require(not missing, f"{name} has no setting {', '.join(missing)}; it has {', '.join(own)}")
    return replace(made, **{key: _read(key, value, own[key]) for key, value in given.items()})


def _read(key: str, value: Any, own: Any) -> Any:
    """Return a value as the type that the simulator has."""
    if not isinstance(value, str):
        return value
    try:
        if isinstance(own, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(own)(value) if isinstance(own, (int, float, str)) else _unreadable(key)
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"{key} is a {type(own).__name__}, such as {own}; got {value!r}") from error


def _unreadable(key: str) -> None:
    raise InvalidInput(f"{key} cannot be set here; use the simulator's class in Python")


def describe(name: str) -> str:
    """Return a few lines on a simulator: its equations, fields, grid, frames, parameters, settings."""
    made: Any = SIMULATORS[name]()
    spec = made.spec
    lines = [name, *(f"  {line}" for line in made.equation.formula)]
    shown = [f.name + ("" if f.varies else " (constant)") for f in spec.fields]
    grid = " x ".join(map(str, spec.resolution)) + f" points, {', '.join(dict.fromkeys(spec.boundary))}"
    times = f"{spec.times} frames, {spec.dt:g} apart" if spec.times > 1 else "steady"
    lines.append(f"  fields {', '.join(shown)}; {grid}; {times}")
    ranges = [
        f"{p.name} = {p.low:g}" if p.low == p.high else f"{p.name} in [{p.low:g}, {p.high:g}]" for p in spec.parameters
    ]
    if ranges:
        lines.append(f"  parameters {', '.join(ranges)}")
    settings = [f"{f.name}={getattr(made, f.name)}" for f in fields(made) if f.init]
    return "\n".join([*lines, f"  settings {', '.join(settings)}"])
