r"""The verb `diagnose`: do these data lie on a set of lower dimension, and what follows for training?

Near such a set of dimension ``m`` in ``R^d`` the score, and at a fixed point the noise too, grow without bound as ``t -> 0``; the
data prediction does not (Lu, Wang and Bal, arXiv 2301.07882). Measured are

- the SNR-weighted loss ``(alpha / sigma)^2 E|D - x_0|^2`` on held-out data against the noise level: its floor is ``m``;
- a second estimate of ``m`` that needs no network, and the thickness of the data (`isocline.metrics.dimension`);
- how score, noise and data prediction grow at fixed points off the data: slopes of -1, -1/2, 0 in ``t`` mean a thin set.

The floor is that of a model, so it lies above the truth by what the model has not learned; more time brings it down.

Without a model a small one is trained first, for a stated time, with the bounded target.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import InvalidInput, require
from isocline._core.estimate import Budget, Estimate
from isocline._core.stream import Stream
from isocline.metrics.dimension import thickness, two_nn
from isocline.metrics.mean import mean_estimate
from isocline.networks import DenoisingMLP, UNet, UNetShape
from isocline.objectives import cem
from isocline.processes import EDM, Data, Denoiser
from isocline.recipes import pictures
from isocline.recipes.fit import fit_denoiser
from isocline.training import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 25  # noise levels of the loss curve
OFF = 0.3  # distance of the fixed points from the data, in units of the data's spread
PROBES = 64
LARGEST = 3.0  # noise levels from here ...
SMALLEST = 3e-3  # ... to here, in units of the data's spread


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        entries: ``d``, entries of one datum.
        spread: root mean square distance of an entry from its mean, in the data's units.
        intrinsic_dimension: from the floor of the weighted loss.
        at_level: the noise level of that floor, in the data's units.
        neighbours_dimension: from distances to the two nearest neighbours.
        thickness: standard deviation normal to the set, in the data's units; None where it was not resolved.
        slopes: of score, noise and data prediction in ``t`` at fixed points off the data.
        levels: noise levels of the curve, in the data's units.
        loss: the weighted loss at each level.
        magnitudes: median size of each prediction at the probes, by name, with ``t`` beside it.
        recommendation: target, weight, t_min, time law and grid, and why.
    """

    entries: int
    spread: float
    intrinsic_dimension: Estimate
    at_level: float
    neighbours_dimension: Estimate
    thickness: Estimate | None
    slopes: dict[str, Estimate]
    levels: list[float]
    loss: list[Estimate]
    magnitudes: dict[str, list[float]]
    recommendation: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    def save(self, folder: str | Path) -> Path:
        """Write ``diagnosis.json`` and ``diagnosis.png``; return the folder."""
        folder = files.ensure_folder(folder)
        files.write_json(folder / "diagnosis.json", self.as_dict())
        pictures.save(self.plot(), folder / "diagnosis.png")
        return folder

    def plot(self) -> Figure:
        """Return a picture: the weighted loss with its floor, and the three predictions at fixed points."""
        return _figure(self)


def diagnose(
    data: Tensor,
    *,
    denoiser: Denoiser | None = None,
    budget: Budget | None = None,
    rng: Stream | int = 0,
    folder: str | Path | None = None,
) -> Diagnosis:
    """Look at data (N, *), through a model of them or one that is trained for it.

    Args:
        data: at least 200 data, floating point; samples of the model itself where the data are not at hand.
        denoiser: a model of these data, in their units; None trains one.
        budget: with ``seconds``, the time for training; a minute by default.
        rng: stream or seed.
        folder: where the training keeps its checkpoints; a temporary one by default.

    Raises:
        InvalidInput: too few data, or data that do not vary.
    """
    require(data.ndim >= 2 and data.is_floating_point(), f"data must be floating point (N, *), got {tuple(data.shape)}")
    require(len(data) >= 200, f"a diagnosis needs at least 200 data, got {len(data)}")
    require(bool(torch.isfinite(data).all()), "the data hold NaN or infinity")
    stream = rng if isinstance(rng, Stream) else Stream(rng, "diagnose")
    spread = float((data.double() - data.double().mean(0)).square().mean().sqrt())
    require(spread > 0, "the data do not vary: all are the same")
    order = stream.child("split").permutation(len(data))
    held = max(len(data) // 5, 50)
    train, test = data[order[held:]], data[order[:held]]
    if denoiser is None:
        denoiser = _trained(train, spread, budget or Budget(seconds=60.0), stream, folder)
    return _measured(denoiser, data, test, spread, stream)


def _trained(data: Tensor, spread: float, budget: Budget, rng: Stream, folder: str | Path | None) -> Denoiser:
    """Return a small model with the bounded target, noise levels from a thousandth to ten times the spread of the data."""
    process = EDM(t_min=1e-3 * spread, t_max=10 * spread)
    formulation = cem(process, sigma_data=spread)
    centre, network = data.mean(0), _network(tuple(data.shape[1:]), rng.seed)
    settings = Settings(1_000_000, batch=min(256, len(data)), average=0.999, checkpoint_every=10**9, seed=rng.seed)
    with tempfile.TemporaryDirectory() as temporary:
        place = temporary if folder is None else folder
        fitted = fit_denoiser((data - centre).float(), formulation, network, settings, place, budget=budget)
    return _Centred(fitted.denoiser, centre.float())


class _Centred(Denoiser):
    """A model of centred data, as a model of the data themselves; for processes with ``alpha = 1``."""

    def __init__(self, inner: Denoiser, centre: Tensor) -> None:
        super().__init__(inner.process, Data())
        self.inner, self.centre = inner, centre

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.centre + self.inner.predict(x - self.centre, t, cond).x0


def _network(shape: tuple[int, ...], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if len(shape) == 1:
            return DenoisingMLP(shape[0], width=256, depth=3)
        if len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2] and shape[1] % 4 == 0:
            small = shape[1] <= 16
            return UNet(UNetShape(side=shape[1], patch=1 if small else 2, widths=(16, 32), embedding=32))
    raise InvalidInput(
        f"a model is trained for vectors (N, d) and square grey images (N, 1, s, s) with s a multiple of 4, not for data of shape "
        f"{shape}; pass denoiser=... or flatten them"
    )


def _measured(denoiser: Denoiser, data: Tensor, test: Tensor, spread: float, rng: Stream) -> Diagnosis:
    d = test[0].numel()
    levels = (spread * torch.logspace(math.log10(LARGEST), math.log10(SMALLEST), LEVELS, dtype=torch.float64)).tolist()
    x0 = test[:512].float()
    loss = [mean_estimate(_weighted(denoiser, x0, s, rng.child("noise"), k)) for k, s in enumerate(levels)]
    floor = _floor(levels, loss, spread)
    slopes, magnitudes = _growth(denoiser, x0[:PROBES], spread, rng)
    points = data[rng.child("points").permutation(len(data))[:4000]]
    dimension = min(max(round(loss[floor].value), 1), d - 1)
    thick = _thickness(points, dimension, rng)
    found = Diagnosis(
        d,
        spread,
        loss[floor],
        levels[floor],
        two_nn(points.unique(dim=0), rng),
        thick,
        slopes,
        levels,
        loss,
        magnitudes,
        {},
    )
    return replace(found, recommendation=_recommended(found))


@torch.no_grad()
def _weighted(denoiser: Denoiser, x0: Tensor, s: float, rng: Stream, step: int) -> Tensor:
    """Return ``|D - x_0|^2 / s^2``, the weighted loss (B,), at noise level `s`."""
    noise = rng.normal(tuple(x0.shape), step=step)
    error = _data_prediction(denoiser, x0 + s * noise, s) - x0
    return error.flatten(1).double().square().sum(1) / s**2


def _data_prediction(denoiser: Denoiser, y: Tensor, s: float) -> Tensor:
    """Return the data prediction at the unscaled state ``y = x / alpha`` of noise level `s`."""
    process = denoiser.process
    t = process.time_of_noise_level(s)
    return denoiser.predict(process.alpha(t).to(y.dtype) * y, t).x0


def _floor(levels: list[float], loss: list[Estimate], spread: float) -> int:
    """Return the index of the flattest place of the curve below half the spread: there the loss is the dimension."""
    log_s, log_l = (torch.tensor(v, dtype=torch.float64).log() for v in (levels, [e.value for e in loss]))
    slope = (log_l[2:] - log_l[:-2]) / (log_s[2:] - log_s[:-2])
    inner = torch.tensor([s < spread / 2 for s in levels[1:-1]])
    return 1 + int(torch.where(inner, slope.abs(), math.inf).argmin())


@torch.no_grad()
def _growth(
    denoiser: Denoiser, x0: Tensor, spread: float, rng: Stream
) -> tuple[dict[str, Estimate], dict[str, list[float]]]:
    """Return log-log slopes in ``t = s^2`` of the predictions at fixed points off the data, and their medians."""
    away = rng.child("away").normal(tuple(x0.shape)).flatten(1)
    distance = OFF * spread * math.sqrt(away.shape[1])
    y = x0 + (distance * away / away.norm(dim=1, keepdim=True)).reshape(x0.shape)
    levels = torch.logspace(math.log10(distance / 3), math.log10(distance / 30), 9, dtype=torch.float64)
    kinds: dict[str, list[Tensor]] = {"score": [], "noise": [], "data": []}
    for s in levels.tolist():
        found = _data_prediction(denoiser, y, s)
        gap = (y - found).flatten(1).double().norm(dim=1)
        sizes = {"score": gap / s**2, "noise": gap / s, "data": found.flatten(1).double().norm(dim=1)}
        for name, size in sizes.items():
            kinds[name].append(size)
    time = 2 * levels.log()
    centred = time - time.mean()
    slopes, magnitudes = {}, {"t": levels.square().tolist()}
    for name, sizes_at in kinds.items():
        table = torch.stack(sizes_at).clamp(min=1e-300)
        magnitudes[name] = table.median(1).values.tolist()
        slopes[name] = mean_estimate((centred[:, None] * table.log()).sum(0) / centred.square().sum())
    return slopes, magnitudes


def _thickness(points: Tensor, dimension: int, rng: Stream) -> Estimate | None:
    try:
        return thickness(points, dimension, rng)
    except InvalidInput:
        return None


def _recommended(found: Diagnosis) -> dict[str, Any]:
    """Return target, weight, t_min, time law and grid.

    The bounded target where the set has clearly fewer dimensions than the space and is thin; else EDM's training. Noise levels far
    below the thickness are not worth a call; where no thickness was found, a thousandth of the spread is the floor.
    """
    thick = 0.0 if found.thickness is None else found.thickness.value
    low = found.intrinsic_dimension.high < 0.8 * found.entries
    thin = found.thickness is not None and thick < 0.1 * found.spread * math.sqrt(found.entries)
    level = max(thick / 3, 1e-3 * found.spread)
    common: dict[str, Any] = {
        "noise_level_min": level,
        "t_min_ornstein_uhlenbeck": math.log1p((level / found.spread) ** 2),
    }
    common |= {"preconditioning": "EDM", "sigma_data": found.spread}  # bare networks blur the data prediction
    if low and thin:
        return {
            "formulation": "cem", "target": "data", "weight": "SNR", "time_law": "log-uniform", "grid": "exponential", **common,
            "why": f"about {found.intrinsic_dimension.value:.2g} of {found.entries} dimensions and thin: score and noise blow up "
            "near t = 0, the data prediction stays bounded",
        }  # fmt: skip
    return {
        "formulation": "edm", "target": "data", "weight": "EDM", "time_law": "log-normal", "grid": "karras", **common,
        "why": "no thin set of clearly lower dimension was found; EDM's training is the strong general choice",
    }  # fmt: skip


def _figure(found: Diagnosis) -> Figure:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2)
    values = [e.value for e in found.loss]
    left.plot(found.levels, values, color=pictures.INK)
    left.fill_between(
        found.levels, [e.low for e in found.loss], [e.high for e in found.loss], color=pictures.INK, alpha=0.15
    )
    left.axhline(found.intrinsic_dimension.value, color=pictures.ACCENT, linewidth=1)
    left.text(
        found.levels[0],
        found.intrinsic_dimension.value,
        f" m = {found.intrinsic_dimension.value:.2f}",
        va="bottom",
        ha="right",
    )
    left.axhline(found.entries, color=pictures.GREY, linewidth=1, linestyle=":")
    if found.thickness is not None and found.thickness.value > found.levels[-1]:
        left.axvline(found.thickness.value, color=pictures.GREEN, linewidth=1)
        left.text(found.thickness.value, min(values), " thickness", color=pictures.GREEN, va="bottom")
    left.set(
        xscale="log",
        yscale="log",
        xlabel="noise level",
        ylabel="SNR-weighted loss, held out",
        title="Intrinsic dimension",
    )
    for name, color in (("score", pictures.ACCENT), ("noise", pictures.INK), ("data", pictures.GREEN)):
        t, size = found.magnitudes["t"], found.magnitudes[name]
        right.plot(t, size, color=color)
        right.annotate(
            f"{name}, slope {found.slopes[name].value:+.2f}",
            (t[-1], size[-1]),
            (4, 6),
            textcoords="offset points",
            color=color,
        )
    right.set(
        xscale="log",
        yscale="log",
        xlabel="squared noise level t",
        ylabel="median size",
        title="At fixed points off the data",
    )
    right.margins(y=0.15)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    return picture
