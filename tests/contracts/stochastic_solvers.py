"""Every solver that draws noise. A new one is one more line here; the line brings the shared tests.

The order is the weak one: that of the error in mean and variance of the samples on Gaussian data. None says that the law keeps an
error, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from isocline.plans import Plan, solvers
from isocline.plans.grids.span import End
from isocline.plans.solvers import Restart
from isocline.processes import GaussianProcess
from tests.contracts.solvers import one_a_step, two_a_step


def corrected(steps: int, end: End) -> int:
    """Calls of a predictor with one correction a step, but none after a step to time 0."""
    return 2 * steps - (end == "zero")


def restarted(steps: int, end: End) -> int:
    """Calls of Heun's method with three restarts of half as many steps."""
    return two_a_step(steps, end) + 3 * 2 * max(steps // 2, 1)


def in_proportion(process: GaussianProcess, times: Tensor, order: int = 2) -> Plan:
    """Restart with half the grid's number of steps in the interval, so that both grow together."""
    interval = Restart(low=0.3, high=2.0, steps=max((len(times) - 1) // 2, 1), repeats=3)
    return solvers.restart(process, times, [interval], order=order)


@dataclass(frozen=True)
class StochasticEntry:
    """One solver and what it states.

    Name, registered function, weak order, settings; may it start without signal; is its law exact where all data are one point;
    do noise levels alone decide; has it a row form for every parameterisation; network calls; another way to compile it.
    """

    name: str
    solver: Callable[..., Plan]
    order: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    from_noise: bool = False
    exact_on_points: bool = True
    levels_only: bool = True
    converts: bool = True
    calls: Callable[[int, End], int] = one_a_step
    compiled_by: Callable[..., Plan] | None = None

    def compile(self, process: GaussianProcess, times: Tensor) -> Plan:
        return (self.compiled_by or self.solver)(process, times, **self.settings)

    def __str__(self) -> str:
        return self.name


def _multistep(solver: Callable[..., Plan], order: int, eta: float) -> StochasticEntry:
    name = f"{solver.__name__}, eta {eta:g}"
    return StochasticEntry(name, solver, order, {"eta": eta}, from_noise=True, converts=solver.__name__.endswith("_1"))


WINDOW = {"s_churn": 10.0, "s_min": 0.2, "s_max": 5.0}

STOCHASTIC_SOLVERS = [
    StochasticEntry("ddim, eta 0.5", solvers.ddim, 1, {"eta": 0.5}, from_noise=True),
    StochasticEntry("ancestral", solvers.ancestral, 1, from_noise=True),
    StochasticEntry(
        "ancestral, v 1", solvers.ancestral, 1, {"v": 1.0}, from_noise=True, exact_on_points=False, levels_only=False
    ),
    StochasticEntry("euler_maruyama", solvers.euler_maruyama, 1, exact_on_points=False, levels_only=False),
    StochasticEntry("reverse_diffusion", solvers.reverse_diffusion, 1, exact_on_points=False, levels_only=False),
    StochasticEntry(
        "predictor_corrector",
        solvers.predictor_corrector,
        None,
        exact_on_points=False,
        levels_only=False,
        calls=corrected,
    ),
    StochasticEntry(
        "predictor_corrector, ancestral",
        solvers.predictor_corrector,
        None,
        {"predictor": solvers.ancestral},
        from_noise=True,
        exact_on_points=False,
        calls=corrected,
    ),
    StochasticEntry("stochastic_euler", solvers.stochastic_euler, 1, {"s_churn": 10.0}),
    StochasticEntry("stochastic_heun", solvers.stochastic_heun, 2, {"s_churn": 10.0}, calls=two_a_step),
    StochasticEntry("stochastic_heun, window", solvers.stochastic_heun, 2, WINDOW, calls=two_a_step),
    *(
        _multistep(solver, order, eta)
        for eta in (0.5, 1.0)
        for solver, order in [
            (solvers.sde_dpm_solver_pp_1, 1),
            (solvers.sde_dpm_solver_pp_2m, 2),
            (solvers.sde_dpm_solver_pp_3m, 2),
        ]
    ),
    StochasticEntry("restart", solvers.restart, 2, calls=restarted, compiled_by=in_proportion),
]
