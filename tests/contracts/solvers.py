"""Every deterministic solver that compiles to a plan. A new solver is one more line here; the line brings the shared tests.

The order is the one the method states: what must be observed when the steps shrink, where the settings do not change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from isocline.plans import Plan, solvers
from isocline.plans.grids.span import End
from isocline.processes import GaussianProcess


def one_a_step(steps: int, end: End) -> int:
    """Calls of a solver with one call a step."""
    return steps


def two_a_step(steps: int, end: End) -> int:
    """Calls of a solver with two calls a step, but one for a step to time 0."""
    return 2 * steps - (end == "zero")


@dataclass(frozen=True)
class Entry:
    """One solver and what it states.

    Name, function, order, may it start without signal, settings; steps and start of its order test; network calls for a number
    of steps and an end; whether its formulas use process time, so that the process matters between equal noise levels.
    """

    name: str
    solver: Callable[..., Plan]
    order: int
    from_noise: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, int] = (160, 320)
    top: float = 80.0
    calls: Callable[[int, End], int] = one_a_step
    process_time: bool = False

    def compile(self, process: GaussianProcess, times: Tensor) -> Plan:
        return self.solver(process, times, **self.settings)

    def __str__(self) -> str:
        return self.name


def _adams(solver: Callable[..., Plan], from_noise: bool, fourth: tuple[int, int]) -> list[Entry]:
    steps = {1: (40, 80), 2: (160, 320), 3: (200, 400), 4: fourth}
    tops = {1: 80.0, 2: 80.0, 3: 80.0, 4: 1000.0}
    timed = solver is solvers.t_adams
    return [
        Entry(
            f"{solver.__name__}_{k}",
            solver,
            k,
            from_noise,
            {"order": k},
            steps[k],
            tops[k],
            process_time=timed and k > 1,
        )
        for k in steps
    ]


SOLVERS = [
    Entry("ddim", solvers.ddim, 1, from_noise=True, steps=(40, 80)),
    Entry("dpm_solver_pp_1", solvers.dpm_solver_pp_1, 1, from_noise=True, steps=(40, 80)),
    Entry("dpm_solver_pp_2m", solvers.dpm_solver_pp_2m, 2, from_noise=True),
    Entry("dpm_solver_pp_3m", solvers.dpm_solver_pp_3m, 2, from_noise=True, steps=(320, 640)),
    Entry("euler", solvers.euler, 1, steps=(40, 80)),
    Entry("heun", solvers.heun, 2, steps=(40, 80), calls=two_a_step),
    *_adams(solvers.exponential_adams, from_noise=True, fourth=(160, 320)),
    *_adams(solvers.rho_adams, from_noise=False, fourth=(400, 800)),
    *_adams(solvers.t_adams, from_noise=False, fourth=(400, 800)),
    *_adams(solvers.lam_adams, from_noise=False, fourth=(240, 480)),
]
