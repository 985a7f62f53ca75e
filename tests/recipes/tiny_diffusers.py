"""Tiny models of diffusers' own classes with random weights, in pipelines as far as those need no text encoder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.plans.helpers import normal

diffusers = pytest.importorskip("diffusers")

SCALED: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
BLOCKS: dict[str, Any] = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
TEXT = 16
BATCHED_IDS = tuple(map(int, diffusers.__version__.split(".")[:2])) < (0, 31)  # then Flux wanted one more axis


def scheduler(name: str, **settings: Any) -> Any:
    """Return the scheduler of that name; the test is skipped where this diffusers does not know a setting."""
    made = getattr(diffusers, name)
    unknown = set(settings) - set(inspect.signature(made.__init__).parameters)
    if unknown:
        pytest.skip(f"{name} of diffusers {diffusers.__version__} has no {', '.join(unknown)}")
    return made(**settings)


class Pipeline:
    """What `from_diffusers` sees of a pipeline: a model and a scheduler."""

    def __init__(self, part: str, model: nn.Module, scheduler: Any) -> None:
        self.part, self.model, self.scheduler = part, model, scheduler
        setattr(self, part, model)

    def save(self, folder: Path) -> Path:
        """Write the pipeline as diffusers does."""
        self.model.save_pretrained(folder / self.part)  # type: ignore[operator]
        self.scheduler.save_pretrained(folder / "scheduler")
        parts = {self.part: self.model, "scheduler": self.scheduler}
        index = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "Tiny", **index}))
        return folder


def unet(output: str = "epsilon", **settings: Any) -> Pipeline:
    """DDPM's network, with class labels."""
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    model = diffusers.UNet2DModel(
        in_channels=3, out_channels=3, num_class_embeds=5, attention_head_dim=8, **BLOCKS, **blocks
    )
    return Pipeline("unet", seeded(model), diffusers.DDPMScheduler(prediction_type=output, **settings))


def stable_diffusion(output: str = "epsilon", **settings: Any) -> Pipeline:
    """The network of Stable Diffusion 1.5 or 2."""
    model = diffusers.UNet2DConditionModel(cross_attention_dim=TEXT, attention_head_dim=4, **BLOCKS, **_CROSS)
    return Pipeline("unet", seeded(model), diffusers.PNDMScheduler(prediction_type=output, **SCALED, **settings))


def sdxl() -> Pipeline:
    """The network of SDXL, with its text embedding and sizes."""
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + TEXT,
    }
    model = diffusers.UNet2DConditionModel(cross_attention_dim=TEXT, attention_head_dim=4, **BLOCKS, **_CROSS, **added)
    return Pipeline("unet", seeded(model), diffusers.EulerDiscreteScheduler(**SCALED))


def dit(variance: bool = True) -> Pipeline:
    """DiT, which also predicts variances."""
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8 if variance else 4, num_layers=1,
        sample_size=8, num_embeds_ada_norm=1000, norm_num_groups=4,
    )  # fmt: skip
    return Pipeline("transformer", seeded(model), diffusers.DDIMScheduler())


def pixart() -> Pipeline:
    """PixArt, with encoder states."""
    model = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        cross_attention_dim=16, caption_channels=TEXT, norm_num_groups=4, use_additional_conditions=False,
    )  # fmt: skip
    return Pipeline("transformer", seeded(model), diffusers.DPMSolverMultistepScheduler())


def sd3(shift: float = 3.0) -> Pipeline:
    """Stable Diffusion 3, a flow."""
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=TEXT, caption_projection_dim=16, pooled_projection_dim=TEXT, pos_embed_max_size=8,
    )  # fmt: skip
    return Pipeline("transformer", seeded(model), diffusers.FlowMatchEulerDiscreteScheduler(shift=shift))


def flux() -> Pipeline:
    """Flux, a flow on packed latents whose network is told t and not 1000 t."""
    model = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=TEXT, pooled_projection_dim=TEXT, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    return Pipeline("transformer", seeded(model), diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))


_CROSS: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight a value that does not depend on global state, large enough that zero-initialised layers act."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        wide = parameter.ndim > 1
        size = parameter[0].numel() ** -0.5 if wide else 0.2
        scale_of_norm = not wide and name.endswith("weight")
        parameter.data = size * torch.randn(parameter.shape, generator=generator) + scale_of_norm
    return model.eval()


@dataclass(frozen=True)
class Case:
    """A model, the shape of a datum, and the model's arguments for `n` samples in the words of its pipeline."""

    make: Callable[[], Pipeline]
    shape: tuple[int, ...]
    arguments: Callable[[int], dict[str, Any]]
    fixed: dict[str, Any]


def _text(n: int) -> dict[str, Any]:
    return {"encoder_hidden_states": normal(n, 3, TEXT, seed=1, dtype=torch.float32)}


def _pooled(n: int) -> Tensor:
    return normal(n, TEXT, seed=2, dtype=torch.float32)


def _sizes(n: int) -> dict[str, Any]:
    return {"text_embeds": _pooled(n), "time_ids": torch.arange(6.0).repeat(n, 1)}


def flux_ids(ids: Tensor) -> Tensor:
    return ids[None] if BATCHED_IDS else ids


CASES: dict[str, Case] = {
    "unet": Case(unet, (3, 8, 8), lambda n: {"class_labels": torch.arange(n) % 5}, {}),
    "stable diffusion": Case(stable_diffusion, (4, 8, 8), _text, {}),
    "sdxl": Case(sdxl, (4, 8, 8), lambda n: _text(n) | {"added_cond_kwargs": _sizes(n)}, {}),
    "dit": Case(dit, (4, 8, 8), lambda n: {"class_labels": torch.arange(n) * 7}, {}),
    "pixart": Case(pixart, (4, 8, 8), _text, {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}),
    "sd3": Case(sd3, (4, 8, 8), lambda n: _text(n) | {"pooled_projections": _pooled(n)}, {}),
    "flux": Case(
        flux,
        (4, 16),
        lambda n: _text(n) | {"pooled_projections": _pooled(n), "guidance": torch.full((n,), 3.5)},
        {
            "txt_ids": flux_ids(torch.zeros(3, 3)),
            "img_ids": flux_ids(torch.tensor([[0.0, i, j] for i in (0, 1) for j in (0, 1)])),
        },
    ),
}
