"""Windows of a panel: histories and what followed them, cut at the times of each series."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.datasets.panel import Panel
from isocline.timeseries.models.forecaster import Window

TARGETS = 24  # in a window at most


@dataclass(frozen=True)
class Cutter:
    """Cuts windows out of a panel.

    Args:
        panel: the series.
        horizon: how far targets lie ahead.
        context: how many rows a history has.
        periods: lengths of seasons, in horizons.
        scale: (C,) unit of the values.
    """

    panel: Panel
    horizon: float
    context: int
    periods: tuple[float, ...]
    scale: Tensor

    def one(self, k: int, end: int, asked: Tensor, targets: Tensor | None = None) -> tuple[Window, Tensor]:
        """Return the window of series `k` whose history ends with row `end`, and the last values (C,)."""
        t, x = self.panel.times[k], self.panel.values[k]
        first = max(0, end + 1 - self.context)
        times, values = (t[first : end + 1] - t[end]) / self.horizon, x[first : end + 1]
        last = _last_of(x[: end + 1])
        missing = self.context - len(times)
        times = torch.nn.functional.pad(times, (missing, 0), value=float(times[0]))
        values = torch.nn.functional.pad((values - last) / self.scale, (0, 0, missing, 0), value=torch.nan)
        turn = 2 * torch.pi * t[end] / self.horizon / torch.tensor(self.periods, dtype=torch.float64)
        wanted = torch.full((len(asked), x.shape[1]), torch.nan) if targets is None else (targets - last) / self.scale
        parts = (times, values, torch.cat([turn.sin(), turn.cos()]), asked, wanted)
        return Window(*(part[None].float() for part in parts)), last

    def all(self, low: float, high: float, stride: int = 1) -> tuple[Window, Tensor, Tensor]:
        """Return the windows whose targets lie in a part of each series, given by shares of its rows.

        Returns:
            The windows, their last values (N, C), and values one season before the targets (N, S, C), NaN where there are none.
        """
        found: list[tuple[Window, Tensor, Tensor]] = []
        for k, t in enumerate(self.panel.times):
            begin, stop = int(low * len(t)), int(np.ceil(high * len(t)))
            for end in range(max(begin - 1, 1), stop - 1, stride):
                ahead = torch.arange(end + 1, stop)
                ahead = ahead[(t[ahead] - t[end]) <= self.horizon * (1 + 1e-9)]
                if not len(ahead) or bool(self.panel.values[k][: end + 1].isnan().all()):
                    continue
                ahead = ahead[torch.linspace(0, len(ahead) - 1, min(TARGETS, len(ahead))).round().long()]
                window, last = self.one(k, end, (t[ahead] - t[end]) / self.horizon, self.panel.values[k][ahead])
                found.append((window, last, self._before(k, end, t[ahead])))
        if not found:
            raise InvalidInput("the series are too short for this horizon: pass a smaller --horizon, or more rows")
        sizes = [len(w.asked[0]) for w, _, _ in found]
        most = max(sizes)
        wide = [_padded(w, most - n) for (w, _, _), n in zip(found, sizes, strict=True)]
        names = ("times", "values", "phases", "asked", "targets")
        window = Window(*(torch.cat([getattr(w, name) for w in wide]) for name in names))
        before = torch.stack(
            [torch.nn.functional.pad(b, (0, 0, 0, most - len(b)), value=torch.nan) for _, _, b in found]
        )
        return window, torch.stack([last for _, last, _ in found]), before

    def _before(self, k: int, end: int, ahead: Tensor) -> Tensor:
        """Return the values a season before the targets, on lines between what was known at the end of the history."""
        t, x = self.panel.times[k][: end + 1].numpy(), self.panel.values[k][: end + 1].numpy()
        if not self.periods:
            return torch.full((len(ahead), x.shape[1]), torch.nan, dtype=torch.float64)
        period = self.periods[0] * self.horizon
        back = np.ceil((ahead.numpy() - t[-1]) / period)
        at = ahead.numpy() - np.maximum(back, 1) * period
        columns = []
        for c in range(x.shape[1]):
            seen = ~np.isnan(x[:, c])
            known = np.interp(at, t[seen], x[seen, c]) if seen.any() else np.full(len(at), np.nan)
            columns.append(np.where(at >= t[0], known, np.nan))
        return torch.tensor(np.stack(columns, -1))


def size_of_changes(window: Window) -> Tensor:
    """Return the size of changes over the horizon, (C,)."""
    squares = window.targets.double().square()
    found = squares.nanmean((0, 1)).sqrt().nan_to_num(1.0)
    return torch.where(found > 0, found, 1.0)


def _last_of(values: Tensor) -> Tensor:
    """Return the last observed value of each column, (C,); 0 where there is none."""
    seen = ~values.isnan()
    place = torch.arange(len(values))[:, None] * seen
    row = place.amax(0)
    return torch.where(seen.any(0), values[row, torch.arange(values.shape[1])], 0.0)


def _padded(window: Window, more: int) -> Window:
    asked = torch.nn.functional.pad(window.asked, (0, more), value=torch.nan)
    return replace(
        window, asked=asked, targets=torch.nn.functional.pad(window.targets, (0, 0, 0, more), value=torch.nan)
    )
