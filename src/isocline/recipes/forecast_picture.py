"""The picture of a forecast: the last part of each series, the median and the interval."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from torch import Tensor

from isocline.datasets.panel import DAY, Panel
from isocline.recipes.forecast import Ahead
from isocline.recipes.pictures import ACCENT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 6


def picture(panel: Panel, ahead: list[Ahead], level: float) -> Figure:
    """Return a figure with one row for each of the first series and one column for each quantity."""
    from matplotlib.figure import Figure

    shown = min(MOST, len(panel))
    figure = Figure(figsize=(6.4 * len(panel.columns), 2.6 * shown + 0.4), layout="constrained")
    grid = figure.subplots(shown, len(panel.columns), squeeze=False)
    for k in range(shown):
        for c, column in enumerate(panel.columns):
            _draw(grid[k][c], panel, k, c, ahead[k], level)
            grid[k][c].set_title(f"{panel.names[k]}: {column}" if len(panel) > 1 else column, fontsize=10)
    grid[0][0].legend(fontsize=8, loc="best", frameon=False)
    return figure


def _draw(axes: Any, panel: Panel, k: int, c: int, found: Ahead, level: float) -> None:
    t, x = panel.times[k], panel.values[k][:, c]
    span = float(found.times[-1] - t[-1])
    recent = (t >= t[-1] - 4 * span) & ~x.isnan()
    axes.plot(_moments(t[recent], panel), x[recent], ".", color=INK, markersize=3, label="observed")
    times = _moments(found.times, panel)
    axes.fill_between(
        times, found.low[:, c], found.high[:, c], color=ACCENT, alpha=0.25, lw=0, label=f"{100 * level:g} % interval"
    )
    axes.plot(times, found.middle[:, c], color=ACCENT, lw=1.2, label="median")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _moments(times: Tensor, panel: Panel) -> list[Any]:
    if not panel.dates:
        return times.tolist()
    return [datetime.fromtimestamp(t * DAY, timezone.utc) for t in times.tolist()]
