"""Stable Diffusion 1.5, SDXL, SD3 and Flux: the real pipelines, with tiny random weights, compute what plans compute.

The page on diffusers is followed to the letter, its blocks that need such models included. All this needs transformers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isocline.plans import Plan, grids, solvers
from isocline.plans.export import PlanScheduler
from isocline.processes import Denoiser, GaussianProcess, Guided
from isocline.recipes import Conditions, from_diffusers
from tests.docs.test_pages import FENCE, ROOT
from tests.recipes import tiny_diffusers as tiny
from tests.recipes.tiny_diffusers import TEXT, diffusers

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PROMPTS = ["a lighthouse", "an old map"]
WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "<s>",
    "a",
    "an",
    "at",
    "of",
    "in",
    "the",
    "old",
    "map",
    "lighthouse",
    "bowl",
    "street",
    "rain",
]


def tokenizer() -> Any:
    """Return a tokenizer of a few words."""
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=6, clean_up_tokenization_spaces=False, **names
    )


def clip(width: int, projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=6, projection_dim=width, pad_token_id=0, bos_token_id=3, eos_token_id=1,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return tiny.seeded(kind(config), seed=width)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=len(WORDS),
        d_model=TEXT,
        d_kv=4,
        d_ff=TEXT,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    return tiny.seeded(transformers.T5EncoderModel(config), seed=5)


def vae(channels: int = 4) -> Any:
    """Return an autoencoder that halves the side three times, as those of all four pipelines do."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes: dict[str, Any] = {"block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2, "latent_channels": channels}
    return tiny.seeded(diffusers.AutoencoderKL(shift_factor=0.0, **sizes, **blocks))


def stable_diffusion() -> Any:
    bare = tiny.stable_diffusion()
    return diffusers.StableDiffusionPipeline(
        vae(),
        clip(TEXT),
        tokenizer(),
        bare.model,
        steps_offset(bare.scheduler),
        None,
        None,
        requires_safety_checker=False,
    )


def steps_offset(scheduler: Any) -> Any:
    """Return the scheduler as Stable Diffusion has it; the pipeline warns otherwise."""
    return type(scheduler).from_config(scheduler.config, steps_offset=1, skip_prk_steps=True)


def sdxl() -> Any:
    bare = tiny.sdxl()
    half = TEXT // 2
    unet = type(bare.model)(**{**bare.model.config, "projection_class_embeddings_input_dim": 6 * 4 + half})  # type: ignore[dict-item]
    return diffusers.StableDiffusionXLPipeline(
        vae(), clip(half), clip(half, projected=True), tokenizer(), tokenizer(), tiny.seeded(unet), bare.scheduler,
        add_watermarker=False,
    )  # fmt: skip


def sd3() -> Any:
    bare, half = tiny.sd3(), TEXT // 2
    return diffusers.StableDiffusion3Pipeline(
        bare.model, bare.scheduler, vae(), clip(half, projected=True), tokenizer(), clip(half, projected=True), tokenizer(),
        t5(), tokenizer(),
    )  # fmt: skip


def flux() -> Any:
    bare = tiny.flux()
    return diffusers.FluxPipeline(bare.scheduler, vae(), clip(TEXT), tokenizer(), t5(), tokenizer(), bare.model)


def even(process: GaussianProcess, steps: int) -> torch.Tensor:
    return grids.uniform(process, steps, end="zero")


def karras(process: GaussianProcess, steps: int) -> torch.Tensor:
    return grids.karras(process, steps, end="zero")


def told_sd(pipe: Any) -> tuple[Denoiser, Conditions]:
    text, none = pipe.encode_prompt(PROMPTS, pipe.device, 1, True)
    denoiser = Guided(from_diffusers(pipe), 7.5, Conditions(encoder_hidden_states=none))
    return denoiser, Conditions(encoder_hidden_states=text)


def told_sdxl(pipe: Any) -> tuple[Denoiser, Conditions]:
    text, none, pooled, none_pooled = pipe.encode_prompt(PROMPTS, device=pipe.device, do_classifier_free_guidance=True)
    sizes = torch.tensor([[64.0, 64.0, 0, 0, 64.0, 64.0]]).repeat(2, 1)
    null = Conditions(encoder_hidden_states=none, added_cond_kwargs={"text_embeds": none_pooled, "time_ids": sizes})
    cond = Conditions(encoder_hidden_states=text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes})
    return Guided(from_diffusers(pipe), 7.5, null), cond


def told_sd3(pipe: Any) -> tuple[Denoiser, Conditions]:
    text, none, pooled, none_pooled = pipe.encode_prompt(PROMPTS, None, None)
    null = Conditions(encoder_hidden_states=none, pooled_projections=none_pooled)
    return Guided(from_diffusers(pipe), 7.5, null), Conditions(encoder_hidden_states=text, pooled_projections=pooled)


def told_flux(pipe: Any) -> tuple[Denoiser, Conditions]:
    text, pooled, _ = pipe.encode_prompt(PROMPTS, None)
    ids = tiny.flux_ids(torch.tensor([[0.0, i, j] for i in range(4) for j in range(4)]))
    cond = Conditions(encoder_hidden_states=text, pooled_projections=pooled, guidance=torch.full((2,), 7.5))
    return from_diffusers(pipe, txt_ids=tiny.flux_ids(torch.zeros(text.shape[1], 3)), img_ids=ids), cond


Told = Callable[[Any], tuple[Denoiser, Conditions]]
PIPELINES: dict[str, tuple[Callable[[], Any], Told, tuple[int, ...]]] = {
    "Stable Diffusion": (stable_diffusion, told_sd, (4, 8, 8)),
    "SDXL": (sdxl, told_sdxl, (4, 8, 8)),
    "SD3": (sd3, told_sd3, (4, 8, 8)),
    "Flux": (flux, told_flux, (16, 16)),
}
PLANS: dict[str, list[Callable[[GaussianProcess], Plan]]] = {
    "table": [
        lambda p: solvers.unipc(p, karras(p, 6)),
        lambda p: solvers.heun(p, karras(p, 3)),
        lambda p: solvers.sde_dpm_solver_pp_2m(p, karras(p, 6)),
    ],
    "flow": [
        lambda p: solvers.flow_adams(p, even(p, 6)),
        lambda p: solvers.flow_heun(p, even(p, 3)),
        lambda p: solvers.dpm_solver_pp_2m(p, even(p, 6)),
    ],
}


@torch.no_grad()
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("which", range(3))
def test_the_pipeline_computes_what_the_plan_does(name: str, which: int, tmp_path: Path) -> None:
    make, told, shape = PIPELINES[name]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    denoiser, cond = told(pipe)
    plan = PLANS["flow" if name in ("SD3", "Flux") else "table"][which](denoiser.process).for_guidance(
        denoiser.guidance
    )
    pipe.scheduler = PlanScheduler.from_pretrained(plan.to_diffusers(tmp_path, denoiser.parameterisation))
    settings = {
        "guidance_scale": 7.5,
        "num_inference_steps": plan.calls,
        "height": 64,
        "width": 64,
        "output_type": "latent",
    }
    found = pipe(PROMPTS, generator=torch.Generator().manual_seed(1), **settings).images
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    if name == "Flux":
        x = pipe._pack_latents(x, 2, 4, 8, 8)
    noise = [
        torch.randn(2, 4, 8, 8, generator=generator) if c else torch.zeros(2, 4, 8, 8) for c in plan.noise.tolist()
    ]
    start = plan.process.sigma(plan.times[0]).float() * x
    expected = plan.run(denoiser, start, cond=cond, noise=noise if plan.stochastic else None).x
    assert expected.shape == (2, *shape)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", ["SD3", "Flux"])
def test_sigmas_of_the_caller_are_refused_by_flow_pipelines(name: str, tmp_path: Path) -> None:
    pipe = PIPELINES[name][0]()
    denoiser = from_diffusers(pipe)
    plan = solvers.flow_euler(denoiser.process, even(denoiser.process, 4))
    pipe.scheduler = PlanScheduler.from_pretrained(plan.to_diffusers(tmp_path))
    with pytest.raises(ValueError, match="pass num_inference_steps=4"):
        pipe("a map", num_inference_steps=28, height=64, width=64)
    if "sigmas" in inspect.signature(pipe.__call__).parameters:  # not in the oldest
        with pytest.raises(ValueError, match="leave out timesteps= and sigmas="):
            pipe("a map", sigmas=[1.0, 0.9, 0.5, 0.1], height=64, width=64)


@torch.no_grad()
def test_image_to_image(tmp_path: Path) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**stable_diffusion().components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    denoiser, _ = told_sd(pipe)
    process, image = denoiser.process, torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    whole = solvers.ddim(process, karras(process, 6)).for_guidance(7.5)
    settings: dict[str, Any] = {"image": image, "guidance_scale": 7.5, "output_type": "latent"}
    pipe.scheduler = PlanScheduler.from_pretrained(whole.to_diffusers(tmp_path / "whole", denoiser.parameterisation))
    half = pipe(
        PROMPTS, strength=0.5, num_inference_steps=6, generator=torch.Generator().manual_seed(1), **settings
    ).images
    rest = solvers.ddim(process, whole.times[3:]).for_guidance(7.5)  # the same on a grid that starts there
    pipe.scheduler = PlanScheduler.from_pretrained(rest.to_diffusers(tmp_path / "rest", denoiser.parameterisation))
    full = pipe(
        PROMPTS, strength=1.0, num_inference_steps=3, generator=torch.Generator().manual_seed(1), **settings
    ).images
    torch.testing.assert_close(half, full, rtol=0, atol=1e-5 * float(full.abs().max()))
    many = solvers.dpm_solver_pp_2m(process, whole.times).for_guidance(7.5)
    pipe.scheduler = PlanScheduler.from_pretrained(many.to_diffusers(tmp_path / "many", denoiser.parameterisation))
    with pytest.raises(ValueError, match="cannot begin with call number 3"):
        pipe(PROMPTS, strength=0.5, num_inference_steps=6, **settings)


NAMES = {
    "stable-diffusion-v1-5": stable_diffusion,
    "stable-diffusion-xl": sdxl,
    "stable-diffusion-3": sd3,
    "flux": flux,
}


@pytest.mark.slow
def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in NAMES.items():
        make().save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "diffusers.md"
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "page"}
    for block in FENCE.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        exec(compile("\n" * line + block["code"], str(page), "exec"), namespace)
