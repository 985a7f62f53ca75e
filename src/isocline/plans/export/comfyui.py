r"""Export to ComfyUI's custom-sampler nodes: a sampler's name, noise levels as text, and settings.

For diffusion models ComfyUI works as k-diffusion does, in ``y = x / alpha`` at ``s = sigma / alpha``. For flow models its levels
are the times ``t`` of ``x = (1 - t) x_0 + t eps``, and most of its samplers use the formulas for ``(y, s)`` on ``(x, t)``: there
"heun" is our `flow_heun`, and "dpmpp_2m" is a method in ``log t`` that no function here computes. Those that transform flows to
their log-SNR compute what our solver of that name does; they move a start at ``t = 1``, so a plan must start below it.

Where the first level is the model's largest, ComfyUI starts from ``sqrt(1 + s^2)`` times noise instead of ``s`` times.

The formulas are those of ComfyUI's published source, which the tests repeat; ComfyUI itself is not run by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import Tensor

from isocline._core.errors import require
from isocline.plans import solvers
from isocline.plans.export.sampler import (
    Sampler,
    ancestral_eta,
    at,
    check_exportable,
    dpm_solver_pp_2s,
    no_sampler,
    sde_eta,
    third_order,
)
from isocline.plans.export.seen import Seen, level_of
from isocline.plans.plan import Plan
from isocline.processes import GaussianProcess, RectifiedFlow


@dataclass(frozen=True)
class ComfyUIExport:
    """What ComfyUI's node "SamplerCustom" needs to compute what a plan computes.

    Args:
        sampler: ComfyUI's name of the sampler.
        node: the node that gives the sampler: "KSamplerSelect", or the one that has its settings.
        sigmas: (n+1,) noise levels, from noise to data; times for a flow.
        settings: settings of the node.
        guidance: guidance scale the plan was made for, ComfyUI's "cfg".
    """

    sampler: str
    node: str
    sigmas: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    guidance: float = 1.0

    @property
    def text(self) -> str:
        """The levels for the node "ManualSigmas": float32, separated by commas, without exponents, which it cannot read.

        >>> ComfyUIExport("euler", "KSamplerSelect", (14.6146, 1.0, 0.00001, 0.0)).text
        '14.6146, 1.0, 0.00001, 0.0'
        """
        return ", ".join(np.format_float_positional(np.float32(level), trim="0") for level in self.sigmas)


def comfyui(plan: Plan) -> ComfyUIExport:
    """Return the sampler, noise levels and settings with which ComfyUI computes what `plan` does.

    Raises:
        InvalidInput: no sampler fits, the plan has a threshold, or the noise of its process is not normal.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> flow = RectifiedFlow()
        >>> export = comfyui(solvers.flow_heun(flow, grids.uniform(flow, 4, t_min=0.0)))
        >>> export.sampler, export.text
        ('heun', '1.0, 0.75, 0.5, 0.25, 0.0')
    """
    check_exportable(plan, "ComfyUI")
    require(
        plan.process.has_sde,
        f"ComfyUI starts from normal noise, which is not that of {plan.process.describe()}; run the plan with plan.run",
    )
    for sampler in SAMPLERS:
        seen = sampler.see(plan)
        settings = None if seen is None else sampler.fit(seen)
        if settings is not None:
            flow = isinstance(plan.process, RectifiedFlow)
            levels = plan.nodes if flow else level_of(plan.process, plan.nodes)
            return ComfyUIExport(sampler.name, sampler.node, tuple(levels.tolist()), settings, plan.guidance)
    raise no_sampler(plan, "ComfyUI", SAMPLERS)


def unipc(process: GaussianProcess, levels: Tensor, variant: Literal["bh1", "bh2"]) -> Plan:
    """Return UniPC as ComfyUI sets it up from four steps on: order 3, falling to 1 at the end."""
    return solvers.unipc(process, levels, order=3, variant=variant, final_order=1)


@dataclass(frozen=True)
class ComfyUISampler(Sampler):
    """A sampler of ComfyUI, how it sees a flow (None: by a formula of its own), and the node that gives it."""

    flow: Callable[[Plan], Seen] | None = Seen.as_it_is
    node: str = "KSamplerSelect"

    def see(self, plan: Plan) -> Seen | None:
        """Return the plan as the sampler sees it."""
        if not isinstance(plan.process, RectifiedFlow):
            return Seen.unscaled(plan)
        return None if self.flow is None else self.flow(plan)


_2M_SDE, _3M_SDE, _2S = "SamplerDPMPP_2M_SDE", "SamplerDPMPP_3M_SDE", "SamplerDPMPP_2S_Ancestral"

SAMPLERS = (
    ComfyUISampler("euler", solvers.ddim),
    ComfyUISampler("heun", solvers.heun),
    ComfyUISampler("dpm_2", solvers.dpm_solver_2),
    ComfyUISampler("dpmpp_2m", solvers.dpm_solver_pp_2m),
    ComfyUISampler("res_multistep", partial(solvers.exponential_adams, order=2)),
    ComfyUISampler("ipndm", partial(solvers.ipndm, order=4)),
    *(ComfyUISampler("lms", solvers.rho_adams, at(order=k), node="SamplerLMS") for k in (2, 3, 4)),
    # UniPC replaces a level 0 by 0.001
    ComfyUISampler("uni_pc", partial(unipc, variant="bh1"), clean=False, least=4, flow=None),
    ComfyUISampler("uni_pc_bh2", partial(unipc, variant="bh2"), clean=False, least=4, flow=None),
    ComfyUISampler("dpmpp_2m_sde", solvers.sde_dpm_solver_pp_2m, at(eta=0.0), flow=Seen.unscaled, node=_2M_SDE),
    ComfyUISampler("dpmpp_2s_ancestral", dpm_solver_pp_2s, at(eta=0.0), flow=Seen.unscaled, node=_2S),
    ComfyUISampler("dpmpp_3m_sde", third_order, at(eta=0.0), least=3, flow=Seen.unscaled, node=_3M_SDE),
    ComfyUISampler("euler_ancestral", solvers.ddim, ancestral_eta, flow=None, node="SamplerEulerAncestral"),
    ComfyUISampler("dpmpp_2m_sde", solvers.sde_dpm_solver_pp_2m, sde_eta, flow=Seen.unscaled, node=_2M_SDE),
)
