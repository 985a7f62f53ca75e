"""Plans inside diffusers: what a pipeline computes with the scheduler is what the plan computes; what it cannot is refused.

Models are tiny, of diffusers' own classes, with random weights; see `tests.recipes.tiny_diffusers`.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from isocline._core.errors import BadFile, ExtraMissing, InvalidInput, Mismatch
from isocline._core.stream import Stream
from isocline.cli import app as cli
from isocline.plans import Plan, Stretch, Threshold, composite, free_start, grids, solvers
from isocline.plans.export import PlanScheduler, flow_match_sigmas
from isocline.plans.export import diffusers as module
from isocline.plans.export.stepping import Stepping
from isocline.plans.tuners.free import Free, FreePlan
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    FlowVelocity,
    GaussianProcess,
    Guided,
    Noise,
    RectifiedFlow,
    Score,
    Tabulated,
    VPrediction,
)
from isocline.recipes import Conditions, from_diffusers
from tests.plans.helpers import PARAMETERISATIONS, normal, random_plan, simulate
from tests.recipes import tiny_diffusers as tiny
from tests.recipes.tiny_diffusers import CASES, Case, Pipeline, diffusers

BATCH = 2
TABLE = Tabulated.scaled_linear_betas()
FLOW = RectifiedFlow()


def karras(process: GaussianProcess, steps: int) -> Tensor:
    return grids.karras(process, steps, end="zero")


def even(process: GaussianProcess, steps: int) -> Tensor:
    return grids.uniform(process, steps, end="zero")


@dataclass(frozen=True)
class Bench:
    """A tiny model in a pipeline, as a denoiser, with the conditions of a batch."""

    case: Case
    pipeline: Pipeline
    denoiser: Denoiser
    cond: Conditions

    @staticmethod
    @cache
    def of(name: str, output: str = "epsilon") -> Bench:
        case = CASES[name]
        made: Callable[..., Pipeline] = case.make
        pipeline = made() if output == "epsilon" else made(output)
        denoiser = from_diffusers(pipeline, **case.fixed)
        return Bench(case, pipeline, denoiser, Conditions(**case.arguments(BATCH)))

    @property
    def process(self) -> GaussianProcess:
        return self.denoiser.process

    def noise(self, seed: int) -> Tensor:
        return normal(BATCH, *self.case.shape, seed=seed, dtype=torch.float32)


def tuned(base: Plan) -> Plan:
    """Return what a tuner would make of `base`: other times, model times that are not those of the states, other coefficients."""
    student = FreePlan(base, Free())
    with torch.no_grad():
        for i, entry in enumerate(student.parameters()):
            entry += 0.1 * normal(*entry.shape, seed=i)
        plan = student()
    assert (plan.model_times - plan.times[:-1]).abs().max() > 1e-3
    assert not plan.equivalent(replace(base.convert(Data()), model_times=plan.model_times, times=plan.times))
    return plan


def restarting(process: GaussianProcess, times: Tensor) -> Plan:
    low, high = (float(process.noise_level(t)) for t in (times[-3], times[-4]))
    return solvers.restart(process, times, [solvers.Restart(low, high, steps=2)])


def late(solver: Callable[..., Plan], process: GaussianProcess, times: Tensor) -> Plan:
    return free_start(solver(process, times[1:]), times[0])


Solve = Callable[[GaussianProcess], Plan]
CHURN: dict[str, Any] = {"s_churn": 2.0, "s_noise": 1.01}
# name -> (model, output, plan): deterministic, stochastic, tuned, multi-stage, flow
PLANS: dict[str, tuple[str, str, Solve]] = {
    "ddim": ("unet", "epsilon", lambda p: solvers.ddim(p, karras(p, 6))),
    "2m": ("stable diffusion", "epsilon", lambda p: solvers.dpm_solver_pp_2m(p, karras(p, 6))),
    "unipc on v": ("stable diffusion", "v_prediction", lambda p: solvers.unipc(p, karras(p, 6))),
    "adams on data": ("unet", "sample", lambda p: solvers.lam_adams(p, grids.log_snr(p, 6), order=4)),
    "heun": ("sdxl", "epsilon", lambda p: solvers.heun(p, karras(p, 4))),
    "3s": ("dit", "epsilon", lambda p: solvers.dpm_solver_pp_3s(p, karras(p, 3))),
    "thresholded 2m": (
        "pixart", "epsilon", lambda p: solvers.dpm_solver_pp_2m(p, karras(p, 5)).with_threshold(Threshold(0.9, 1.0, 2.0)),
    ),
    "ddim, eta 1": ("unet", "v_prediction", lambda p: solvers.ddim(p, karras(p, 6), eta=1.0)),
    "2m sde": ("stable diffusion", "epsilon", lambda p: solvers.sde_dpm_solver_pp_2m(p, karras(p, 6))),
    "churn": ("sdxl", "epsilon", lambda p: solvers.stochastic_heun(p, karras(p, 4), **CHURN)),
    "restart": ("unet", "epsilon", lambda p: restarting(p, karras(p, 6))),
    "tuned": ("stable diffusion", "epsilon", lambda p: tuned(solvers.dpm_solver_pp_2m(p, karras(p, 6)))),
    "free start": ("unet", "epsilon", lambda p: late(solvers.dpm_solver_pp_2m, p, karras(p, 6))),
    "flow Euler": ("sd3", "epsilon", lambda p: solvers.flow_euler(p, even(p, 6))),
    "flow Heun": ("flux", "epsilon", lambda p: solvers.flow_heun(p, even(p, 4))),
    "flow 2m": ("sd3", "epsilon", lambda p: solvers.dpm_solver_pp_2m(p, even(p, 6))),
    "flow sde": ("flux", "epsilon", lambda p: solvers.sde_dpm_solver_pp_2m(p, even(p, 6))),
    "flow tuned": ("sd3", "epsilon", lambda p: tuned(solvers.flow_euler(p, even(p, 6)))),
    "flow free start": ("sd3", "epsilon", lambda p: late(solvers.flow_euler, p, even(p, 6))),
}  # fmt: skip
every_plan = pytest.mark.parametrize("name", PLANS)


@cache
def bench_and_plan(name: str) -> tuple[Bench, Plan]:
    model, output, solve = PLANS[name]
    bench = Bench.of(model, output)
    return bench, solve(bench.process)


def loop(bench: Bench, scheduler: Any, x: Tensor, seed: int = 0) -> list[Tensor]:
    """Return the states of the loop that diffusers' pipelines run, calling the model in their words."""
    generator, model = torch.Generator().manual_seed(seed), bench.pipeline.model
    arguments = bench.cond.of(len(x)) | bench.case.fixed
    scheduler.set_timesteps(scheduler.plan.calls)
    states = [x]
    for t in scheduler.timesteps:
        x = scheduler.scale_model_input(states[-1], t)
        if type(model).__name__.startswith("UNet"):
            m = model(x, t, **arguments).sample
        else:
            unit = 1000 if type(model).__name__.startswith("Flux") else 1
            m = model(hidden_states=x, timestep=t.expand(len(x)).to(x.dtype) / unit, **arguments, return_dict=False)[0]
        states.append(scheduler.step(m, t, states[-1], generator=generator, return_dict=False)[0])
    return states


def drawn(plan: Plan, like: Tensor, seed: int = 0) -> list[Tensor]:
    """Return the noise of each row as a generator with that seed gives it to the rows after the first call."""
    generator, first = torch.Generator().manual_seed(seed), int(plan.evaluate.nonzero()[0])
    return [
        torch.randn(like.shape, generator=generator, dtype=like.dtype) if i >= first and c else torch.zeros_like(like)
        for i, c in enumerate(plan.noise.tolist())
    ]


@every_plan
@torch.no_grad()
def test_a_pipeline_computes_what_the_plan_does(name: str, tmp_path: Path) -> None:
    bench, plan = bench_and_plan(name)
    scheduler = PlanScheduler.from_pretrained(plan.to_diffusers(tmp_path, bench.denoiser.parameterisation))
    rows, x = plan.evaluate.nonzero().flatten().tolist(), bench.noise(7)
    found = torch.stack(loop(bench, scheduler, scheduler.init_noise_sigma * x))
    before = math.prod(plan.carry[: rows[0]].tolist())  # rows before the first call, without their noise
    run = plan.run(
        bench.denoiser, scheduler.init_noise_sigma * x / before, cond=bench.cond, noise=drawn(plan, x), record=True
    )
    assert run.trajectory is not None
    expected = run.trajectory[[*rows, -1]]
    assert len(found) == plan.calls + 1
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@every_plan
def test_the_file_holds_the_plan_to_the_last_bit(name: str, tmp_path: Path) -> None:
    bench, plan = bench_and_plan(name)
    scheduler = PlanScheduler.from_pretrained(plan.to_diffusers(tmp_path, bench.denoiser.parameterisation))
    for column in ("times", "nodes", "model_times", "carry", "weights", "noise", "evaluate"):
        assert torch.equal(getattr(scheduler.plan, column), getattr(plan, column).detach())
    assert scheduler.plan.threshold == plan.threshold
    scheduler.save_pretrained(tmp_path / "again")
    again, first = ((f / "scheduler_config.json").read_text() for f in (tmp_path / "again", tmp_path))
    assert again == first
    assert json.loads(first)["plan"]["calls"] == plan.calls


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("output", PARAMETERISATIONS, ids=lambda p: p.name)
def test_stepping_is_the_definition_of_a_row(seed: int, output: Any) -> None:
    plan = random_plan(seed, 6, parameterisation=PARAMETERISATIONS[seed % 5], noisy=True, silent=seed % 2 == 0)
    plan = replace(plan, constant=torch.arange(6.0, dtype=torch.float64) / 7)
    own, noise = [normal(3, 4, seed=i) for i in range(6)], [normal(3, 4, seed=20 + i) for i in range(6)]
    used = [m if e else torch.zeros_like(m) for m, e in zip(own, plan.evaluate.tolist(), strict=True)]
    x = normal(3, 4, seed=99)
    steps, state, expected = Stepping(plan, output), x, [x]
    for i in range(6):
        row = [sum(float(plan.weights[i, j]) * used[j] for j in range(i + 1)), float(plan.noise[i]) * noise[i]]
        expected.append(float(plan.carry[i]) * expected[-1] + row[0] + row[1] + i / 7)
    for place, row in enumerate(steps.calls):
        # the network says m' where the plan's own output is own[row]
        cx, cm = (float(c[row]) for c in plan.conversion(output))
        drawn = iter([noise[i] for i in range(row, 6) if plan.noise[i] != 0])
        torch.testing.assert_close(state, expected[row], rtol=1e-10, atol=1e-10)
        state = steps.advance(state, (own[row] - cx * state) / cm, lambda shape, drawn=drawn: next(drawn))
        assert steps.place == place + 1
    torch.testing.assert_close(state, expected[-1], rtol=1e-10, atol=1e-10)
    if plan.constant is not None:
        without = simulate(replace(plan, constant=None), used, x, noise)[-1]
        assert (without - state).abs().max() > 0.1  # constants count


def test_outputs_are_let_go_when_no_later_row_needs_them() -> None:
    plan = solvers.lam_adams(TABLE, karras(TABLE, 8), order=3)
    steps, most, x = Stepping(plan, Data()), 0, torch.zeros(1, 2)
    for _ in range(8):
        x = steps.advance(x, torch.zeros(1, 2), torch.randn)
        most = max(most, len(steps._outputs))
    assert most == 2


@pytest.mark.parametrize("output", [Noise(), VPrediction(), Data()], ids=lambda p: p.name)
def test_data_predictions_are_those_of_the_denoiser(output: Any) -> None:
    threshold = Threshold(0.9, 0.5)
    for plan in (
        solvers.heun(TABLE, karras(TABLE, 3)),
        solvers.ddim(TABLE, karras(TABLE, 3)).with_threshold(threshold),
    ):
        scheduler = PlanScheduler.from_plan(plan, output)
        x, m = normal(2, 5), normal(2, 5, seed=1)
        for row, t in zip(plan.evaluate.nonzero().flatten(), scheduler.timesteps, strict=True):
            cx, cm = output.to_data(TABLE, plan.times[row])
            expected = cx * x + cm * m if plan.threshold is None else threshold(cx * x + cm * m)
            torch.testing.assert_close(scheduler.step(m, t, x).pred_original_sample, expected)


def test_data_predictions_are_none_where_the_output_defines_none() -> None:
    dark = Tabulated((0.9, 0.4, 2.0**-24))
    scheduler = PlanScheduler.from_plan(solvers.ddim(dark, torch.tensor([1.0, 0.5, 0.0])))
    assert scheduler.step(torch.ones(1, 2), scheduler.timesteps[0], torch.ones(1, 2)).pred_original_sample is not None
    with pytest.raises(InvalidInput, match="Noise outputs are undefined"):
        Stepping(solvers.ddim(FLOW, even(FLOW, 3)), Noise())
    skipping = solvers.ddim(FLOW, even(FLOW, 3))  # a first call whose output is not used
    skipping = replace(skipping, weights=skipping.weights.tril(-1) * 0, evaluate=skipping.evaluate)
    assert Stepping(skipping.convert(FlowVelocity()), FlowVelocity()).data(torch.ones(1), torch.ones(1)) is not None


# what pipelines of diffusers do beside the loop


@torch.no_grad()
def test_the_ddpm_pipeline(tmp_path: Path) -> None:
    bench = Bench.of("unet")
    model = tiny.seeded(diffusers.UNet2DModel(**{**bench.pipeline.model.config, "num_class_embeds": None}))  # type: ignore[dict-item]
    pipe = diffusers.DDPMPipeline(model, diffusers.DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    denoiser = from_diffusers(pipe)
    for plan in (
        solvers.unipc(denoiser.process, karras(denoiser.process, 6)),
        solvers.ancestral(denoiser.process, karras(denoiser.process, 6)),
    ):
        pipe.scheduler = PlanScheduler.from_pretrained(
            plan.to_diffusers(tmp_path / "scheduler", denoiser.parameterisation)
        )
        found = pipe(2, torch.Generator().manual_seed(3), num_inference_steps=6, output_type="np").images
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(2, 3, 8, 8, generator=generator)
        noise = [
            torch.randn(2, 3, 8, 8, generator=generator) if c else torch.zeros_like(x) for c in plan.noise.tolist()
        ]
        expected = (plan.run(denoiser, x, noise=noise).x / 2 + 0.5).clamp(0, 1)
        assert 0.1 < expected.std() < 0.5  # not all clamped
        torch.testing.assert_close(torch.as_tensor(found).permute(0, 3, 1, 2), expected, rtol=0, atol=1e-5)
    # and stored with its scheduler: diffusers asks that the class has been imported, which it has been here
    pipe.save_pretrained(tmp_path / "pipe")
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path / "pipe", low_cpu_mem_usage=False)
    assert type(again.scheduler) is PlanScheduler
    assert again.scheduler.plan == plan
    assert from_diffusers(tmp_path / "pipe").process == denoiser.process


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_dit_pipeline_with_guidance(guidance: float, tmp_path: Path) -> None:
    bench = Bench.of("dit")
    vae = tiny.seeded(
        diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, latent_channels=4, sample_size=8)
    )
    pipe = diffusers.DiTPipeline(bench.pipeline.model, vae, bench.pipeline.scheduler)
    pipe.set_progress_bar_config(disable=True)
    denoiser = from_diffusers(pipe)
    if guidance > 1:
        denoiser = Guided(denoiser, guidance, torch.tensor([1000]))
    plan = solvers.dpm_solver_pp_2m(denoiser.process, karras(denoiser.process, 5)).for_guidance(guidance)
    pipe.scheduler = PlanScheduler.from_pretrained(plan.to_diffusers(tmp_path, denoiser.parameterisation))
    found = pipe([7, 9], pipe.scheduler.plan.guidance, torch.Generator().manual_seed(3), 5, output_type="np").images
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    latents = plan.run(denoiser, x, cond=torch.tensor([7, 9])).x
    expected = (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    assert expected.std() > 0.05
    torch.testing.assert_close(torch.as_tensor(found).permute(0, 3, 1, 2), expected, rtol=0, atol=2e-5)


def test_the_ddim_pipeline_hands_over_its_own_arguments() -> None:
    plan = solvers.ddim(TABLE, karras(TABLE, 3))
    scheduler, x = PlanScheduler.from_plan(plan), torch.ones(1, 2)
    scheduler.step(x, scheduler.timesteps[0], x, eta=0.0, use_clipped_model_output=None)
    with pytest.raises(InvalidInput, match="leave out eta"):
        scheduler.step(x, scheduler.timesteps[1], x, eta=0.5)


@torch.no_grad()
def test_image_to_image_starts_where_the_strength_says() -> None:
    plan = solvers.ddim(TABLE, karras(TABLE, 6))
    scheduler = PlanScheduler.from_plan(plan)
    image, noise = normal(2, 4, 8, 8, dtype=torch.float32), normal(2, 4, 8, 8, seed=1, dtype=torch.float32)
    scheduler.set_timesteps(6)
    timesteps = scheduler.timesteps[2:]
    scheduler.set_begin_index(2)
    x = scheduler.add_noise(image, noise, timesteps[:1].repeat(2))
    alpha, sigma = float(TABLE.alpha(plan.times[2])), float(TABLE.sigma(plan.times[2]))
    torch.testing.assert_close(x, alpha * image + sigma * noise)
    torch.testing.assert_close(scheduler.scale_noise(image, timesteps[0], noise), x)
    expected, outputs = x, [normal(2, 4, 8, 8, seed=9 + i, dtype=torch.float32) for i in range(4)]
    rest = solvers.ddim(TABLE, plan.times[2:])
    own = plan.conversion(Noise())
    for i, t in enumerate(timesteps):
        m = float(own[0][2 + i]) * expected + float(own[1][2 + i]) * outputs[i]
        x = scheduler.step(outputs[i], t, x).prev_sample
        expected = float(rest.carry[i]) * expected + float(rest.weights[i, i]) * m
        assert scheduler.step_index == 3 + i
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_a_multistep_plan_cannot_start_in_its_middle() -> None:
    scheduler = PlanScheduler.from_plan(solvers.dpm_solver_pp_2m(TABLE, karras(TABLE, 6)))
    scheduler.set_begin_index(2)
    with pytest.raises(InvalidInput, match=r"call number 2.*outputs of calls before.*one-step solver"):
        scheduler.step(torch.ones(1, 2), scheduler.timesteps[2], torch.ones(1, 2))


def test_a_place_is_found_by_its_time_where_no_pipeline_has_set_it() -> None:
    plan = solvers.heun(TABLE, karras(TABLE, 3))  # times 0, 1, 1, 2, 2
    scheduler, x = PlanScheduler.from_plan(plan), torch.ones(1, 2)
    scheduler.step(x, scheduler.timesteps[1], x)
    assert scheduler.step_index == 3  # begun with call 2: call 1, a corrector at the same time, needs call 0
    scheduler.set_timesteps(5)
    assert (scheduler.step_index, scheduler.begin_index) == (None, None)
    with pytest.raises(InvalidInput, match="123 is none of this plan's timesteps"):
        scheduler.step(x, 123.0, x)


def test_noise_for_inpainting_goes_to_the_next_state_also_where_times_repeat() -> None:
    tuned_times = solvers.heun(TABLE, karras(TABLE, 3))
    tuned_times = replace(
        tuned_times,
        model_times=tuned_times.model_times[[0, 1, 1, 3, 3]],
        times=tuned_times.times - torch.tensor([0, 0, 0.01, 0, 0, 0]),
    )
    scheduler, x = PlanScheduler.from_plan(tuned_times), torch.ones(1, 2)
    zero = torch.zeros(1, 2)
    scheduler.step(x, scheduler.timesteps[0], x)
    first = scheduler.add_noise(zero, x, scheduler.timesteps[1])
    scheduler.step(x, scheduler.timesteps[1], x)
    second = scheduler.add_noise(zero, x, scheduler.timesteps[2])
    assert float(first[0, 0]) == pytest.approx(float(TABLE.sigma(tuned_times.times[1])))
    assert float(second[0, 0]) == pytest.approx(float(TABLE.sigma(tuned_times.times[2])))
    training = scheduler.add_noise(zero, x, torch.tensor([499]))  # not a time of the plan: the model's own table
    assert float(training[0, 0]) == pytest.approx(float(TABLE.sigma(0.5)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_in_float32_whatever_the_pipeline_runs_in(dtype: torch.dtype) -> None:
    plan = solvers.lam_adams(TABLE, karras(TABLE, 6), order=3)
    scheduler, exact = PlanScheduler.from_plan(plan), Stepping(plan, Noise())
    state = normal(4, 4, dtype=torch.float32).to(dtype)
    for i, t in enumerate(scheduler.timesteps):
        m = normal(4, 4, seed=i, dtype=torch.float32).to(dtype)
        expected = exact.advance(state.double(), m.double(), torch.randn)
        state = scheduler.step(m, t, state).prev_sample
        assert state.dtype == dtype
        torch.testing.assert_close(state, expected.to(dtype), rtol=float(torch.finfo(dtype).eps), atol=1e-6)


@torch.no_grad()
def test_predicted_variances_are_left_out() -> None:
    plan = solvers.ddim(TABLE, karras(TABLE, 2))
    a, b, x = PlanScheduler.from_plan(plan), PlanScheduler.from_plan(plan), normal(1, 4, 2, 2)
    m = normal(1, 8, 2, 2, seed=1)
    assert torch.equal(a.step(m, a.timesteps[0], x).prev_sample, b.step(m[:, :4], b.timesteps[0], x).prev_sample)


def test_noise_comes_from_the_generators() -> None:
    plan = solvers.ddim(TABLE, karras(TABLE, 3), eta=1.0)
    scheduler, x = PlanScheduler.from_plan(plan), torch.zeros(2, 3)
    generators = [torch.Generator().manual_seed(s) for s in (1, 2)]
    found = scheduler.step(x, scheduler.timesteps[0], x, generator=generators).prev_sample / float(plan.noise[0])
    expected = torch.stack([torch.randn(3, generator=torch.Generator().manual_seed(s)) for s in (1, 2)])
    torch.testing.assert_close(found, expected)


# starts


def test_rows_before_the_first_call_go_into_the_start() -> None:
    plan = solvers.stochastic_heun(TABLE, grids.karras(TABLE, 4, t_max=0.3, end="zero"), s_churn=2.0)
    assert not plan.evaluate[0]
    start = plan.start((200_000,), 0)
    assert start.std() < 0.7
    first = float(plan.carry[0]) * start + float(plan.noise[0]) * Stream(1).normal((200_000,), dtype=torch.float64)
    assert first.std() > 1.05 * start.std()
    assert PlanScheduler.from_plan(plan).init_noise_sigma == pytest.approx(float(first.std()), rel=0.01)
    assert PlanScheduler.from_plan(solvers.ddim(TABLE, karras(TABLE, 4))).init_noise_sigma == float(TABLE.sigma(1.0))


def test_a_pipeline_that_does_not_scale_its_start_is_refused_where_that_matters() -> None:
    plan = solvers.unipc(FLOW, grids.uniform(FLOW, 4, t_max=0.9, end="zero"))
    x = torch.ones(1, 2)
    scheduler = PlanScheduler.from_plan(plan)
    with pytest.raises(InvalidInput, match=r"standard deviation 0\.9, .*init_noise_sigma"):
        scheduler.step(x, scheduler.timesteps[0], x)
    scheduler.step(x, scheduler.timesteps[0], scheduler.init_noise_sigma * x)
    scheduler = PlanScheduler.from_plan(plan)
    scheduler.step(x, scheduler.timesteps[0], scheduler.scale_noise(x, scheduler.timesteps[:1], x))
    scheduler = PlanScheduler.from_plan(solvers.ddim(TABLE, karras(TABLE, 2)))  # sigma = 0.9977
    scheduler.step(x, scheduler.timesteps[0], x)


# the shift of flow schedulers

SHIFTS: dict[str, tuple[dict[str, Any], float | None]] = {
    "none": ({"shift": 1.0}, None),
    "3": ({"shift": 3.0}, None),
    "by size": ({"use_dynamic_shifting": True}, 1.15),
    "by size, linear": ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, 3.2),
}


@torch.no_grad()
@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("solver", [solvers.flow_euler, solvers.ddim])
def test_the_stock_scheduler_takes_the_steps_of_an_euler_plan(name: str, solver: Callable[..., Plan]) -> None:
    settings, mu = SHIFTS[name]
    stock, bench = tiny.scheduler("FlowMatchEulerDiscreteScheduler", **settings), Bench.of("sd3")
    plan = solver(FLOW, torch.tensor([1.0, 0.93, 0.7, 0.31, 0.0], dtype=torch.float64))
    sigmas = flow_match_sigmas(plan, stock, mu)
    stock.set_timesteps(sigmas=np.array(sigmas), mu=mu)
    x = bench.noise(5)
    expected = plan.run(bench.denoiser, x, cond=bench.cond).x
    for t in stock.timesteps:
        m = bench.pipeline.model(hidden_states=x, timestep=t.expand(BATCH), **bench.cond.of(BATCH)).sample
        x = stock.step(m, t, x).prev_sample
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    if name != "none":  # times themselves would be shifted a second time
        stock.set_timesteps(sigmas=plan.nodes[:-1].numpy(), mu=mu)
        assert (stock.sigmas - plan.nodes).abs().max() > 0.05


def test_a_terminal_time_is_kept_if_the_plan_has_it() -> None:
    stock = tiny.scheduler("FlowMatchEulerDiscreteScheduler", shift=2.0, shift_terminal=0.02)
    plan = solvers.flow_euler(FLOW, torch.tensor([1.0, 0.5, 0.02, 0.0], dtype=torch.float64))
    stock.set_timesteps(sigmas=np.array(flow_match_sigmas(plan, stock)))
    torch.testing.assert_close(stock.sigmas.double(), plan.nodes, rtol=1e-5, atol=1e-6)


EULER = solvers.flow_euler(FLOW, torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=torch.float64))
NOT_STOCK: list[tuple[str, Plan, dict[str, Any], str]] = [
    ("another solver", solvers.flow_heun(FLOW, EULER.nodes), {}, "takes Euler steps of a flow"),
    ("no flow", solvers.ddim(TABLE, karras(TABLE, 3)), {}, "takes Euler steps of a flow"),
    ("not to zero", solvers.flow_euler(FLOW, EULER.nodes[:-1]), {}, "takes Euler steps of a flow"),
    ("tuned model times", replace(EULER, model_times=EULER.model_times * 0.99), {}, "takes Euler steps of a flow"),
    ("threshold", EULER.with_threshold(Threshold()), {}, "thresholds data predictions"),
    ("no mu", EULER, {"use_dynamic_shifting": True}, "pass mu="),
    ("Karras", EULER, {"use_karras_sigmas": True}, "by more than its shift"),
    ("terminal", EULER, {"shift_terminal": 0.02}, "by more than its shift"),
    ("inverted", EULER, {"invert_sigmas": True}, "by more than its shift"),
    ("stochastic", EULER, {"stochastic_sampling": True}, "stochastic_sampling"),
]


@pytest.mark.parametrize(("plan", "settings", "message"), [b[1:] for b in NOT_STOCK], ids=[b[0] for b in NOT_STOCK])
def test_what_the_stock_scheduler_cannot_do_is_refused(plan: Plan, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        flow_match_sigmas(plan, tiny.scheduler("FlowMatchEulerDiscreteScheduler", **settings))


# refusals

SIX = solvers.ddim(TABLE, karras(TABLE, 6))
SCHEDULES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"num_inference_steps": 6, "device": "cpu"}, None),
    ({"num_inference_steps": 50}, "makes 6 network calls, not 50: pass num_inference_steps=6"),
    ({"timesteps": [999, 500]}, "leave out timesteps= and sigmas="),
    ({"sigmas": [14.6, 3.0, 1.0, 0.5, 0.2, 0.1]}, "leave out timesteps= and sigmas="),
    ({"sigmas": [(6 - i) / 6 for i in range(6)], "mu": 1.15}, None),  # what flow pipelines pass on their own
    ({"sigmas": [(8 - i) / 8 for i in range(8)]}, "makes 6 network calls, not 8"),
]


@pytest.mark.parametrize(("arguments", "message"), SCHEDULES)
def test_schedules_of_the_caller_are_refused(arguments: dict[str, Any], message: str | None) -> None:
    scheduler = PlanScheduler.from_plan(SIX)
    if message is None:
        scheduler.set_timesteps(**arguments)
        assert torch.equal(scheduler.timesteps, (1000 * SIX.model_times - 1).float())
        assert scheduler.num_inference_steps == 6
    else:
        with pytest.raises(InvalidInput, match=message):
            scheduler.set_timesteps(**arguments)


def test_a_run_that_is_over_says_so() -> None:
    scheduler, x = PlanScheduler.from_plan(SIX), torch.ones(1, 2)
    for t in scheduler.timesteps:
        x = scheduler.step(x, t, x, return_dict=False)[0]
    with pytest.raises(InvalidInput, match="all 6 calls of this plan are made"):
        scheduler.step(x, t, x)


ZEROS = torch.zeros(6, 6, 2, dtype=torch.float64)
WIDE = replace(SIX, carry=SIX.carry[:, None] + ZEROS[0], weights=SIX.weights[..., None] + ZEROS, noise=ZEROS[0])
UNKNOWN: list[tuple[str, Plan, Any, str]] = [
    ("process", solvers.ddim(EDM(), karras(EDM(), 3)), None, r"not EDM\(.*from_diffusers"),
    ("output", SIX, Score(), "do not output Score; choose from Noise"),
    ("velocity of a table", SIX, FlowVelocity(), "do not have prediction_type 'flow_prediction'"),
    ("noise of a flow", EULER, Noise(), "do not have prediction_type 'epsilon'"),
    ("coordinates", WIDE, None, "coefficients for each coordinate"),
]  # fmt: skip


@pytest.mark.parametrize(("plan", "output", "message"), [b[1:] for b in UNKNOWN], ids=[b[0] for b in UNKNOWN])
def test_plans_and_outputs_that_diffusers_does_not_have_are_refused(
    plan: Plan, output: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=message):
        plan.to_diffusers(tmp_path, output)
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_or_with_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"plan\.to_diffusers\(folder\)"):
        PlanScheduler.from_config(diffusers.DDIMScheduler().config)
    SIX.to_diffusers(tmp_path)
    config = tmp_path / "scheduler_config.json"
    stored = json.loads(config.read_text())
    del stored["plan"]["rows"][2]["carry"]
    config.write_text(json.dumps(stored))
    with pytest.raises(BadFile, match=r"KeyError\('carry'\)"):
        PlanScheduler.from_pretrained(tmp_path)
    for key, value in (("prediction_type", "epsilom"), ("num_train_timesteps", 500)):
        SIX.to_diffusers(tmp_path)
        config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
        with pytest.raises(InvalidInput, match=key):
            PlanScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", ["weights", "told", "carry", "noise"])
def test_a_round_trip_that_changes_the_plan_is_refused_and_writes_nothing(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = solvers.sde_dpm_solver_pp_2m(TABLE, karras(TABLE, 6))
    plan.to_diffusers(tmp_path / "whole")
    true = module.storage.to_dict

    def rounded(plan: Plan) -> dict[str, Any]:
        stored = true(plan)
        for row in stored["rows"]:
            row[change] = [round(b, 4) for b in row[change]] if change == "weights" else round(row[change], 4)
        return stored

    monkeypatch.setattr(module.storage, "to_dict", rounded)
    with pytest.raises(Mismatch, match="nothing was written"):
        plan.to_diffusers(tmp_path / "rounded")
    assert not (tmp_path / "rounded").exists()


def test_without_diffusers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "scheduler_class", module.scheduler_class.__wrapped__)  # not the class made before
    monkeypatch.setitem(sys.modules, "diffusers.configuration_utils", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'isocline\[diffusers\]'"):
        SIX.to_diffusers(tmp_path)


def test_the_class_is_one_wherever_it_is_asked_for_and_can_be_copied() -> None:
    from isocline.plans.export.diffusers import PlanScheduler as direct

    assert direct is module.scheduler_class()
    scheduler = direct.from_plan(SIX)
    for again in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert again.plan == SIX
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        partial(getattr, module, "Nothing")()


# the shell


def test_the_shell_writes_a_scheduler(tmp_path: Path) -> None:
    file, out = (
        composite(TABLE, karras(TABLE, 4), [Stretch(solvers.heun, 1), Stretch(solvers.ddim)]).save(tmp_path / "p.json"),
        tmp_path / "s",
    )
    arguments = ["plan", "export", str(file), "--to", "diffusers", "--out", str(out), "--output", "VPrediction"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(out)
    scheduler = module.scheduler_class().from_pretrained(out)
    assert (scheduler.plan, scheduler.output) == (Plan.load(file), VPrediction())


BAD_CALLS: list[tuple[list[str], str]] = [
    (["--to", "diffusers"], "--out"),
    (["--to", "k-diffusion", "--out", "x"], "--out"),
    (["--to", "comfyui", "--output", "Noise"], "--output"),
    (["--to", "diffuser", "--out", "x"], "Did you mean 'diffusers'"),
    (["--to", "diffusers", "--out", "x", "--output", "Nose"], "Noise"),
]


@pytest.mark.parametrize(("options", "message"), BAD_CALLS)
def test_the_shell_names_what_is_missing(options: list[str], message: str, tmp_path: Path) -> None:
    file = SIX.save(tmp_path / "plan.json")
    result = CliRunner().invoke(cli.app, ["plan", "export", str(file), *options])
    assert result.exit_code != 0
    assert message in str(result.exception)
