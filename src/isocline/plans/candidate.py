"""A solver on a grid, as data: compiled for a process and a number of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import isfunction, signature
from typing import Any

from isocline._core.errors import InvalidInput, nearest, require
from isocline.plans import grids, solvers
from isocline.plans.grids.span import End
from isocline.plans.plan import Plan
from isocline.processes import GaussianProcess


@dataclass(frozen=True)
class Candidate:
    """A solver, a grid and their settings.

    Args:
        solver: a function of `isocline.plans.solvers`.
        grid: a function of `isocline.plans.grids`.
        solver_settings: keyword arguments of the solver.
        grid_settings: keyword arguments of the grid.
        last: noise level of the last node before a noise-free end; the process's own ``t_min`` where it is None. With few calls
            a larger one is much better, as a step below it changes little. Runs that end at ``t_min`` do not use it.

    Examples:
        >>> from isocline.processes import EDM
        >>> plan = Candidate(solvers.heun, grids.karras).compile(EDM(), calls=7, end="zero")
        >>> plan.calls, len(plan.nodes)
        (7, 5)
    """

    solver: Callable[..., Plan]
    grid: Callable[..., Any]
    solver_settings: Mapping[str, Any] = field(default_factory=dict)
    grid_settings: Mapping[str, Any] = field(default_factory=dict)
    last: float | None = None

    @property
    def name(self) -> str:
        """A name such as ``rho_adams(order=2) on karras(rho=5, last=0.1)``."""
        grid = {**self.grid_settings, **({} if self.last is None else {"last": self.last})}
        return f"{_called(self.solver, self.solver_settings)} on {_called(self.grid, grid)}"

    def compile(self, process: GaussianProcess, calls: int, end: End = "t_min") -> Plan:
        """Return the plan with exactly `calls` network calls.

        Raises:
            InvalidInput: no number of steps gives that many calls (two-call solvers may need an odd or even number).
        """
        require(calls >= 1, f"a plan needs at least 1 network call, got {calls}")
        settings = dict(self.grid_settings)
        if self.last is not None and end == "zero":
            settings["t_min"] = float(process.time_of_noise_level(self.last))
        possible: list[int] = []
        for steps in range(calls, 0, -1):
            plan = self.solver(process, self.grid(process, steps, end=end, **settings), **self.solver_settings)
            if plan.calls == calls:
                return plan
            possible.append(plan.calls)
            if plan.calls < calls:
                break
        nearest_calls = " or ".join(str(n) for n in possible[-2:])
        raise InvalidInput(f"{self.name} cannot use exactly {calls} calls with end={end!r}; try {nearest_calls}")


def candidate_named(solver: str, grid: str) -> Candidate:
    """Return the solver and grid of these names with their default settings; the error names the nearest.

    Raises:
        InvalidInput: there is no such solver or grid, or it needs settings that have no default.
    """
    for name, room in ((solver, solvers), (grid, grids)):
        known = [other for other in room.__all__ if isfunction(getattr(room, other))]
        if name not in known:
            kind = room.__name__.rsplit(".", 1)[1].rstrip("s")
            raise InvalidInput(f"there is no {kind} {name!r}. {nearest(name, known)}")
    found = getattr(solvers, solver)
    needed = [p.name for p in signature(found).parameters.values() if p.default is p.empty][2:]
    require(
        not needed, f"{solver} has no default for {', '.join(needed)}; compile it in Python, save the plan and use that"
    )
    return Candidate(found, getattr(grids, grid))


def _called(function: Callable[..., Any], settings: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())
    return f"{function.__name__}({shown})" if shown else function.__name__


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
