"""Forecasts of panels: what is held out stays held out, intervals hold, files come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isocline._core.errors import BadFile, InvalidInput
from isocline.datasets.panel import Panel
from isocline.recipes.forecast import CUTS, ForecastSettings, forecast
from isocline.recipes.forecast_picture import picture
from isocline.recipes.forecast_store import load_forecaster, save_forecaster
from isocline.recipes.forecast_windows import Cutter

F64 = torch.float64


def waves(series: int = 1, rows: int = 400, seed: int = 0, noise: float = 0.1) -> Panel:
    """Sines of period 5 with a trend, noise and irregular times; a tenth of the values is missing."""
    rng = np.random.default_rng(seed)
    times, values = [], []
    for k in range(series):
        t = np.sort(rng.uniform(0, 100, rows))
        x = np.sin(2 * np.pi * t / 5 + k) + 0.02 * t + noise * rng.normal(size=rows)
        x[rng.random(rows) < 0.1] = np.nan
        times.append(torch.tensor(t))
        values.append(torch.tensor(x)[:, None])
    return Panel(tuple(f"s{k}" for k in range(series)), ("x",), tuple(times), tuple(values))


QUICK = ForecastSettings(horizon=4.0, updates=60, seconds=20.0)


def test_windows_keep_to_their_part() -> None:
    panel = waves(2)
    cutter = Cutter(panel, 4.0, 16, (), torch.ones(1, dtype=F64))
    for low, high in zip((0.0, *CUTS), (*CUTS, 1.0), strict=True):
        window, last, before = cutter.all(low, high)
        assert bool(before.isnan().all())
        assert len(window) == len(last)
        seen = window.asked[~window.asked.isnan()]
        assert float(seen.min()) > 0
        assert float(seen.max()) <= 1 + 1e-6
    t = panel.times[0]
    row = int(CUTS[2] * len(t))
    changed = panel.values[0].clone()
    changed[row:] += 100.0  # what is reported on is seen by no other part
    other = Cutter(replace(panel, values=(changed, panel.values[1])), 4.0, 16, (), torch.ones(1, dtype=F64))
    for low, high in zip((0.0, *CUTS[:2]), CUTS, strict=True):
        ours, theirs = cutter.all(low, high)[0], other.all(low, high)[0]
        assert torch.equal(ours.targets.nan_to_num(-9.0), theirs.targets.nan_to_num(-9.0))
        assert torch.equal(ours.values.nan_to_num(-9.0), theirs.values.nan_to_num(-9.0))


def test_one_window_by_hand() -> None:
    t = torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0], dtype=F64)
    x = torch.tensor([1.0, torch.nan, 3.0, 7.0, 11.0], dtype=F64)[:, None]
    panel = Panel(("a",), ("x",), (t,), (x,))
    cutter = Cutter(panel, 2.0, 4, (1.5,), torch.tensor([2.0], dtype=F64))
    window, last = cutter.one(0, 2, (t[3:4] - t[2]) / 2, x[3:4])
    assert float(last) == 3.0
    assert window.times[0].tolist() == [-1.0, -1.0, -0.5, 0.0]
    assert window.values[0, :, 0].nan_to_num(-9.0).tolist() == [-9.0, -1.0, -9.0, 0.0]
    assert float(window.targets[0, 0, 0]) == 2.0
    turn = 2 * np.pi * 2.0 / 3.0
    assert np.allclose(window.phases[0], [np.sin(turn), np.cos(turn)], atol=1e-6)


def test_values_a_season_before_are_known_at_the_end_of_the_history() -> None:
    t = torch.arange(20.0, dtype=F64)
    panel = Panel(("a",), ("x",), (t,), ((t % 4)[:, None],))
    cutter = Cutter(panel, 8.0, 4, (0.5,), torch.ones(1, dtype=F64))
    found = cutter._before(0, 11, t[12:20])
    assert torch.equal(found[:, 0], (t[12:20] % 4))


@pytest.mark.slow
def test_intervals_hold_on_what_was_held_out() -> None:
    inside = []
    for seed in range(5):
        model, report = forecast(waves(2, seed=seed), replace(QUICK, seed=seed))
        inside.append(report.coverage.value)
        assert report.cost.seconds > 0
        assert set(report.baselines) == {"last value", "one season before"}
    assert abs(float(model.network.periods[0]) * model.horizon - 5.0) < 0.1
    assert 0.8 <= float(np.mean(inside)) <= 0.97


def test_the_same_seed_gives_the_same_bits_and_files_come_back(tmp_path: Path) -> None:
    panel, settings = waves(rows=200), replace(QUICK, updates=5)
    model, report = forecast(panel, settings)
    again, _ = forecast(panel, settings)
    stored = load_forecaster(save_forecaster(tmp_path / "model.safetensors", model))
    for other in (again, stored):
        for a, b in zip(model.ahead(panel, 7), other.ahead(panel, 7), strict=True):
            assert torch.equal(a.middle, b.middle)
            assert torch.equal(a.low, b.low)
    assert report.as_dict()["error"]["level"] == 0.9
    found = stored.ahead(panel, 7)[0]
    assert float(found.times[-1]) == pytest.approx(float(panel.times[0][-1]) + 4.0)
    assert bool((found.low <= found.high).all())
    assert len(picture(panel, [found], 0.9).axes) == 1


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="needs at least 40"):
        forecast(waves(rows=30), QUICK)
    with pytest.raises(InvalidInput, match="too short for this horizon"):
        forecast(waves(rows=60), replace(QUICK, horizon=1e-6))
    for change in ({"horizon": -1.0}, {"level": 1.0}, {"period": -2.0}, {"seconds": 0.0}):
        with pytest.raises(InvalidInput):
            replace(QUICK, **change)  # type: ignore[arg-type]
    (tmp_path / "x.safetensors").write_bytes(b"not a model")
    with pytest.raises(BadFile):
        load_forecaster(tmp_path / "x.safetensors")
    model, _ = forecast(waves(rows=100), replace(QUICK, updates=1))
    other = replace(waves(rows=100), columns=("y",))
    with pytest.raises(InvalidInput, match="the model forecasts x; the table has y"):
        model.ahead(other)
