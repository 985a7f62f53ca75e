"""Models of diffusers as denoisers: called as their own pipelines call them, for the process their scheduler was made for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing, ExtraMissing, InvalidInput, Mismatch
from isocline._core.stream import Stream
from isocline.plans import grids, solvers
from isocline.plans.export import PlanScheduler
from isocline.plans.tuners import EndToEnd, draw_noises
from isocline.processes import Data, FlowVelocity, Guided, Noise, RectifiedFlow, Tabulated, VPrediction
from isocline.recipes import Conditions, from_diffusers
from tests.plans.helpers import normal
from tests.recipes import tiny_diffusers as tiny
from tests.recipes.tiny_diffusers import CASES, TEXT, Pipeline, diffusers

every_case = pytest.mark.parametrize("name", CASES)


def called_by_its_pipeline(pipeline: Pipeline, x: Tensor, told: float, arguments: dict[str, Any]) -> Tensor:
    """Return what the model's own pipeline would get from it at the scheduler's time `told`."""
    t = torch.tensor(told, dtype=torch.float32)
    kind = type(pipeline.model).__name__
    if kind.startswith("UNet"):
        return pipeline.model(x, t, **arguments).sample
    timestep = t.expand(len(x)) / (1000 if kind.startswith("Flux") else 1)
    return pipeline.model(hidden_states=x, timestep=timestep, **arguments, return_dict=False)[0][:, : x.shape[1]]


@every_case
@pytest.mark.parametrize("place", ["memory", "disk"])
@torch.no_grad()
def test_a_model_is_called_as_its_pipeline_calls_it(name: str, place: str, tmp_path: Path) -> None:
    case = CASES[name]
    pipeline, arguments = case.make(), case.arguments(2)
    denoiser = from_diffusers(pipeline if place == "memory" else pipeline.save(tmp_path), **case.fixed)
    flow = isinstance(denoiser.process, RectifiedFlow)
    x = normal(2, *case.shape, dtype=torch.float32)
    for told in (999.0, 500.25):  # an index, and one between
        t = torch.tensor(told / 1000 if flow else (told + 1) / 1000, dtype=torch.float64)
        expected = called_by_its_pipeline(pipeline, x, told, arguments | case.fixed)
        torch.testing.assert_close(denoiser(x, t, Conditions(**arguments)), expected, rtol=1e-5, atol=1e-5)
        without = denoiser(x, t, Conditions(**case.arguments(4))[2:] if name != "dit" else torch.tensor([3, 4]))
        assert (without - expected).abs().max() > 1e-3  # conditions matter, so the agreement above covers them
    assert denoiser.calls == 4


@torch.no_grad()
def test_tensors_stand_for_labels_and_encoder_states() -> None:
    x, t = normal(2, 3, 8, 8, dtype=torch.float32), torch.tensor(0.4)
    denoiser, labels = from_diffusers(tiny.unet()), torch.tensor([1, 4])
    assert torch.equal(denoiser(x, t, labels), denoiser(x, t, {"class_labels": labels}))
    text = normal(2, 3, TEXT, dtype=torch.float32)
    x, denoiser = normal(2, 4, 8, 8, dtype=torch.float32), from_diffusers(tiny.stable_diffusion())
    assert torch.equal(denoiser(x, t, text), denoiser(x, t, Conditions(encoder_hidden_states=text)))
    with pytest.raises(InvalidInput, match="not str"):
        denoiser(x, t, "a prompt")
    with pytest.raises(InvalidInput, match="2 conditions do not fit 3 samples"):
        denoiser(normal(3, 4, 8, 8, dtype=torch.float32), t, text)


OUTPUTS = {"epsilon": Noise(), "sample": Data(), "v_prediction": VPrediction()}


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_scheduler_says_what_the_model_outputs(output: str) -> None:
    assert from_diffusers(tiny.stable_diffusion(output)).parameterisation == OUTPUTS[output]


@torch.no_grad()
@pytest.mark.parametrize("output", OUTPUTS)
def test_data_predictions_are_those_of_diffusers(output: str) -> None:
    pipeline = tiny.unet(output, clip_sample=False)
    denoiser, x = from_diffusers(pipeline), normal(2, 3, 8, 8, dtype=torch.float32)
    labels = torch.tensor([1, 4])
    for index in (999, 600, 30):
        m = pipeline.model(x, torch.tensor(index), class_labels=labels).sample
        expected = pipeline.scheduler.step(m, index, x).pred_original_sample
        found = denoiser.predict(x, (index + 1) / 1000, labels).x0
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()  # diffusers' float32 table


TABLES: dict[str, tuple[Callable[[], Any], Tabulated]] = {
    "linear": (lambda: diffusers.DDPMScheduler(), Tabulated.linear_betas()),
    "scaled": (lambda: diffusers.EulerDiscreteScheduler(**tiny.SCALED), Tabulated.scaled_linear_betas()),
    "given": (
        lambda: diffusers.UniPCMultistepScheduler(trained_betas=[0.1, 0.5, 0.9], num_train_timesteps=3),
        Tabulated((0.9, 0.45, 0.045)),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_computed_from_betas(name: str) -> None:
    pipeline = tiny.unet()
    pipeline.scheduler = TABLES[name][0]()
    found = torch.tensor(from_diffusers(pipeline).process.alphas_cumprod, dtype=torch.float64)  # type: ignore[attr-defined]
    expected = torch.tensor(TABLES[name][1].alphas_cumprod, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(1 - found, 1 - expected, rtol=1e-6, atol=0)  # where float32 tables lose 3e-4


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_zero_terminal_signal_ends_where_diffusers_euler_ends(kind: str) -> None:
    pipeline = tiny.stable_diffusion("v_prediction")
    pipeline.scheduler = getattr(diffusers, kind)(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", **tiny.SCALED
    )
    process = from_diffusers(pipeline).process
    assert float(process.alpha(1.0)) == pytest.approx(2.0**-12)
    theirs = float(pipeline.scheduler.alphas_cumprod[500])
    assert float(process.alpha(0.501)) ** 2 == pytest.approx(theirs, rel=1e-4)


FLOWS: dict[str, Callable[[], Any]] = {
    "Euler, shifted": lambda: tiny.scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0),
    "Euler, dynamic": lambda: tiny.scheduler("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True),
    "UniPC": lambda: tiny.scheduler("UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction"),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_shift_is_a_grid_and_not_a_process(name: str) -> None:
    pipeline = tiny.sd3()
    pipeline.scheduler = FLOWS[name]()
    denoiser = from_diffusers(pipeline)
    assert (denoiser.process, denoiser.parameterisation) == (RectifiedFlow(), FlowVelocity())


@torch.no_grad()
def test_guidance_is_that_of_pipelines_with_one_null_condition_for_all() -> None:
    pipeline, scale = tiny.sdxl(), 7.5
    x, t = normal(3, 4, 8, 8, dtype=torch.float32), torch.tensor(0.701, dtype=torch.float64)
    arguments, null = CASES["sdxl"].arguments(3), CASES["sdxl"].arguments(4)
    cond, none = Conditions(**arguments), Conditions(**null)[3:]
    assert len(none) == 1
    free = called_by_its_pipeline(pipeline, x, 700.0, none.of(3))
    told = called_by_its_pipeline(pipeline, x, 700.0, arguments)
    found = Guided(from_diffusers(pipeline), scale, none)(x, t, cond)
    torch.testing.assert_close(found, free + scale * (told - free), rtol=1e-4, atol=1e-4)


def test_conditions_are_cut_like_tensors() -> None:
    cond = Conditions(a=torch.arange(6), b={"c": torch.arange(12).reshape(6, 2), "d": None}, one=torch.tensor([9]))
    part = cond[torch.tensor([4, 1])].arguments
    assert part["a"].tolist() == [4, 1]
    assert part["b"]["c"].tolist() == [[8, 9], [2, 3]]
    assert part["b"]["d"] is None
    assert part["one"].tolist() == [9]
    assert cond[2:3].of(2)["a"].tolist() == [2, 2]
    with pytest.raises(InvalidInput, match=r"lengths \[2, 3\]"):
        Conditions(a=torch.zeros(2), b=torch.zeros(3))


def test_a_guided_text_model_can_be_tuned() -> None:
    case = CASES["sdxl"]
    denoiser = Guided(from_diffusers(case.make()), 3.0, Conditions(**case.arguments(1)))
    process = denoiser.process
    teacher = solvers.ddim(process, grids.karras(process, 3, end="zero")).for_guidance(3.0)
    conditions: Any = lambda n: Conditions(**case.arguments(n))  # noqa: E731 - tuners only cut what they are given
    calibration = draw_noises(teacher, denoiser, case.shape, (3, 2, 2), Stream(0), cond=conditions)
    one = calibration.train.take(torch.tensor([1]))  # each noise keeps its own condition, at any place in a batch
    torch.testing.assert_close(teacher.run(denoiser, one.x, cond=one.cond).x, one.target, rtol=1e-4, atol=1e-4)
    base = solvers.ddim(process, grids.karras(process, 2, end="zero")).for_guidance(3.0)
    tuned = EndToEnd(steps=1, batch=2, check_every=1).fit(base, denoiser, calibration, 0)
    assert len(tuned.history) == 2
    assert tuned.history[1][1] != tuned.history[0][1]  # gradients came through the model
    assert tuned.plan.guidance == 3.0


def test_a_plan_for_another_scheduler_is_refused() -> None:
    linear, scaled = from_diffusers(tiny.unet()), from_diffusers(tiny.stable_diffusion())
    plan = solvers.ddim(linear.process, grids.karras(linear.process, 3, end="zero"))
    with pytest.raises(
        Mismatch, match=r"the plan was made for .* but the denoiser is .*compile a plan for that process"
    ):
        plan.run(scaled, torch.zeros(1, 4, 8, 8))
    config = dict(PlanScheduler.from_plan(plan).config)
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config
    assert PlanScheduler.from_config(config).plan == plan
    for other, message in (
        (config | {"prediction_type": "flow_prediction"}, "do not have prediction_type 'flow_prediction'"),
        (config | {"num_train_timesteps": 4000}, "num_train_timesteps must be 1000 for this plan, got 4000"),
        (dict(flow), r"plan\.to_diffusers\(folder\)"),
        (dict(diffusers.DPMSolverMultistepScheduler().config), r"plan\.to_diffusers\(folder\)"),
    ):
        with pytest.raises(InvalidInput, match=message):
            PlanScheduler.from_config(other)


@torch.no_grad()
def test_weights_are_read_in_the_precision_asked_for_and_states_keep_theirs(tmp_path: Path) -> None:
    denoiser = from_diffusers(tiny.unet().save(tmp_path), dtype=torch.bfloat16)
    assert {p.dtype for p in denoiser.network.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
    x = normal(1, 3, 8, 8, dtype=torch.float32)
    found = denoiser(x, torch.tensor(0.5), torch.tensor([1]))
    expected = from_diffusers(tmp_path)(x, torch.tensor(0.5), torch.tensor([1]))
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).abs().max() / expected.abs().max()) < 0.05


def test_dropout_is_off() -> None:
    pipeline = tiny.dit()
    pipeline.model.train()
    assert not from_diffusers(pipeline).network.model.training  # type: ignore[attr-defined]


class Other(torch.nn.Module):
    """A network of no known class."""


def with_scheduler(made: Callable[[], Any]) -> Pipeline:
    pipeline = tiny.unet()
    pipeline.scheduler = made()
    return pipeline


BAD: list[tuple[str, Callable[[], Any], str]] = [
    (
        "another model",
        lambda: Pipeline("unet", Other(), diffusers.DDPMScheduler()),
        "does not know how Other is called",
    ),
    ("no pipeline", lambda: diffusers.DDPMScheduler(), "DDPMScheduler is not a pipeline"),
    ("EDM", lambda: with_scheduler(diffusers.EDMEulerScheduler), "EDMEulerScheduler .* no table of alphas"),
    ("iPNDM", lambda: with_scheduler(diffusers.IPNDMScheduler), "IPNDMScheduler .* no table of alphas"),
    (
        "backwards",
        lambda: with_scheduler(lambda: tiny.scheduler("FlowMatchEulerDiscreteScheduler", invert_sigmas=True)),
        "time backwards",
    ),
    (
        "other steps",
        lambda: with_scheduler(lambda: tiny.scheduler("FlowMatchEulerDiscreteScheduler", num_train_timesteps=500)),
        "says 500",
    ),
]


@pytest.mark.parametrize(("made", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_what_is_not_known_is_refused(made: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_diffusers(made())


def test_folders_without_a_usable_pipeline_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"model_index\.json"):
        from_diffusers(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"vae": ["diffusers", "AutoencoderKL"]}))
    with pytest.raises(BadFile, match="names no scheduler"):
        from_diffusers(tmp_path)
    tiny.unet().save(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))  # a pickle
    weights.unlink()
    with pytest.raises(DataMissing, match="only safetensors are read"):
        from_diffusers(tmp_path)
    stored = json.loads(index.read_text())
    index.write_text(json.dumps(stored | {"unet": ["somewhere", "UNet2DModel"]}))
    with pytest.raises(InvalidInput, match=r"somewhere\.UNet2DModel"):
        from_diffusers(tmp_path)


def test_a_missing_diffusers_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_index.json").write_text(
        json.dumps({"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]})
    )
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ExtraMissing, match=r"isocline\[diffusers\]"):
        from_diffusers(tmp_path)
