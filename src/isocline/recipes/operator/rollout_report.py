"""What a rollout looks like: an animation, error over time with intervals, spectra."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import require
from isocline._core.estimate import Estimate
from isocline.datasets import FileSource, open_data
from isocline.datasets.fields import Batch, Window
from isocline.metrics import (
    band_errors,
    correlation,
    high_correlation_time,
    mean_estimate,
    power_spectrum,
    relative_error,
    vrmse,
)
from isocline.operators import Rollout, rollout
from isocline.operators.residual import suffixes
from isocline.recipes.operator.store import TrainedOperator
from isocline.recipes.operator.train import frames_after
from isocline.recipes.pictures import ACCENT, GREY, INK, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 60  # of an animation
THRESHOLDS = (0.8, 0.9)


@dataclass(frozen=True)
class RolloutReport:
    """Errors of a rollout.

    Attributes:
        t: times since the last given frame, (T,).
        errors: relative L2 errors, (B, T); NaN after a case was lost.
        persistence: those of keeping the last given frame, (B, T).
        vrmse: for each channel, mean over cases and times.
        correlation_time: for each threshold, when the correlation falls below it.
        reached: for each threshold, the share of cases that never fall below it, whose time is a lower bound.
        bands: power of the error over that of the truth in three bands of wave numbers, at the last time; None off a grid.
        lost: share of cases that were lost.
    """

    t: Tensor
    errors: Tensor
    persistence: Tensor
    vrmse: dict[str, float]
    correlation_time: dict[float, Estimate]
    reached: dict[float, float]
    bands: list[float] | None
    lost: float

    def at(self, k: int, persistence: bool = False) -> Estimate:
        """Return the mean error at time number k over the cases that were not lost."""
        values = (self.persistence if persistence else self.errors)[:, k]
        return mean_estimate(values[values.isfinite()])

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = self.errors.isfinite().sum(0) > 1
        return {
            "t": self.t.tolist(),
            "relative_l2": [vars(self.at(k)) if bool(found[k]) else None for k in range(len(self.t))],
            "persistence": [vars(self.at(k, True)) for k in range(len(self.t))],
            "vrmse": self.vrmse,
            "high_correlation_time": {f"{c:g}": vars(e) for c, e in self.correlation_time.items()},
            "share_never_below": {f"{c:g}": share for c, share in self.reached.items()},
            "band_errors_at_the_end": self.bands,
            "lost": self.lost,
        }


def report_rollout(
    stored: TrainedOperator,
    data: str | Path | FileSource,
    out: str | Path,
    *,
    steps: int | None = None,
    cases: int = 32,
    split: str = "test",
) -> RolloutReport:
    """Roll a model out on test cases; write ``rollout.json``, ``error.png``, ``spectrum.png`` and ``rollout.gif``.

    Args:
        stored: the model.
        data: a data set (`Stored`, `Arrays`, `pdebench`, ...), or a path that `open_data` opens.
        out: where the files go.
        steps: frames; all that are stored without it.
        cases: how many cases, at least two.
        split: which.

    Raises:
        InvalidInput: too few cases or frames.
        Mismatch: the data have other fields.
    """
    source = open_data(data) if isinstance(data, (str, Path)) else data
    model, out = stored.model, files.ensure_folder(out)
    model.spec.require_same_fields(source.spec)
    window = model.window
    most = frames_after(window, source.times(split))
    steps = most if steps is None else steps
    require(
        1 <= steps <= most,
        f"{source.spec.name} has {most} frames after the given ones, so steps is 1 ... {most}, got {steps}",
    )
    batch = next(iter(source.batches(Window(window.past, steps, window.stride), cases, split)))
    require(len(batch) >= 2, f"an interval needs two cases; the split {split!r} has {len(batch)}")
    done = rollout(model, batch, steps)
    found = measured(done, batch)
    files.write_json(out / "rollout.json", found.as_dict())
    save(error_picture(found), out / "error.png")
    if found.bands is not None:
        save(spectrum_picture(done, batch), out / "spectrum.png")
    files.write_bytes(out / "rollout.gif", animation(done, batch))
    return found


def measured(done: Rollout, batch: Batch) -> RolloutReport:
    """Return the errors of a rollout against the frames in its batch."""
    truth, names = batch.target, _channels(batch)
    t = (done.t - batch.t[:, :1] + batch.dt[:, None]).mean(0)
    ahead = done.t - batch.t[:, :1] + batch.dt[:, None]
    like = correlation(done.frames, truth)
    score = vrmse(done.frames, truth)
    times = {c: high_correlation_time(like, ahead, c).double() for c in THRESHOLDS}
    return RolloutReport(
        t,
        relative_error(done.frames, truth),
        relative_error(batch.x[:, -1:].expand_as(truth), truth),
        {name: float(score[..., k].nanmean()) for k, name in enumerate(names)},
        {c: mean_estimate(value) for c, value in times.items()},
        {c: float((value >= ahead[:, -1]).double().mean()) for c, value in times.items()},
        None if batch.offsets is not None else _bands(done, batch),
        float((done.lost < truth.shape[1]).double().mean()),
    )


def _bands(done: Rollout, batch: Batch) -> list[float]:
    kept = done.lost == batch.target.shape[1]
    if not bool(kept.any()):
        return [float("inf")] * 3
    found, truth = (w[kept, -1].movedim(-1, 1) for w in (done.frames, batch.target))
    return [float(value) for value in band_errors(found, truth, len(batch.spec.axes)).flatten(0, 1).median(0).values]


def _channels(batch: Batch) -> list[str]:
    """Return a name for each channel."""
    return [f.name + suffix for f in batch.spec.varying for suffix in suffixes(f.order, batch.spec.axes)]


def error_picture(found: RolloutReport) -> Figure:
    """Return a figure of the error over time, with intervals, beside that of the last given frame."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = picture.subplots()
    for values, colour, label in ((found.errors, INK, "model"), (found.persistence, GREY, "last given frame, kept")):
        places = [k for k in range(len(found.t)) if int(values[:, k].isfinite().sum()) > 1]
        estimates = [mean_estimate(values[:, k][values[:, k].isfinite()]) for k in places]
        t = found.t[places].tolist()
        axes.plot(t, [e.value for e in estimates], color=colour, label=label)
        low, high = [max(e.low, e.value / 10) for e in estimates], [e.high for e in estimates]
        axes.fill_between(t, low, high, color=colour, alpha=0.2, lw=0)
    for threshold, time in found.correlation_time.items():
        axes.axvline(time.value, color=ACCENT, lw=0.8, ls=":" if threshold < 0.9 else "--")
        left = threshold == max(found.correlation_time)
        how: dict[str, Any] = {"ha": "right" if left else "left", "color": ACCENT, "fontsize": 8}
        axes.text(time.value, 1.01, f" corr. {threshold:g} ", transform=axes.get_xaxis_transform(), **how)
    axes.set(xlabel="time after the given frames", ylabel="relative L2 error", yscale="log")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.3)
    return picture


def spectrum_picture(done: Rollout, batch: Batch) -> Figure:
    """Return a figure of power by wave number: truth, prediction and error at the first, a middle and the last frame."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9.6, 3.4), layout="constrained")
    steps, axes_of_space = batch.target.shape[1], len(batch.spec.axes)
    places = sorted({0, steps // 2, steps - 1})
    for axes, k in zip(picture.subplots(1, len(places), squeeze=False, sharey=True)[0], places, strict=True):
        kept = done.lost > k
        pairs = [
            (batch.target, INK, "truth"),
            (done.frames, ACCENT, "model"),
            (done.frames - batch.target, GREY, "error"),
        ]
        for values, colour, label in pairs:
            power = power_spectrum(values[kept, k].movedim(-1, 1), axes_of_space).double()
            if bool(kept.any()):
                axes.plot(power.sum(1).mean(0).clamp(min=1e-30).tolist(), color=colour, label=label)
        ahead = float((done.t[:, k] - batch.t[:, 0] + batch.dt).mean())
        axes.set(title=f"after {ahead:.3g}", xlabel="wave number", yscale="log", xscale="symlog")
        axes.set_xlim(left=-0.2)
        axes.grid(alpha=0.3)
    picture.axes[0].set_ylabel("power")
    picture.axes[0].legend(frameon=False, fontsize=9)
    return picture


def animation(done: Rollout, batch: Batch) -> bytes:
    """Return an animated GIF of the first case: truth, prediction and their difference, of the first channel."""
    steps = batch.target.shape[1]
    places = torch.linspace(0, steps - 1, min(steps, FRAMES)).round().long().unique()
    truth, found = batch.target[0, places, ..., 0], done.frames[0, places, ..., 0]
    if truth.ndim == 4:
        truth, found = truth[..., truth.shape[-1] // 2], found[..., found.shape[-1] // 2]
    draw = _lines if truth.ndim == 2 else _images
    times = (done.t[0, places] - batch.t[0, 0] + batch.dt[0]).tolist()
    return draw(truth, found, times, _channels(batch)[0])


def _lines(truth: Tensor, found: Tensor, times: list[float], name: str) -> bytes:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 3.4), layout="constrained", dpi=90)
    axes = picture.subplots()
    low, high = float(truth.min()), float(truth.max())
    (one,) = axes.plot(truth[0].tolist(), color=INK, label="truth")
    (two,) = axes.plot(found[0].tolist(), color=ACCENT, label="model")
    margin = 0.1 * (high - low) + 1e-9
    axes.set(ylim=(low - margin, high + margin), xlabel="point of the grid", ylabel=name)
    axes.legend(frameon=False, loc="upper right", fontsize=9)

    def show(k: int) -> None:
        one.set_ydata(truth[k].tolist())
        two.set_ydata(found[k].tolist())
        axes.set_title(f"after {times[k]:.3g}", fontsize=10)

    return _gif(picture, show, len(times))


def _images(truth: Tensor, found: Tensor, times: list[float], name: str) -> bytes:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9.0, 3.2), layout="constrained", dpi=80)
    low, high = float(truth.min()), float(truth.max())
    shown = []
    for axes, title in zip(picture.subplots(1, 3), (f"{name}: truth", "model", "difference"), strict=True):
        span = (low, high) if title != "difference" else (-(high - low) / 2, (high - low) / 2)
        colours = "viridis" if title != "difference" else "RdBu_r"
        shown.append(axes.imshow(truth[0].T.numpy(), origin="lower", vmin=span[0], vmax=span[1], cmap=colours))
        axes.set_title(title, fontsize=10)
        axes.axis("off")

    def show(k: int) -> None:
        for image, values in zip(shown, (truth[k], found[k], found[k] - truth[k]), strict=True):
            image.set_data(values.T.numpy())
        picture.suptitle(f"after {times[k]:.3g}", fontsize=10)

    return _gif(picture, show, len(times))


def _gif(picture: Figure, show: Any, count: int) -> bytes:
    """Return the frames that `show` makes as an animated GIF."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, frames = FigureCanvasAgg(picture), []
    for k in range(count):
        show(k)
        canvas.draw()
        width, height = canvas.get_width_height()
        frames.append(Image.frombytes("RGBA", (width, height), bytes(canvas.buffer_rgba())).convert("RGB"))
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)
    return buffer.getvalue()
