"""Forecasts of irregular series with gaps: coverage of the intervals, and the error beside simple forecasts.

    python benchmarks/forecast.py [--seeds 5] [--seconds 40] [--only co2|temperature] [--stored]

Two series: weekly carbon dioxide at Mauna Loa, 1958 to 2001, with its own gaps (2284 rows, of the package statsmodels), one year
ahead; daily highest temperatures in Seattle (``isocline data fetch weather``), of which each seed drops 40 % of the days at random,
30 days ahead. Each cell calls `isocline.recipes.forecast.forecast` as ``isocline forecast`` does and reports on the last eighth.
Cells are kept in ``runs/forecast``; writes ``docs/benchmarks/forecast.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
from pathlib import Path
from typing import Any

import torch

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets.packages import data_folder, fetch
from isocline.datasets.panel import Panel, read_panel
from isocline.recipes.forecast import ForecastSettings, forecast

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/forecast")
BAR = (0.80, 0.97)
HORIZONS = {"co2": 365.0, "temperature": 30.0}


def panel(bed: str, seed: int) -> Panel:
    """Return the table of a bed."""
    if bed == "co2":
        found = importlib.util.find_spec("statsmodels")
        if found is None or found.submodule_search_locations is None:
            raise SystemExit("statsmodels is not installed: pip install statsmodels, or --only temperature")
        return read_panel(
            Path(found.submodule_search_locations[0]) / "datasets/co2/co2.csv", time="date", values=["co2"]
        )
    fetch("weather")
    whole = read_panel(data_folder() / "weather" / "seattle-weather.csv", time="date", values=["temp_max"])
    keep = Stream(seed, "days").uniform((len(whole.times[0]), 1))[:, 0] > 0.4
    return Panel(("Seattle",), whole.columns, (whole.times[0][keep],), (whole.values[0][keep],), whole.dates)


def cell(bed: str, seed: int, seconds: float) -> dict[str, Any]:
    path = RUNS / f"{bed}-{seed}.json"
    if path.is_file():
        return dict(files.read_json(path))
    _, report = forecast(panel(bed, seed), ForecastSettings(horizon=HORIZONS[bed], seconds=seconds, seed=seed))
    return dict(files.read_json(files.write_json(path, {"bed": bed, "seed": seed, **report.as_dict()["error"]})))


def page(cells: list[dict[str, Any]], seconds: float) -> str:
    lines = [
        "# Forecasts of irregular series",
        "",
        f"Written by `python benchmarks/forecast.py`; isocline {__version__}, torch {torch.__version__}, python "
        f"{platform.python_version()}; {seconds:g} seconds of training on one thread. Intervals of 90 %; errors are mean absolute "
        "ones, in ppm and degrees; the ratio is to the best simple forecast, paired by history. Nothing was trained, chosen or "
        "calibrated on these values.",
        "",
        "| series | seed | coverage | width | error | last value | one season before | ratio | updates |",
        "|---" * 9 + "|",
    ]
    for c in cells:
        simple = [c["baselines"].get(name) for name in ("last value", "one season before")]
        shown = " | ".join("" if x is None else f"{x:.3f}" for x in simple)
        lines.append(
            f"| {c['bed']} | {c['seed']} | {_said(c['coverage'])} | {c['width']:.2f} | {_said(c['error'])} | {shown} | "
            f"{_said(c['ratio'])} | {c['updates']} |"
        )
    for bed in HORIZONS:
        mine = [c["coverage"]["value"] for c in cells if c["bed"] == bed]
        if mine:
            inside = sum(BAR[0] <= x <= BAR[1] for x in mine)
            lines.append(f"\n- {bed}: coverage between 80 and 97 % in {inside} of {len(mine)} seeds.")
    return "\n".join(lines) + "\n"


def _said(e: dict[str, float]) -> str:
    return f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--only", choices=list(HORIZONS))
    parser.add_argument("--stored", action="store_true", help="write the page of the cells that are there")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.stored:
        for bed in [given.only] if given.only else HORIZONS:
            for seed in range(given.seeds):
                found = cell(bed, seed, given.seconds)
                print(f"{bed} {seed}: coverage {_said(found['coverage'])}, ratio {_said(found['ratio'])}", flush=True)
    cells = [dict(files.read_json(path)) for path in sorted(RUNS.glob("*.json"))]
    files.write_json(given.out / "forecast.json", {"cells": cells, "seconds": given.seconds})
    files.write_text(given.out / "forecast.md", page(cells, given.seconds))
    print(page(cells, given.seconds))


if __name__ == "__main__":
    main()
