r"""`from_diffusers`: a model of diffusers as a denoiser.

What a model was trained for stands in the configuration of its scheduler. The table ``abar_n = prod (1 - beta_n)`` makes a
`Tabulated` process whose index ``n`` the network is told; a flow scheduler makes a `RectifiedFlow`, whose network is told
``1000 t``, or ``t`` itself for Flux. The shift of a flow scheduler is a choice of grid, not of process, so it is not looked at.

The float32 table of diffusers loses ``1 - abar`` near the data, up to 3e-4 of it; here it is computed from the betas in float64. A
table with zero terminal signal ends at ``abar = 2^-24``, as in diffusers' own Euler scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import BadFile, DataMissing, ExtraMissing, InvalidInput, require
from isocline.plans.export.diffusers import PREDICTION_TYPES, told_time
from isocline.processes import Denoiser, FlowVelocity, GaussianProcess, Parameterisation, RectifiedFlow, Tabulated, wrap

PARTS = ("unet", "transformer")
TELL_UNIT_TIME = ("FluxTransformer2DModel",)  # their pipelines divide the scheduler's time by 1000
MODELS = (
    "UNet2DModel",
    "UNet2DConditionModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    *TELL_UNIT_TIME,
)
LEAST_SIGNAL = 2.0**-24


class Conditions:
    """Keyword arguments of a diffusers model for a batch, which can be cut like a tensor.

    Text models need several tensors for one prompt; tuners cut a set of conditions into batches. Each tensor, also in a nested
    dictionary such as ``added_cond_kwargs``, has one entry for each sample (B, ...), or a single one (1, ...) for all.

    Args:
        arguments: tensors, dictionaries of tensors, or None, by the name of the model's argument.

    Examples:
        >>> cond = Conditions(encoder_hidden_states=torch.zeros(6, 77, 768), added_cond_kwargs={"time_ids": torch.zeros(6, 6)})
        >>> len(cond), len(cond[:2]), cond[torch.tensor([5])].arguments["added_cond_kwargs"]["time_ids"].shape
        (6, 2, torch.Size([1, 6]))
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        sizes = {len(leaf) for leaf in _leaves(arguments)} - {1}
        require(len(sizes) <= 1, f"conditions need one entry for each sample, got lengths {sorted(sizes)}")

    def __len__(self) -> int:
        return max((len(leaf) for leaf in _leaves(self.arguments)), default=0)

    def __getitem__(self, index: Tensor | slice) -> Conditions:
        """Return the conditions of the samples at `index`; single entries stay."""
        n = len(self)
        return Conditions(**_each(self.arguments, lambda v: v if len(v) == 1 < n else v[index]))

    def of(self, n: int) -> dict[str, Any]:
        """Return the arguments for `n` samples, single entries repeated."""
        require(len(self) in (0, 1, n), f"{len(self)} conditions do not fit {n} samples")
        return _each(self.arguments, lambda v: v.expand(n, *v.shape[1:]) if len(v) == 1 else v)


class DiffusersNetwork(nn.Module):
    """A diffusers model called as ``network(x, time, cond)``.

    Args:
        model: one of the classes in `MODELS`.
        fixed: arguments of every call.
    """

    def __init__(self, model: nn.Module, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.fixed = model, dict(fixed)
        kind = _kind(model)
        self.state = "sample" if kind.startswith("UNet") else "hidden_states"
        self.unit = 1000 if kind in TELL_UNIT_TIME else 1

    def forward(self, x: Tensor, time: Tensor, cond: Any = None) -> Tensor:
        """Return the output (B, *) on the device and in the dtype of `x` (B, *), without a predicted variance.

        Args:
            x: (B, *) states, taken to the model's device and dtype.
            time: (B,) times in the scheduler's unit.
            cond: class labels (B,), encoder states (B, L, C), `Conditions` or a mapping of arguments; None for none.
        """
        weight = next(self.model.parameters())
        given = {"timestep": time / self.unit, **self.fixed, **_arguments(cond, len(x))}
        given = _each(given, lambda v: v.to(weight.device))
        output = self.model(**{self.state: x.to(weight)}, **given, return_dict=False)[0]
        if output.ndim > 2 and output.shape[1] == 2 * x.shape[1] and output.shape[2:] == x.shape[2:]:
            output = output[:, : x.shape[1]]
        return output.to(x)


def from_diffusers(source: Any, *, dtype: torch.dtype | None = None, **fixed: Any) -> Denoiser:
    """Return the model of a diffusers pipeline as a denoiser.

    Models: `UNet2DModel`, `UNet2DConditionModel` (Stable Diffusion, SDXL), `DiTTransformer2DModel`, `PixArtTransformer2DModel`,
    `SD3Transformer2DModel`, `FluxTransformer2DModel`; others can be wrapped with `isocline.processes.wrap`. Conditions are given
    to the denoiser: an integer tensor is taken for ``class_labels`` (B,), a floating-point one for ``encoder_hidden_states``
    (B, L, C), and `Conditions` for any of the model's arguments. Guidance is a wrapper, ``Guided(denoiser, scale, null_cond)``.

    The model is put into evaluation mode. States (B, *) are latents as the model takes them: packed (B, L, 64) for Flux. They may
    be on another device than the model, and in another precision; float32 is best.

    Args:
        source: a pipeline, or the folder of one on disk. From a folder only the model and its scheduler are read, the weights from
            safetensors; nothing is downloaded.
        dtype: precision of weights read from a folder.
        fixed: arguments of every call of the model, the same for all samples, such as ``img_ids`` of Flux.

    Raises:
        ExtraMissing: diffusers is not installed.
        DataMissing: the folder holds no pipeline, or no such weights.
        InvalidInput: another class of model, or a scheduler whose process is not known.
    """
    model, scheduler = _read(Path(source), dtype) if isinstance(source, str | Path) else _parts(source)
    kind = _kind(model)
    if kind not in MODELS:
        raise InvalidInput(
            f"from_diffusers does not know how {kind} is called; wrap it with isocline.processes.wrap(network, process, output, "
            f"model_time), or use one of {', '.join(MODELS)}"
        )
    process, output = _trained_as(scheduler)
    return wrap(DiffusersNetwork(model.eval(), fixed), process, output, told_time(process))


def _kind(model: nn.Module) -> str:
    return type(getattr(model, "_orig_mod", model)).__name__  # a compiled model stands for the one inside


def _parts(pipeline: Any) -> tuple[nn.Module, Any]:
    models = [getattr(pipeline, part) for part in PARTS if isinstance(getattr(pipeline, part, None), nn.Module)]
    scheduler = getattr(pipeline, "scheduler", None)
    if not models or scheduler is None:
        raise InvalidInput(f"{type(pipeline).__name__} is not a pipeline with a scheduler and a {' or '.join(PARTS)}")
    return models[0], scheduler


def _read(folder: Path, dtype: torch.dtype | None) -> tuple[nn.Module, Any]:
    """Return model and scheduler of the pipeline in `folder`."""
    index = files.read_json(folder / "model_index.json")
    part = next((p for p in PARTS if isinstance(index, dict) and p in index), None)
    if part is None or "scheduler" not in index:
        raise BadFile(f"{folder}/model_index.json names no scheduler, or none of {', '.join(PARTS)}")
    scheduler = _class(index, "scheduler").from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    try:
        model = _class(index, part).from_pretrained(
            folder,
            subfolder=part,
            torch_dtype=dtype or torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=find_spec("accelerate") is not None,  # what diffusers falls back to, with a warning
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DataMissing(f"cannot read the model in {folder / part}: {reason}; only safetensors are read") from error
    return model, scheduler


def _class(index: dict[str, Any], part: str) -> Any:
    """Return the class that ``model_index.json`` names, from diffusers or this library only."""
    try:
        import diffusers
    except ImportError as error:
        raise ExtraMissing("reading diffusers models needs it: pip install 'isocline[diffusers]'") from error
    library, name = index[part]
    if name == "PlanScheduler":
        from isocline.plans.export.diffusers import scheduler_class

        return scheduler_class()
    found = getattr(diffusers, name, None) if library == "diffusers" else None
    if found is None:
        raise InvalidInput(
            f"{part} is {library}.{name}, which diffusers does not have; load the pipeline and pass that"
        )
    return found


def _trained_as(scheduler: Any) -> tuple[GaussianProcess, Parameterisation]:
    """Return the process a model was trained for and what it outputs, as its scheduler says."""
    name, config = type(scheduler).__name__, scheduler.config
    if name == "PlanScheduler":
        return scheduler.plan.process, scheduler.output
    predicts = config.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas") or predicts == "flow_prediction":
        require(
            not config.get("invert_sigmas"), f"{name} with inverted sigmas runs time backwards, which is not supported"
        )
        steps = config.get("num_train_timesteps", 1000)
        require(steps == 1000, f"flow models are told times up to 1000, but {name} says {steps}")
        return RectifiedFlow(), FlowVelocity()
    if not hasattr(scheduler, "alphas_cumprod") or predicts not in PREDICTION_TYPES:
        raise InvalidInput(
            f"{name} (prediction_type {predicts!r}) has no table of alphas and is no flow, so the model's process is not known; "
            "wrap the model with isocline.processes.wrap"
        )
    return _table(scheduler.betas), PREDICTION_TYPES[predicts]


def _table(betas: Tensor) -> Tabulated:
    alphas_cumprod = torch.cumprod(1 - betas.detach().cpu().double(), 0)
    if alphas_cumprod[-1] <= 0:
        alphas_cumprod[-1] = LEAST_SIGNAL
    return Tabulated(tuple(alphas_cumprod.tolist()))


def _arguments(cond: Any, n: int) -> dict[str, Any]:
    """Return conditions as the model's arguments for `n` samples."""
    if cond is None:
        return {}
    if isinstance(cond, Tensor):
        cond = Conditions(**{"encoder_hidden_states" if cond.is_floating_point() else "class_labels": cond})
    elif isinstance(cond, Mapping):
        cond = Conditions(**cond)
    require(
        isinstance(cond, Conditions),
        f"conditions of a diffusers model are a tensor, a mapping or Conditions(...), not {type(cond).__name__}",
    )
    return cond.of(n)


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(inner, change) for key, inner in value.items()}
    return change(value) if isinstance(value, Tensor) else value


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    return [value] if isinstance(value, Tensor) else []
