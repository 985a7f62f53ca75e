r"""Export to k-diffusion: a sampler's name, noise levels and settings.

k-diffusion's samplers are functions ``sample(model, y, sigmas, **settings)`` on the unscaled state ``y = x / alpha``; `sigmas`
are the noise levels ``s = sigma / alpha`` of the nodes, and ``model(y, s)`` returns the data prediction. A run starts from
``sigmas[0]`` times noise of the process, standard normal but for Poisson flows: the plan's own start divided by ``alpha``. It ends
in ``y``: multiply it by ``alpha`` of the last time where that is not 1.

A plan fits a sampler if and only if both have the same canonical form on these levels and tell the network the same levels. The
formulas are those of k-diffusion 0.1.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from isocline._core.errors import require
from isocline.plans import solvers
from isocline.plans.export.sampler import (
    Sampler,
    Settings,
    ancestral_eta,
    at,
    check_exportable,
    dpm_solver_pp_2s,
    no_sampler,
    sde_eta,
    third_order,
)
from isocline.plans.export.seen import Seen
from isocline.plans.plan import Plan
from isocline.processes import GaussianProcess


@dataclass(frozen=True)
class KDiffusionExport:
    """What k-diffusion needs to compute what a plan computes.

    Args:
        sampler: name of a function of ``k_diffusion.sampling``.
        sigmas: (n+1,) noise levels ``sigma / alpha``, from noise to data.
        settings: keyword arguments of the sampler.
        guidance: guidance scale the plan was made for; the model must apply it.
    """

    sampler: str
    sigmas: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    guidance: float = 1.0


def k_diffusion(plan: Plan) -> KDiffusionExport:
    """Return the sampler, noise levels and settings with which k-diffusion computes what `plan` does.

    Raises:
        InvalidInput: no sampler fits, the plan has a threshold, or it starts without signal.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM
        >>> k_diffusion(solvers.dpm_solver_pp_2m(EDM(), grids.karras(EDM(t_min=1.0, t_max=9.0), 2, rho=2)))
        KDiffusionExport(sampler='sample_dpmpp_2m', sigmas=(9.0, 4.0, 1.0), settings={}, guidance=1.0)
    """
    check_exportable(plan, "k-diffusion")
    seen = Seen.unscaled(plan)
    require(
        seen.finite,
        f"k-diffusion needs finite noise levels, but {plan.process.describe()} has no signal at "
        f"t = {float(plan.nodes[0].detach()):g}; start the grid a little later (t_max=...)",
    )
    for sampler in SAMPLERS:
        settings = sampler.fit(seen)
        if settings is not None:
            return KDiffusionExport(sampler.name, tuple(seen.nodes.tolist()), settings, plan.guidance)
    raise no_sampler(plan, "k-diffusion", SAMPLERS)


def churn(seen: Seen) -> Settings | None:
    """Return churn's settings: how far, where and with how much noise states are lifted before a step."""
    rows = (~seen.called).nonzero().flatten().tolist()
    noise = seen.first_noise()
    if not rows or noise is None or noise[1] <= noise[0]:
        return None
    before, after, size = noise
    lifted = seen.levels[rows].tolist()
    higher, lower = seen.nodes[seen.nodes > lifted[0]].tolist(), seen.nodes[seen.nodes < lifted[-1]].tolist()
    window = {"s_tmin": math.sqrt(lifted[-1] * lower[0])} if lower[0] > 0 else {}
    if higher:
        window["s_tmax"] = math.sqrt(lifted[0] * higher[-1])
    amount = round((after / before - 1) * (len(seen.nodes) - 1), 12)
    return {"s_churn": amount, "s_noise": round(size / math.sqrt(after**2 - before**2), 12), **window}


def stochastic_heun(
    process: GaussianProcess,
    levels: Tensor,
    s_churn: float,
    s_noise: float,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
) -> Plan:
    """Return our plan for k-diffusion's names of the settings."""
    return solvers.stochastic_heun(process, levels, s_churn=s_churn, s_min=s_tmin, s_max=s_tmax, s_noise=s_noise)


def stochastic_euler(
    process: GaussianProcess,
    levels: Tensor,
    s_churn: float,
    s_noise: float,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
) -> Plan:
    """Return our plan for k-diffusion's names of the settings."""
    return solvers.stochastic_euler(process, levels, s_churn=s_churn, s_min=s_tmin, s_max=s_tmax, s_noise=s_noise)


def rho_adams(process: GaussianProcess, levels: Tensor, order: int) -> Plan:
    """Return our plan with the order kept in a last step to level 0."""
    return solvers.rho_adams(process, levels, order=order, clean_order=order)


SAMPLERS = (
    Sampler("sample_euler", solvers.ddim),
    Sampler("sample_heun", solvers.heun),
    Sampler("sample_dpm_2", solvers.dpm_solver_2),
    Sampler("sample_dpmpp_2m", solvers.dpm_solver_pp_2m),
    Sampler("sample_dpmpp_2s_ancestral", dpm_solver_pp_2s, at(eta=0.0)),
    Sampler("sample_dpmpp_3m_sde", third_order, at(eta=0.0), least=3),
    *(Sampler("sample_lms", rho_adams, at(order=k)) for k in (2, 3, 4)),
    Sampler("sample_euler_ancestral", solvers.ddim, ancestral_eta),
    Sampler("sample_dpmpp_2m_sde", solvers.sde_dpm_solver_pp_2m, sde_eta),
    Sampler("sample_euler", stochastic_euler, churn),
    Sampler("sample_heun", stochastic_heun, churn),
)
