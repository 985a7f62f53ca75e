"""Export to k-diffusion: each sampler computes what the plan computes, written by hand and, where installed, by k-diffusion."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, Provenance, Stretch, Threshold, composite, grids, solvers
from isocline.plans.export import KDiffusionExport, k_diffusion
from isocline.plans.export.k_diffusion import SAMPLERS
from isocline.plans.export.seen import level_of
from isocline.plans.grids.span import End
from isocline.plans.tuners.free import Free, FreePlan
from isocline.processes import (
    EDM,
    CosineVariancePreserving,
    GaussianMixture,
    GaussianProcess,
    RectifiedFlow,
    Tabulated,
    VariancePreserving,
)
from tests.plans.export import by_hand
from tests.plans.helpers import PROCESSES, normal, random_plan

VP = VariancePreserving()
STEPS = 8
Run = Callable[..., Tensor]


def third_m(process: GaussianProcess, times: Tensor) -> Plan:
    """3M as k-diffusion starts it: exact weights in the second step."""
    start = Stretch(solvers.exponential_adams, 2, {"order": 2})
    return composite(process, times, [start, Stretch(solvers.dpm_solver_pp_3m)])


CHURN: dict[str, Any] = {"s_churn": 3.0, "s_min": 0.3, "s_max": 20.0, "s_noise": 1.01}
# solver -> sampler, its settings, whether a step to level 0 agrees
CASES: dict[str, tuple[Callable[..., Plan], str, dict[str, Any], bool]] = {
    "ddim": (solvers.ddim, "sample_euler", {}, True),
    "flow_euler": (solvers.flow_euler, "sample_euler", {}, True),
    "heun": (solvers.heun, "sample_heun", {}, True),
    "dpm_solver_2": (solvers.dpm_solver_2, "sample_dpm_2", {}, True),
    "2m": (solvers.dpm_solver_pp_2m, "sample_dpmpp_2m", {}, True),
    "2s": (solvers.dpm_solver_pp_2s, "sample_dpmpp_2s_ancestral", {"eta": 0.0}, True),
    "3m": (third_m, "sample_dpmpp_3m_sde", {"eta": 0.0}, True),
    "adams 2": (partial(solvers.rho_adams, order=2, clean_order=2), "sample_lms", {"order": 2}, True),
    "adams 3": (partial(solvers.rho_adams, clean_order=3), "sample_lms", {"order": 3}, True),
    "adams 4": (partial(solvers.rho_adams, order=4, clean_order=4), "sample_lms", {"order": 4}, True),
    "adams 4, plain end": (partial(solvers.rho_adams, order=4), "sample_lms", {"order": 4}, False),
    "ddim, eta 0.3": (partial(solvers.ddim, eta=0.3), "sample_euler_ancestral", {"eta": 0.3}, True),
    "ancestral": (solvers.ancestral, "sample_euler_ancestral", {"eta": 1.0}, True),
    "2m sde": (solvers.sde_dpm_solver_pp_2m, "sample_dpmpp_2m_sde", {"eta": 1.0}, True),
    "2m sde, eta 0.4": (partial(solvers.sde_dpm_solver_pp_2m, eta=0.4), "sample_dpmpp_2m_sde", {"eta": 0.4}, True),
    "churn": (partial(solvers.stochastic_heun, s_churn=3.0), "sample_heun", {"s_churn": 3.0, "s_noise": 1.0}, True),
    "churn, window": (partial(solvers.stochastic_heun, **CHURN), "sample_heun", {"s_churn": 3.0, "s_noise": 1.01}, True),
    "churn, Euler": (partial(solvers.stochastic_euler, **CHURN), "sample_euler", {"s_churn": 3.0, "s_noise": 1.01}, True),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES)
ends = pytest.mark.parametrize("end", ["t_min", "zero"])


def compiled(case: str, process: GaussianProcess, end: End) -> Plan:
    solver, *_, clean = CASES[case]
    if end == "zero" and not clean:
        pytest.skip("its step to level 0 has another order there")
    if end == "zero" and float(process.sigma(0.0)) > 0:
        pytest.skip("this process has noise at time 0")
    return solver(process, grids.karras(process, STEPS, end=end))


def model_of(process: GaussianProcess) -> tuple[GaussianMixture, by_hand.Model]:
    """Return a denoiser, and the same as a function of unscaled state and noise level."""
    bed = GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))

    def model(y: Tensor, s: Tensor | float) -> Tensor:
        t = process.time_of_noise_level(torch.as_tensor(s, dtype=torch.float64).flatten()[0])
        return bed.predict(process.alpha(t) * y, t).x0

    return bed, model


def rows_of(plan: Plan, noise: list[Tensor]) -> list[Tensor]:
    """Return the noises of steps as noises of rows: fresh noise enters in the row that leaves a node."""
    nodes = plan.nodes.tolist()
    return [noise[nodes.index(t)] if t in nodes[:-1] else noise[0] for t in plan.times[:-1].tolist()]


def both(plan: Plan, export: KDiffusionExport, sample: Run) -> tuple[Tensor, Tensor]:
    """Return end states, unscaled, of the sampler and of the plan."""
    bed, model = model_of(plan.process)
    noise = [normal(5, 2, seed=20 + i) for i in range(STEPS)]
    y = export.sigmas[0] * normal(5, 2)
    ours = plan.run(bed, plan.process.alpha(plan.times[0]) * y, noise=rows_of(plan, noise)).x
    return sample(model, y, export.sigmas, noise, **export.settings), ours / plan.process.alpha(plan.times[-1])


@every_case
@ends
@pytest.mark.parametrize(
    "process", [*PROCESSES, Tabulated.linear_betas(), CosineVariancePreserving()], ids=lambda p: type(p).__name__
)
def test_the_sampler_computes_what_the_plan_does(case: str, end: End, process: GaussianProcess) -> None:
    plan = compiled(case, process, end)
    export = k_diffusion(plan)
    _, name, settings, _ = CASES[case]
    assert export.sampler == name
    assert settings.items() <= export.settings.items()
    assert export.sigmas == tuple(level_of(process, plan.nodes).tolist())
    theirs, ours = both(plan, export, getattr(by_hand, name))
    torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-8)


@pytest.fixture
def sampling() -> Iterator[types.ModuleType]:
    """Load k-diffusion's samplers; the package's own import needs image libraries that they do not use."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("k-diffusion is not installed")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations)
    package.utils = utils  # type: ignore[attr-defined]
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]  # type: ignore[attr-defined]
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "k_diffusion"}
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    yield importlib.import_module("k_diffusion.sampling")
    for name in [name for name in sys.modules if name.split(".")[0] == "k_diffusion"]:
        del sys.modules[name]
    sys.modules |= kept


@every_case
def test_k_diffusion_itself_computes_what_the_plan_does(
    case: str, sampling: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_of: tuple[End, ...] = ("t_min", "zero") if CASES[case][3] else ("t_min",)
    for process, end in product((EDM(), VP, RectifiedFlow(t_max=0.98)), ends_of):
        plan = compiled(case, process, end)
        export = k_diffusion(plan)

        def sample(
            model: by_hand.Model, y: Tensor, sigmas: by_hand.Levels, noise: list[Tensor], name: str = export.sampler,
            **settings: Any,
        ) -> Tensor:  # fmt: skip
            drawn = iter(noise)
            monkeypatch.setattr(torch, "randn_like", lambda x: next(drawn))
            if "eta" in settings:
                settings["noise_sampler"] = lambda s, t: next(drawn)
            levels = torch.tensor(sigmas, dtype=torch.float64)
            result: Tensor = getattr(sampling, name)(model, y, levels, disable=True, **settings)
            return result

        theirs, ours = both(plan, export, sample)
        difference = float((theirs - ours).abs().max())
        print(f"{case}, {end}, {type(process).__name__}: {difference:.1e}")
        assert difference < 1e-10


def test_every_sampler_is_exported_somewhere() -> None:
    assert {case[1] for case in CASES.values()} == {sampler.name for sampler in SAMPLERS}


def test_a_plan_is_known_by_what_it_computes_not_by_its_label() -> None:
    times = grids.karras(VP, STEPS)
    plan = solvers.dpm_solver_pp_2m(VP, times)
    assert k_diffusion(replace(plan, provenance=Provenance("unknown"))) == k_diffusion(plan)
    assert k_diffusion(solvers.unipc(VP, times, corrector=False)) == k_diffusion(plan)
    wrong = replace(solvers.exponential_adams(VP, times), provenance=plan.provenance)
    with pytest.raises(InvalidInput, match="none there computes what dpm_solver_pp_2m does"):
        k_diffusion(wrong)


def test_tuned_times_can_be_exported_tuned_coefficients_cannot() -> None:
    base = solvers.dpm_solver_pp_2m(VP, grids.karras(VP, 5))
    moved = FreePlan(base, Free(model_times=False, weights=False))
    with torch.no_grad():
        moved.gap.add_(0.3 * normal(5))
    plan = moved()
    export = k_diffusion(plan)
    assert export.sampler == "sample_dpmpp_2m"
    assert export.sigmas == tuple(level_of(VP, plan.nodes.detach()).tolist())
    assert export.sigmas != k_diffusion(base).sigmas
    with pytest.raises(
        InvalidInput, match="k-diffusion has no sampler for this plan: its coefficients, made by EndToEnd"
    ):
        k_diffusion(replace(plan, weights=plan.weights * 1.01, provenance=Provenance("EndToEnd")))


def test_the_guidance_scale_is_told() -> None:
    plan = solvers.ddim(VP, grids.karras(VP, 3))
    assert k_diffusion(plan.for_guidance(7.5)).guidance == 7.5


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            solvers.ddim(VP, grids.karras(VP, 3)).with_threshold(Threshold()),
            r"thresholds data predictions.*export plan\.with_threshold\(None\)",
        ),
        (
            replace(solvers.ddim(VP, grids.karras(VP, 3)), constant=torch.ones(3, dtype=torch.float64)),
            r"it adds constants, or has a coefficient for each coordinate.*run it with plan\.run",
        ),
        (
            solvers.ddim(RectifiedFlow(), grids.uniform(RectifiedFlow(), 3)),
            r"finite noise levels, but RectifiedFlow\(.*\) has no signal at t = 1; start the grid a little later",
        ),
        (random_plan(1, 3), "other times than those of the states"),
        (
            composite(VP, grids.karras(VP, 4), [Stretch(solvers.heun, 2), Stretch(solvers.dpm_solver_pp_2m)]),
            "several solvers share the run",
        ),
        (solvers.unipc(VP, grids.karras(VP, 4)), "none there computes what unipc does on this grid"),
        (solvers.t_adams(VP, grids.karras(VP, 4)), "none there computes what t_adams does on this grid"),
        (solvers.rho_adams(VP, grids.karras(VP, 4, end="zero")), "none there computes what rho_adams does"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_reason(plan: Plan, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        k_diffusion(plan)
    assert "\n" not in str(caught.value)


def test_the_refusal_says_what_can_be_exported() -> None:
    with pytest.raises(InvalidInput, match=r"on plan\.nodes .*plans of ddim, heun, .*, stochastic_heun; .*plan\.run"):
        k_diffusion(solvers.unipc(VP, grids.karras(VP, 4)))


def test_churn_is_capped_as_there() -> None:
    """Beyond ``sqrt(2) - 1`` for each step more churn changes nothing; the export names the least that does the same."""
    process = EDM()
    plan = solvers.stochastic_euler(process, grids.karras(process, STEPS), s_churn=40.0)
    assert k_diffusion(plan).settings["s_churn"] == pytest.approx((math.sqrt(2) - 1) * STEPS)
