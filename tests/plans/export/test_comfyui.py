"""Export to ComfyUI: its formulas, written by hand, compute what the plan computes; its text can be read by its nodes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, Threshold, grids, solvers
from isocline.plans.export import ComfyUIExport, comfyui
from isocline.plans.export.comfyui import SAMPLERS
from isocline.plans.export.seen import level_of
from isocline.plans.grids.span import End
from isocline.processes import EDM, GaussianMixture, PoissonFlow, RectifiedFlow, Tabulated, VariancePreserving
from tests.plans.export import by_hand
from tests.plans.export.test_k_diffusion import STEPS, model_of, third_m
from tests.plans.helpers import normal

VP = VariancePreserving()
FLOW = RectifiedFlow(t_max=0.98)
HAND: dict[str, Callable[..., Tensor]] = {
    "euler": by_hand.sample_euler,
    "heun": by_hand.sample_heun,
    "dpm_2": by_hand.sample_dpm_2,
    "dpmpp_2m": by_hand.sample_dpmpp_2m,
    "res_multistep": by_hand.denoised_at_the_end(by_hand.res_multistep),
    "ipndm": by_hand.denoised_at_the_end(by_hand.ipndm),
    "lms": by_hand.denoised_at_the_end(by_hand.sample_lms),
    "uni_pc": by_hand.uni_pc,
    "uni_pc_bh2": partial(by_hand.uni_pc, variant="bh2"),
    "dpmpp_2m_sde": by_hand.sample_dpmpp_2m_sde,
    "dpmpp_2s_ancestral": by_hand.sample_dpmpp_2s_ancestral,
    "dpmpp_3m_sde": by_hand.sample_dpmpp_3m_sde,
    "euler_ancestral": by_hand.sample_euler_ancestral,
}
UNIPC: dict[str, Any] = {"order": 3, "final_order": 1}
CASES: dict[str, tuple[Callable[..., Plan], str, str, dict[str, Any]]] = {
    "ddim": (solvers.ddim, "euler", "KSamplerSelect", {}),
    "heun": (solvers.heun, "heun", "KSamplerSelect", {}),
    "dpm_solver_2": (solvers.dpm_solver_2, "dpm_2", "KSamplerSelect", {}),
    "2m": (solvers.dpm_solver_pp_2m, "dpmpp_2m", "KSamplerSelect", {}),
    "exponential": (partial(solvers.exponential_adams, order=2), "res_multistep", "KSamplerSelect", {}),
    "ipndm": (solvers.ipndm, "ipndm", "KSamplerSelect", {}),
    "adams": (partial(solvers.rho_adams, order=4), "lms", "SamplerLMS", {"order": 4}),
    "2s": (solvers.dpm_solver_pp_2s, "dpmpp_2s_ancestral", "SamplerDPMPP_2S_Ancestral", {"eta": 0.0}),
    "3m": (third_m, "dpmpp_3m_sde", "SamplerDPMPP_3M_SDE", {"eta": 0.0}),
    "ancestral": (solvers.ancestral, "euler_ancestral", "SamplerEulerAncestral", {"eta": 1.0}),
    "2m sde": (partial(solvers.sde_dpm_solver_pp_2m, eta=0.4), "dpmpp_2m_sde", "SamplerDPMPP_2M_SDE", {"eta": 0.4}),
    "unipc bh1": (partial(solvers.unipc, variant="bh1", **UNIPC), "uni_pc", "KSamplerSelect", {}),
    "unipc bh2": (partial(solvers.unipc, variant="bh2", **UNIPC), "uni_pc_bh2", "KSamplerSelect", {}),
}
# on flows: in (x, t) with the formulas for (y, s)
STRAIGHT: dict[str, tuple[Callable[..., Plan], str]] = {
    "ddim": (solvers.ddim, "euler"),
    "flow_heun": (solvers.flow_heun, "heun"),
    "flow_adams": (partial(solvers.flow_adams, order=3), "lms"),
}
# on flows: in their log-SNR
BENT: dict[str, tuple[Callable[..., Plan], str, dict[str, Any]]] = {
    "2m": (solvers.dpm_solver_pp_2m, "dpmpp_2m_sde", {"eta": 0.0}),
    "2m sde": (solvers.sde_dpm_solver_pp_2m, "dpmpp_2m_sde", {"eta": 1.0}),
    "2s": (solvers.dpm_solver_pp_2s, "dpmpp_2s_ancestral", {"eta": 0.0}),
    "3m": (third_m, "dpmpp_3m_sde", {"eta": 0.0}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("end", ["t_min", "zero"])
@pytest.mark.parametrize("process", [EDM(), VP, Tabulated.scaled_linear_betas()], ids=lambda p: type(p).__name__)
def test_the_sampler_computes_what_the_plan_does(case: str, end: End, process: Any) -> None:
    solver, name, node, settings = CASES[case]
    plan = solver(process, grids.karras(process, STEPS, end=end))
    if end == "zero" and name.startswith("uni_pc"):
        with pytest.raises(InvalidInput, match="none there computes what unipc does"):
            comfyui(plan)
        return
    export = comfyui(plan)
    assert export == ComfyUIExport(name, node, tuple(level_of(process, plan.nodes).tolist()), settings)
    bed, model = model_of(process)
    noise = [normal(5, 2, seed=20 + i) for i in range(len(plan.carry))]
    y = export.sigmas[0] * normal(5, 2)
    theirs = HAND[name](model, y, export.sigmas, noise, **settings)
    ours = plan.run(bed, process.alpha(plan.times[0]) * y, noise=noise).x / process.alpha(plan.times[-1])
    torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", STRAIGHT)
@pytest.mark.parametrize("flow", [FLOW, RectifiedFlow()], ids=["from 0.98", "from 1"])
def test_on_flows_formulas_for_noise_levels_act_on_times(case: str, flow: RectifiedFlow) -> None:
    solver, name = STRAIGHT[case]
    plan = solver(flow, grids.uniform(flow, STEPS))
    export = comfyui(plan)
    assert (export.sampler, export.sigmas) == (name, tuple(plan.nodes.tolist()))
    bed = GaussianMixture(flow, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))

    def model(x: Tensor, t: float) -> Tensor:
        return bed(x, torch.tensor(t, dtype=torch.float64))

    x = normal(5, 2)
    theirs = HAND[name](model, x, export.sigmas, [x] * STEPS, **export.settings)
    torch.testing.assert_close(theirs, plan.run(bed, x).x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", BENT)
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_on_flows_samplers_that_use_the_log_snr_are_the_solvers(case: str, end: End) -> None:
    """ComfyUI writes them in ``x``; here the same in ``y = x / (1 - t)``."""
    solver, name, settings = BENT[case]
    plan = solver(FLOW, grids.uniform(FLOW, STEPS, end=end))
    export = comfyui(plan)
    assert (export.sampler, export.settings) == (name, settings)
    assert export.sigmas == tuple(plan.nodes.tolist())
    bed, model = model_of(FLOW)
    noise = [normal(5, 2, seed=20 + i) for i in range(len(plan.carry))]
    x = normal(5, 2)
    levels = [t / (1 - t) for t in export.sigmas]
    theirs = HAND[name](model, x / (1 - export.sigmas[0]), tuple(levels), noise, **settings) * (1 - export.sigmas[-1])
    torch.testing.assert_close(theirs, plan.run(bed, x, noise=noise).x, rtol=1e-8, atol=1e-8)


def test_every_sampler_is_exported_somewhere() -> None:
    assert {case[1] for case in CASES.values()} == {sampler.name for sampler in SAMPLERS}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (solvers.dpm_solver_pp_2m(RectifiedFlow(), grids.uniform(RectifiedFlow(), 4)), "none there computes what dpm_solver_pp_2m"),
        (solvers.heun(FLOW, grids.uniform(FLOW, 4)), "none there computes what heun does"),
        (solvers.ancestral(FLOW, grids.uniform(FLOW, 4)), "none there computes what ancestral does"),
        (solvers.flow_adams(FLOW, grids.uniform(FLOW, 4, end="zero")), "none there computes what flow_adams does"),
        (solvers.stochastic_heun(VP, grids.karras(VP, 4), s_churn=2.0), "none there computes what stochastic_heun does"),
        (solvers.ddim(PoissonFlow(D=8), grids.karras(PoissonFlow(D=8), 3)), "normal noise, which is not that of PoissonFlow"),
        (solvers.ddim(VP, grids.karras(VP, 3)).with_threshold(Threshold()), "ComfyUI has no sampler .* thresholds"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_reason(plan: Plan, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        comfyui(plan)


def read_by_manual_sigmas(text: str) -> list[float]:
    """Read levels as the node "ManualSigmas" does: it finds signed decimals, and would take 1e-5 for 1 and -5."""
    return [float(found) for found in re.findall(r"[-+]?(?:\d*\.*\d+)", text)]


@pytest.mark.parametrize("low", [0.002, 1e-5, 3.3e-9])
def test_the_text_is_read_back_to_the_bit(low: float) -> None:
    process = EDM(t_min=low)
    export = comfyui(solvers.ddim(process, grids.log_snr(process, 9, end="zero")))
    found = read_by_manual_sigmas(export.text)
    assert np.array_equal(np.array(found, dtype=np.float32), np.array(export.sigmas, dtype=np.float32))
