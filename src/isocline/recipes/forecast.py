r"""``isocline forecast``: what comes next in irregular series, with intervals, and how good that was on times held out.

Every series is cut in time: the first 65 % train the network, the next 10 % choose its weights, the next 12.5 % widen or narrow
its intervals until they hold (conformalised quantiles: Romano, Patterson and Candes, arXiv 1905.03222), and the last 12.5 % are
used for nothing but the report.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Cost, Estimate, bootstrap
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets.panel import Panel
from isocline.recipes.forecast_windows import Cutter, size_of_changes
from isocline.timeseries.models.forecaster import NeuralForecaster, Window, crps
from isocline.timeseries.seasons import season

CUTS = (0.65, 0.75, 0.875)
FEWEST, MOST_WINDOWS = 40, 400


@dataclass(frozen=True)
class ForecastSettings:
    """How a forecaster is made.

    Args:
        horizon: how far it looks ahead, in the unit of time (days for dates); a tenth of the longest series by default.
        level: coverage that its intervals aim at.
        period: length of the season in the unit of time; 0 for none; None to look for one.
        context: how many of the last rows it reads.
        seconds: how long the network is trained.
        updates: most updates.
        batch: windows in each.
        paths: paths of each window while training.
        draws: paths of each forecast.
        rate: learning rate.
        seed: of weights, order and noise.
    """

    horizon: float | None = None
    level: float = 0.9
    period: float | None = None
    context: int = 48
    seconds: float = 60.0
    updates: int = 3000
    batch: int = 64
    paths: int = 8
    draws: int = 200
    rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.horizon is None or self.horizon > 0, f"the horizon must be positive, got {self.horizon}")
        require(0 < self.level < 1, f"the level of intervals is between 0 and 1, got {self.level}")
        require(self.period is None or self.period >= 0, f"a season has a positive length, got {self.period}")
        whole = min(self.context, self.updates, self.batch) >= 1 and min(self.paths, self.draws) >= 2
        require(
            whole and self.seconds > 0 and self.rate > 0, "context, updates, batch, seconds and rate must be positive"
        )


@dataclass(frozen=True)
class Forecaster:
    """A trained network and what it needs to know of the data.

    Args:
        network: the network.
        columns: of the quantities.
        horizon: how far it looks ahead.
        scale: (C,) size of a change over the horizon.
        settings: how it was made.
        widening: what the intervals of its paths are widened by, in units of their width.
    """

    network: NeuralForecaster
    columns: tuple[str, ...]
    horizon: float
    scale: Tensor
    settings: ForecastSettings
    widening: float = 0.0

    @torch.no_grad()
    def intervals(self, window: Window, rng: Stream | int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Return lower end, median and upper end at the asked times, (B, S, C), in the units of the window."""
        self.network.eval()
        paths = self.network(window, paths=self.settings.draws, rng=rng)
        tail = (1 - self.settings.level) / 2
        low, middle, high = paths.quantile(torch.tensor([tail, 0.5, 1 - tail]), 0)
        extra = self.widening * (high - low)
        return low - extra, middle, torch.maximum(high + extra, low - extra)

    def ahead(self, panel: Panel, points: int = 50) -> list[Ahead]:
        """Return the forecast of every series behind its last row, at `points` times up to the horizon.

        Raises:
            InvalidInput: the columns are not those it was trained on.
        """
        same = panel.columns == self.columns
        require(same, f"the model forecasts {', '.join(self.columns)}; the table has {', '.join(panel.columns)}")
        found = []
        asked = torch.linspace(0, 1, points + 1, dtype=torch.float64)[1:]
        for k, name in enumerate(panel.names):
            cut = Cutter(panel, self.horizon, self.settings.context, self.network.periods, self.scale)
            window, last = cut.one(k, len(panel.times[k]) - 1, asked)
            low, middle, high = (
                last + self.scale * x[0].double() for x in self.intervals(window, Stream(self.settings.seed, name))
            )
            found.append(Ahead(name, panel.times[k][-1] + self.horizon * asked, low, middle, high))
        return found


@dataclass(frozen=True)
class Ahead:
    """The forecast of one series.

    Args:
        name: of the series.
        times: (S,).
        low: lower end of the interval, (S, C).
        middle: median, (S, C).
        high: upper end, (S, C).
    """

    name: str
    times: Tensor
    low: Tensor
    middle: Tensor
    high: Tensor


@dataclass(frozen=True)
class ForecastReport:
    """How good forecasts were on the last part of every series.

    Args:
        coverage: share of held-out values inside their interval.
        level: what it aims at.
        error: mean absolute error of the median, in the unit of the values, averaged over columns.
        baselines: mean absolute errors of simple forecasts on the same values.
        ratio: error over that of the best of them, paired by window.
        width: mean width of the intervals.
        windows: how many histories this rests on.
        values: how many held-out values.
        updates: of the network.
        cost: of training.
    """

    coverage: Estimate
    level: float
    error: Estimate
    baselines: dict[str, float]
    ratio: Estimate
    width: float
    windows: int
    values: int
    updates: int
    cost: Cost

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, with how they were found."""
        how = "on the last 12.5 % of every series, which nothing was trained, chosen or calibrated on; bootstrap over windows"
        return {"error": asdict(self), "how": how, "version": __version__}


def forecast(panel: Panel, settings: ForecastSettings | None = None) -> tuple[Forecaster, ForecastReport]:
    """Train a forecaster of a panel, calibrate its intervals, and judge it on the last part of every series.

    Args:
        panel: the series.
        settings: how.

    Raises:
        InvalidInput: the series are too short.
        NotFinite: training failed in its first update.

    Examples:
        >>> t = torch.arange(120.0, dtype=torch.float64)
        >>> panel = Panel(("a",), ("x",), (t,), (torch.sin(t / 4)[:, None],))
        >>> model, report = forecast(panel, ForecastSettings(horizon=8, updates=5))
        >>> model.ahead(panel, points=4)[0].middle.shape
        torch.Size([4, 1])
    """
    given = settings or ForecastSettings()
    rows = sum(int((~x.isnan()).any(-1).sum()) for x in panel.values)
    require(
        rows >= FEWEST,
        f"the table has {rows} rows with a value; training and judging a forecast needs at least {FEWEST}",
    )
    began = time.perf_counter()
    horizon = given.horizon or max(float(t[-1] - t[0]) for t in panel.times) / 10
    periods = _periods(panel, given.period, horizon)
    raw = Cutter(panel, horizon, given.context, periods, torch.ones(len(panel.columns), dtype=torch.float64))
    scale = size_of_changes(raw.all(0.0, CUTS[0], _stride(panel))[0])
    cutter = replace(raw, scale=scale)
    parts = [cutter.all(a, b, _stride(panel)) for a, b in zip((0.0, *CUTS), (*CUTS, 1.0), strict=True)]
    with torch.random.fork_rng():
        torch.manual_seed(given.seed)
        network = NeuralForecaster(len(panel.columns), periods=periods)
    updates = _train(network, parts[0][0], parts[1][0], given)
    model = Forecaster(network, panel.columns, horizon, scale, given)
    model = replace(model, widening=_widening(model, parts[2][0]))
    return model, _judged(model, parts[3], updates, time.perf_counter() - began)


def _stride(panel: Panel) -> int:
    return max(1, sum(len(t) for t in panel.times) // (5 * MOST_WINDOWS))


def _periods(panel: Panel, asked: float | None, horizon: float) -> tuple[float, ...]:
    if asked is not None:
        return (asked / horizon,) if asked else ()
    longest = max(range(len(panel)), key=lambda k: len(panel.times[k]))
    early = int(CUTS[0] * len(panel.times[longest]))
    found = season(panel.times[longest][:early].numpy(), panel.values[longest][:early, 0].numpy())
    return (found / horizon,) if found else ()


def _train(network: NeuralForecaster, train: Window, chosen: Window, given: ForecastSettings) -> int:
    """Train `network`, leave it with the weights that were best on `chosen`, and return the number of updates."""
    optimizer = torch.optim.Adam(network.parameters(), lr=given.rate)
    stream, began = Stream(given.seed, "forecast"), time.perf_counter()
    best, weights, done, since = float("inf"), {}, 0, 0
    with progress("Training", given.updates) as bar:
        for done in range(1, given.updates + 1):
            index = stream.child("order").integers(len(train), (min(given.batch, len(train)),), step=done)
            optimizer.zero_grad(set_to_none=True)
            part = train.take(index)
            loss = crps(network(part, paths=given.paths, rng=stream.child(done)), part.targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            over = time.perf_counter() - began > given.seconds
            if done % 50 == 0 or over or done in (1, given.updates):
                now = _score(network, chosen, given)
                since = 0 if now < best else since + 1
                if now < best:
                    best, weights = now, {name: x.clone() for name, x in network.state_dict().items()}
                bar.advance(note=f"score {now:.4f}")
            else:
                bar.advance()
            if over or since >= 10:
                break
    if not weights:
        raise NotFinite(
            f"the score is not finite after {done} updates: lower the rate, now {given.rate:g}, or look for outliers"
        )
    network.load_state_dict(weights)
    return done


@torch.no_grad()
def _score(network: NeuralForecaster, window: Window, given: ForecastSettings) -> float:
    return float(crps(network(window, paths=4 * given.paths, rng=Stream(given.seed, "chosen")), window.targets))


def _widening(model: Forecaster, window: Window) -> float:
    """Return what intervals must be widened by, in units of their width, to hold on windows that nothing was trained on."""
    low, _, high = model.intervals(window, Stream(model.settings.seed, "calibration"))
    outside = torch.maximum(low - window.targets, window.targets - high) / (high - low).clamp(min=1e-12)
    scores = outside[~window.targets.isnan()]
    n = len(scores)
    require(n >= 5, f"only {n} values are left to calibrate intervals on: pass more rows or a larger horizon")
    rank = min(n, int(np.ceil((n + 1) * model.settings.level)))
    return max(-0.45, float(scores.sort().values[rank - 1]))


def _judged(model: Forecaster, part: tuple[Window, Tensor, Tensor], updates: int, seconds: float) -> ForecastReport:
    window, last, before = part
    low, middle, high = model.intervals(window, Stream(model.settings.seed, "report"))
    seen = ~window.targets.isnan()
    unit = model.scale.float()

    def mean(x: Tensor) -> Tensor:
        """Return the mean over the observed targets of each window, (N,)."""
        return torch.where(seen, x, 0.0).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)

    some = seen.any((1, 2))
    inside = mean(((window.targets >= low) & (window.targets <= high)).float())[some]
    misses = mean((middle - window.targets.nan_to_num(0.0)).abs() * unit)[some]
    simple = {"last value": mean(window.targets.nan_to_num(0.0).abs() * unit)[some]}
    if bool((~before.isnan() & seen).any()):
        guess = torch.where(before.isnan(), last[:, None], before)
        targets = last[:, None] + model.scale * window.targets.double()
        simple["one season before"] = mean((guess - targets).nan_to_num(0.0).abs().float())[some]
    best = min(simple, key=lambda name: float(simple[name].mean()))
    return ForecastReport(
        coverage=bootstrap(lambda x: x.mean(-1), inside.double(), rng=0),
        level=model.settings.level,
        error=bootstrap(lambda x: x.mean(-1), misses.double(), rng=0),
        baselines={name: float(x.mean()) for name, x in simple.items()},
        ratio=bootstrap(lambda x, y: x.mean(-1) / y.mean(-1), misses.double(), simple[best].double(), rng=0),
        width=float(mean((high - low) * unit)[some].mean()),
        windows=int(some.sum()),
        values=int(seen.sum()),
        updates=updates,
        cost=Cost(seconds=seconds),
    )
