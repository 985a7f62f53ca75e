"""Every deterministic solver that compiles to a plan. A new solver is one more line here; the line brings the shared tests.

The order is the one the method states: what must be observed when the steps shrink, where the settings do not change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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


def always_two_a_step(steps: int, end: End) -> int:
    """Calls of a solver with two calls a step, whatever the end."""
    return 2 * steps


def three_a_step(steps: int, end: End) -> int:
    """Calls of a solver with three calls a step, but one for a step to time 0."""
    return 3 * steps - 2 * (end == "zero")


def one_more(steps: int, end: End) -> int:
    """Calls of a solver whose first step costs one call more than the others."""
    return steps + 1


def nine_more(steps: int, end: End) -> int:
    """Calls of a solver whose first three steps cost four calls each."""
    return steps + 9


@dataclass(frozen=True)
class Entry:
    """One solver and what it states.

    Name, function, order, may it start without signal, settings; steps and start of its order test; network calls for a number
    of steps and an end; whether its formulas use process time, so that the process matters between equal noise levels; whether,
    without signal, it starts with two steps of DDIM.
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
    starts_as_ddim: bool = True

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


def _correcting(name: str, solver: Callable[..., Plan], stated: int, **settings: Any) -> Entry:
    """A predictor-corrector: above order 3 the start must cost less still."""
    noise = solver is solvers.unipc_noise
    return Entry(name, solver, stated, not noise, settings, top=1000.0 if stated > 3 else 80.0, starts_as_ddim=False)


def _single_step(
    name: str, solver: Callable[..., Plan], order: int, calls: Callable[[int, End], int], from_noise: bool = False
) -> Entry:
    """A solver with stages and no memory."""
    return Entry(name, solver, order, from_noise, steps=(80, 160), top=10.0, calls=calls, starts_as_ddim=False)


SOLVERS = [
    Entry("ddim", solvers.ddim, 1, from_noise=True, steps=(40, 80)),
    Entry("dpm_solver_1", solvers.dpm_solver_1, 1, steps=(40, 80)),
    _single_step("dpm_solver_2", solvers.dpm_solver_2, 2, two_a_step),
    _single_step("dpm_solver_3", solvers.dpm_solver_3, 3, three_a_step),
    Entry("dpm_solver_fast", solvers.dpm_solver_fast, 2, steps=(160, 319), top=10.0),
    Entry("dpm_solver_pp_1", solvers.dpm_solver_pp_1, 1, from_noise=True, steps=(40, 80)),
    Entry("dpm_solver_pp_2m", solvers.dpm_solver_pp_2m, 2, from_noise=True),
    Entry("dpm_solver_pp_3m", solvers.dpm_solver_pp_3m, 2, from_noise=True, steps=(320, 640)),
    _single_step("dpm_solver_pp_2s", solvers.dpm_solver_pp_2s, 2, two_a_step, from_noise=True),
    _single_step("dpm_solver_pp_3s", solvers.dpm_solver_pp_3s, 3, three_a_step, from_noise=True),
    Entry("euler", solvers.euler, 1, steps=(40, 80)),
    Entry("heun", solvers.heun, 2, steps=(40, 80), calls=two_a_step),
    Entry("s_pndm", solvers.s_pndm, 2, top=10.0, calls=one_more),
    Entry("f_pndm", solvers.f_pndm, 2, top=10.0, calls=nine_more, process_time=True),
    Entry("plms", solvers.plms, 2, top=10.0, calls=one_more),
    *[Entry(f"ipndm_{k}", solvers.ipndm, min(k, 2), settings={"order": k}, top=10.0) for k in (1, 2, 3, 4)],
    *_adams(solvers.exponential_adams, from_noise=True, fourth=(160, 320)),
    *_adams(solvers.rho_adams, from_noise=False, fourth=(400, 800)),
    *_adams(solvers.t_adams, from_noise=False, fourth=(400, 800)),
    *_adams(solvers.lam_adams, from_noise=False, fourth=(240, 480)),
    _correcting("unipc_1", solvers.unipc, 2, order=1),
    _correcting("unipc_2", solvers.unipc, 3),
    _correcting("unipc_3", solvers.unipc, 4, order=3),
    _correcting("unipc_2_bh1", solvers.unipc, 3, variant="bh1"),
    Entry("unipc_predictor", solvers.unipc, 2, from_noise=True, settings={"corrector": False}),
    _correcting("unipc_noise_2", solvers.unipc_noise, 3),
    _correcting("unipc_noise_3", solvers.unipc_noise, 4, order=3),
    # from s = 80 its error of order 2 is hidden below one of higher order up to some 600 steps
    Entry("sa_solver", solvers.sa_solver, 2, from_noise=True, top=3.0, starts_as_ddim=False),
    _correcting("sa_solver_2_3", solvers.sa_solver, 3, corrector_order=3),
    _correcting("sa_solver_3_4", solvers.sa_solver, 4, predictor_order=3, corrector_order=4),
    Entry("flow_euler", solvers.flow_euler, 1, from_noise=True, steps=(40, 80), starts_as_ddim=False),
    Entry("flow_heun", solvers.flow_heun, 2, from_noise=True, calls=two_a_step, starts_as_ddim=False),
    Entry("flow_midpoint", solvers.flow_midpoint, 2, from_noise=True, calls=always_two_a_step, starts_as_ddim=False),
    *[replace(e, starts_as_ddim=False) for e in _adams(solvers.flow_adams, from_noise=True, fourth=(200, 400))],
]
