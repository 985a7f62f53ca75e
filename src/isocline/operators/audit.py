r"""What a trained operator does on grids and over times that it was not trained on.

An operator G that is a map of functions commutes with the change of grid P: ``G P = P G`` on functions that the coarser grid holds.
What is left, ``|G P x - P G x| / |P G x|``, is its aliasing error (Bartolucci et al., arXiv 2305.19913). It enters where a layer's
output has waves that its grid does not hold: `first_alias` compares every layer on two grids and names the first that differs.

Errors against the truth on several grids give an observed order: the slope of the error over the spacing, 0 for a model whose
error does not depend on the grid. Rollouts give the growth of the error in time, as a power of it. A model that is told how far
to look is asked for the same time by steps of several lengths: long ones call it seldom, short ones ask little of each call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, IsoclineError, require
from isocline._core.estimate import Estimate
from isocline.datasets.fields import Batch
from isocline.metrics import mean_estimate, power_spectrum, relative_error
from isocline.networks.resize import resampled
from isocline.operators.models import GridModel, OperatorModel
from isocline.operators.resample import at_resolution
from isocline.operators.rollout import rollout

THRESHOLD = 0.01  # a layer that differs by more between two grids is said to alias


@dataclass(frozen=True)
class OnGrid:
    """What was seen on one grid.

    Attributes:
        sizes: points along each axis.
        error: relative L2 distance from the truth, the mean over cases.
        aliasing: relative L2 distance from the prediction on the model's own grid, brought to this one; 0 on its own.
        wave: the lowest wave number at which that distance exceeds a hundredth of the prediction's power, None where none does.
    """

    sizes: tuple[int, ...]
    error: Estimate
    aliasing: float
    wave: int | None


@dataclass(frozen=True)
class OnStep:
    """What a model that is told how far to look makes of one step.

    Attributes:
        frames: that one call spans.
        calls: to the frame where all steps meet.
        error: relative L2 distance from the truth there, the mean over cases.
    """

    frames: int
    calls: int
    error: Estimate


@dataclass(frozen=True)
class Audit:
    """How a model behaves elsewhere.

    Attributes:
        grids: from the coarsest to the finest.
        refused: grids that the model does not take, with its reason.
        order: observed order of the error in the spacing, between the coarsest and the finest grid.
        alias: the first layer that differs between the own grid and twice as many points, and by how much; None where none does.
        times: of the rollout, (T,).
        errors: relative L2 error at each of them, (T,).
        growth: the power q of the error's growth ``t^q``, from its first to its last time.
        steps: the same time by shorter and longer steps, of a model that is told how far to look from one frame; else none.
    """

    grids: tuple[OnGrid, ...]
    refused: tuple[tuple[tuple[int, ...], str], ...]
    order: float
    alias: tuple[str, float] | None
    times: Tensor
    errors: Tensor
    growth: float
    steps: tuple[OnStep, ...] = ()


def audit(model: OperatorModel, batch: Batch, *, factors: Sequence[float] = (0.5, 1.0, 2.0, 4.0)) -> Audit:
    """Return how a model's error depends on the grid, and how it grows in a rollout.

    Args:
        model: one that advances fields on periodic grids.
        batch: at least two cases with several frames to compare with, on the grid that the model was trained on.
        factors: grids to try, as multiples of that.

    Raises:
        InvalidInput: the batch has one case only, or no frames to compare with; an axis is not periodic.
    """
    require(len(batch) >= 2, "an audit needs at least two cases")
    own = batch.spec.resolution
    grids, refused = [], []
    for factor in sorted({*factors, 1.0}):
        sizes = tuple(round(n * factor) for n in own)
        try:
            grids.append(_on_grid(model, batch, sizes))
        except (IsoclineError, RuntimeError) as error:
            if factor == 1:
                raise
            refused.append((sizes, str(error).splitlines()[0]))
    first, last = grids[0], grids[-1]
    ratio = last.sizes[0] / first.sizes[0]
    order = math.log(first.error.value / last.error.value) / math.log(ratio) if ratio > 1 else 0.0
    done = rollout(model, batch, batch.target.shape[1])
    errors = relative_error(done.frames, batch.target).nan_to_num(math.inf).mean(0)
    times = (batch.t - batch.t[:, :1] + batch.dt[:, None])[0]
    alias = first_alias(model, batch) if isinstance(model, GridModel) else None
    growth, steps = _growth(times, errors), _by_steps(model, batch)
    return Audit(tuple(grids), tuple(refused), order, alias, times, errors, growth, steps)


def _by_steps(model: OperatorModel, batch: Batch) -> tuple[OnStep, ...]:
    if not (isinstance(model, GridModel) and model.channels.leads and model.window.past == 1):
        return ()
    total = batch.target.shape[1]
    spans = [2**k for k in range(total.bit_length())]
    last = spans[-1] * (total // spans[-1])
    return tuple(OnStep(span, last // span, _by_step(model, batch, span, last)) for span in spans)


def _by_step(model: GridModel, batch: Batch, span: int, last: int) -> Estimate:
    """Return the error in a frame that steps of `span` frames lead to."""
    truth, lead = batch.target[:, last - 1 : last], torch.full((len(batch),), span, device=batch.x.device)
    for _ in range(last // span):
        with torch.no_grad():
            ahead = model(batch, lead=lead)
        batch = replace(batch, x=ahead, y=None, t=batch.t[:, :1] + span * batch.dt[:, None])
    return mean_estimate(relative_error(batch.x, truth)[:, 0].nan_to_num(math.inf))


def _growth(t: Tensor, errors: Tensor) -> float:
    if len(t) < 2 or not bool(errors.isfinite().all()):
        return math.nan
    return float((errors[-1] / errors[0]).log() / (t[-1] / t[0]).log())


def _predicted(model: OperatorModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch)


def _on_grid(model: OperatorModel, batch: Batch, sizes: tuple[int, ...]) -> OnGrid:
    there = at_resolution(batch, sizes) if sizes != batch.spec.resolution else batch
    found, axes = _predicted(model, there), len(sizes)
    error = mean_estimate(relative_error(found, there.target[:, : found.shape[1]]).mean(1))
    own = resampled(_predicted(model, batch), sizes, 2)
    gap = float((found - own).norm() / own.norm())
    power = [power_spectrum(w.movedim(-1, 2), axes).flatten(0, -2).sum(0) for w in (found - own, own)]
    loud = (power[0] > THRESHOLD * power[1]) & (power[1] > 1e-12 * power[1].sum())
    return OnGrid(sizes, error, gap, int(loud.int().argmax()) if bool(loud.any()) else None)


def first_alias(model: GridModel, batch: Batch, threshold: float = THRESHOLD) -> tuple[str, float] | None:
    """Return the first layer whose output differs between the own grid and twice as many points, and its relative distance.

    Only layers are compared whose output has the grid's points, times a power of two; the input is the same band-limited function.

    Raises:
        InvalidInput: an axis is not periodic.
    """
    sizes = tuple(batch.spec.resolution)
    fine = at_resolution(batch, [2 * n for n in sizes])
    coarse = at_resolution(fine, sizes)
    seen = [_outputs(model, b) for b in (coarse, fine)]
    for name, u in seen[0].items():
        v = seen[1].get(name)
        if (
            v is None
            or u.shape[2:] == v.shape[2:]
            or any(2 * a != b for a, b in zip(u.shape[2:], v.shape[2:], strict=True))
        ):
            continue
        expected = resampled(v.double(), u.shape[2:], 2)
        kept = resampled(resampled(u.double(), [n + 1 for n in u.shape[2:]], 2), u.shape[2:], 2)
        gap = float((kept - expected).norm() / expected.norm().clamp(min=1e-30))
        if gap > threshold:
            return name, gap
    return None


def _outputs(model: GridModel, batch: Batch) -> dict[str, Tensor]:
    """Return the output of every layer that has no layers inside, in the order of the calls."""
    found: dict[str, Tensor] = {}
    d = len(batch.spec.axes)
    handles = []
    for name, layer in model.network.named_modules():
        if not list(layer.children()):

            def keep(layer: nn.Module, inputs: object, output: object, name: str = name) -> None:
                if isinstance(output, Tensor) and output.ndim == d + 2:
                    found.setdefault(f"{name} ({type(layer).__name__})", output.detach())

            handles.append(layer.register_forward_hook(keep))
    try:
        _predicted(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InvalidInput("this network has no layers on a grid to compare")
    return found
