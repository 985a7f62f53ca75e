"""Our rows: every deterministic solver of `isocline.plans.solvers` on the grids that make sense for it, each setting fixed here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmarks.contenders import OURS, Contender
from benchmarks.exact_beds import ENDS, Bed, End
from isocline import plans
from isocline._core.errors import InvalidInput
from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate

ADAMS: tuple[dict[str, Any], ...] = ({"order": 2}, {"order": 3}, {"order": 4})
CLEAN: tuple[dict[str, Any], ...] = ({"order": 3, "clean_order": 3}, {"order": 4, "clean_order": 4})  # for an end at 0
PLAIN: tuple[dict[str, Any], ...] = ({},)
GRIDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("log_snr", {}),
    ("exponential", {}),
    ("karras", {"rho": 7.0}),
)  # steps uniform in time are far behind with this process, as azula's rows show

# Solver to its settings, one row each. A solver that is not there yet, or has no such name, is passed over.
SETTINGS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "ddim": PLAIN,
    "heun": PLAIN,
    "dpm_solver_pp_2m": PLAIN,
    "dpm_solver_pp_3m": PLAIN,
    "exponential_adams": ADAMS,
    "lam_adams": ADAMS,
    "rho_adams": (*ADAMS, *CLEAN),
    "t_adams": (*ADAMS, *CLEAN),
    "flow_adams": ADAMS,
    "rescaled_adams": ADAMS,
    "flow_heun": PLAIN,
    "flow_midpoint": PLAIN,
    "unipc": ({"order": 2}, {"order": 3}, {"order": 2, "variant": "bh1"}, {"order": 3, "variant": "bh1"}),
    "unipc_noise": ({"order": 2}, {"order": 3}),
    "sa_solver": ({"predictor_order": 2, "corrector_order": 2}, {"predictor_order": 3, "corrector_order": 3}),
    "dpm_solver_2": PLAIN,
    "dpm_solver_3": PLAIN,
    "dpm_solver_fast": PLAIN,
    "dpm_solver_pp_2s": PLAIN,
    "dpm_solver_pp_3s": PLAIN,
    "ipndm": PLAIN,
    "plms": PLAIN,
    "s_pndm": PLAIN,
    "f_pndm": PLAIN,
}
# Named here so that nothing is left out by a slip: the same plan as another row, or a sampler that draws noise.
SAME_AS = {"euler": "ddim", "flow_euler": "ddim", "dpm_solver_pp_1": "ddim", "dpm_solver_1": "ddim"}
STOCHASTIC = frozenset({
    "ancestral", "euler_maruyama", "reverse_diffusion", "predictor_corrector", "stochastic_heun", "stochastic_euler",
    "sde_dpm_solver_pp_1", "sde_dpm_solver_pp_2m", "sde_dpm_solver_pp_3m", "restart",
})  # fmt: skip
FIRST_STEP = (
    "dpm_solver_pp_2m",
    "exponential_adams",
    "lam_adams",
    "flow_adams",
    "unipc",
)  # also with the first call saved


def candidates() -> list[Candidate]:
    """Return every solver that exists with each of its settings on each grid."""
    present = [name for name in SETTINGS if name in solvers.__all__]
    return [
        Candidate(getattr(solvers, name), getattr(grids, grid), dict(settings), grid_settings)
        for grid, grid_settings in GRIDS
        for name in present
        for settings in SETTINGS[name]
    ]


def not_listed() -> list[str]:
    """Return the solvers that this file does not know."""
    known = {*SETTINGS, *SAME_AS, *STOCHASTIC}
    return [name for name in solvers.__all__ if name not in known and inspect.isfunction(getattr(solvers, name))]


def contenders() -> list[Contender]:
    """Return our rows, at both ends."""
    rows = [
        _contender(c, end)
        for c in candidates()
        for end in ENDS
        if end == "zero" or "clean_order" not in c.solver_settings
    ]
    if hasattr(plans, "analytic_first_step"):
        early = [c for c in candidates() if c.solver.__name__ in FIRST_STEP and c.grid is grids.log_snr]
        rows += [_analytic(candidate, end) for candidate in early for end in ENDS]
    return rows


def compiled(candidate: Candidate, calls: int, end: End, bed: Bed) -> plans.Plan | None:
    """Return the plan, or None where the solver cannot use exactly `calls` calls."""
    try:
        return candidate.compile(bed.model.process, calls, end)
    except InvalidInput:
        return None


def _contender(candidate: Candidate, end: End) -> Contender:
    def run(bed: Bed, x: Tensor, calls: int) -> Tensor | None:
        plan = compiled(candidate, calls, end, bed)
        return None if plan is None else plan.run(bed.model, x).x

    return Contender(OURS, candidate.name, end, run)


def _analytic(candidate: Candidate, end: End) -> Contender:
    def run(bed: Bed, x: Tensor, calls: int) -> Tensor | None:
        plan = compiled(candidate, calls + 1, end, bed)
        if plan is None:
            return None
        settings = (
            {"data_std": bed.std} if "data_std" in inspect.signature(plans.analytic_first_step).parameters else {}
        )
        return plans.analytic_first_step(plan, **settings).run(bed.model, x).x

    return Contender(OURS, f"{candidate.name}, analytic first step", end, run)
