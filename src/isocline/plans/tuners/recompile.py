"""Compiling a plan's solver again on other times: what all tuners of times share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import solvers
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance


def compiler_of(plan: Plan) -> Callable[[Tensor], Plan]:
    """Return ``times -> Plan`` for the solver that made `plan`, with the same settings, guidance scale and threshold.

    A plan from `on_times` is compiled by the solver under it, so a tuner of times can be followed by another tuner.

    Raises:
        InvalidInput: no solver made the plan, or it was changed after its solver had made it.
    """
    name, settings = solver_of(plan)
    solver = getattr(solvers, name)
    given = {key: value for key, value in settings.items() if value is not None}
    return lambda times: replace(solver(plan.process, times, **given), guidance=plan.guidance, threshold=plan.threshold)


def solver_of(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return the name and settings of the solver that made `plan`, before any tuner of times.

    Raises:
        InvalidInput: no solver made the plan, or it was changed after its solver had made it.
    """
    origin = plan.provenance
    name, settings = (
        origin.settings.get("solver", origin.method),
        origin.settings.get("solver_settings", origin.settings),
    )
    if name not in solvers.__all__:
        raise InvalidInput(f"a plan made by {name!r} cannot be compiled again; start from a solver's plan")
    changes = [key for key in settings if key not in signature(getattr(solvers, name)).parameters]
    if changes:
        raise InvalidInput(
            f"a plan of {name} that {', '.join(changes)} has changed cannot be compiled again; start from the solver's own plan, "
            "and change the result"
        )
    return name, settings


def on_times(base: Plan, times: Tensor, method: str, arxiv: str, settings: Mapping[str, Any]) -> Plan:
    """Return the plan of `base`'s solver on `times` (n+1,), labelled as found by the tuner `method`."""
    name, solver_settings = solver_of(base)
    origin = Provenance(method, arxiv, {"solver": name, "solver_settings": solver_settings, **settings})
    return replace(compiler_of(base)(times), provenance=origin)
