"""An audit of a trained operator as a table, a file and a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocline._core import files
from isocline.datasets import FileSource, open_data
from isocline.datasets.fields import Window
from isocline.operators import Audit, audit
from isocline.recipes.operator.store import TrainedOperator
from isocline.recipes.operator.train import frames_after
from isocline.recipes.pictures import ACCENT, INK, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 32  # of the rollout


def report_audit(
    stored: TrainedOperator, data: str | Path | FileSource, out: str | Path, *, cases: int = 16, split: str = "test"
) -> Audit:
    """Audit a model on cases of a split; write ``audit.json`` and ``audit.png``.

    Raises:
        InvalidInput: an axis is not periodic, or there is one case only.
        Mismatch: the data have other fields.
    """
    source = open_data(data) if isinstance(data, (str, Path)) else data
    stored.model.spec.require_same_fields(source.spec)
    window = stored.model.window
    most = frames_after(window, source.times(split))
    batch = next(iter(source.batches(Window(window.past, max(1, min(most, FRAMES)), window.stride), cases, split)))
    found = audit(stored.model, batch)
    out = files.ensure_folder(out)
    files.write_json(out / "audit.json", as_dict(found))
    save(audit_picture(found), out / "audit.png")
    return found


def as_dict(found: Audit) -> dict[str, Any]:
    """Return an audit as plain data."""
    return {
        "grids": [
            {"sizes": g.sizes, "relative_l2": vars(g.error), "aliasing": g.aliasing, "lowest_wave_that_differs": g.wave}
            for g in found.grids
        ],
        "refused": [{"sizes": sizes, "reason": reason} for sizes, reason in found.refused],
        "observed_order": found.order if math.isfinite(found.order) else None,
        "first_layer_that_aliases": None
        if found.alias is None
        else {"layer": found.alias[0], "distance": found.alias[1]},
        "times": found.times.tolist(),
        "errors": [e if math.isfinite(e) else None for e in found.errors.tolist()],
        "steps": [{"frames": s.frames, "calls": s.calls, "relative_l2": vars(s.error)} for s in found.steps],
        "growth": found.growth if math.isfinite(found.growth) else None,
    }


def audit_picture(found: Audit) -> Figure:
    """Return a figure: error and aliasing over the grid, error over time."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = picture.subplots(1, 2)
    points = [g.sizes[0] for g in found.grids]
    errors = [g.error for g in found.grids]
    bars = [[e.value - e.low for e in errors], [e.high - e.value for e in errors]]
    left.errorbar(points, [e.value for e in errors], yerr=bars, color=INK, marker="o", label="error", capsize=3)
    other = [(n, g.aliasing) for n, g in zip(points, found.grids, strict=True) if g.aliasing > 0]
    left.plot(
        [n for n, _ in other],
        [a for _, a in other],
        color=ACCENT,
        marker="s",
        ls="--",
        label="differs from the own grid",
    )
    left.set(xlabel="points along the first axis", ylabel="relative L2", xscale="log", yscale="log")
    left.minorticks_off()
    left.set_xticks(points, [str(n) for n in points])
    left.legend(frameon=False, fontsize=9)
    right.plot(found.times.tolist(), found.errors.tolist(), color=INK)
    right.set(xlabel="time", ylabel="relative L2 of the rollout", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return picture
