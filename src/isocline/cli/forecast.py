"""``isocline forecast``: what comes next in a table of irregular series."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

if TYPE_CHECKING:
    from isocline.datasets.panel import Panel
    from isocline.recipes.forecast import Ahead, Forecaster, ForecastReport


def forecast(
    source: Annotated[
        Path, typer.Argument(help="A .csv file with a header; rows in any order, empty cells are missing.")
    ],
    time: Annotated[str, typer.Option(help="Column of times: numbers or dates.")] = "time",
    value: Annotated[
        list[str] | None, typer.Option(help="Column of values; repeat it for several. [default: value]")
    ] = None,
    series: Annotated[str | None, typer.Option("--id", help="Column that says to which series a row belongs.")] = None,
    horizon: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="How far to look ahead, in the unit of time (days for dates); a tenth of the longest series by default."
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Coverage that intervals aim at.")] = 0.9,
    period: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Length of the season in the unit of time; 0 for none; looked for where it is left out."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long the network is trained.")] = 60.0,
    points: Annotated[int, typer.Option(help="Number of times in the forecast.", min=1)] = 50,
    model: Annotated[
        Path | None, typer.Option(help="A forecaster.safetensors of an earlier run, instead of training.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("runs/forecast"),
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Forecast irregular time series with gaps, with intervals that are checked on held-out times.

    Writes `forecast.csv`, `forecast.png`, `forecaster.safetensors` and `report.json` to the folder `--out`. The last eighth of
    every series is only used to report how good forecasts were.
    """
    from isocline._core import files
    from isocline.datasets.panel import read_panel
    from isocline.recipes.forecast import ForecastSettings
    from isocline.recipes.forecast import forecast as run
    from isocline.recipes.forecast_picture import picture
    from isocline.recipes.forecast_store import load_forecaster, save_forecaster
    from isocline.recipes.pictures import png

    console = Console(stderr=as_json)
    panel = read_panel(source, time=time, values=value or ["value"], series=series)
    report: ForecastReport | None = None
    if model is not None:
        forecaster = load_forecaster(model)
    else:
        settings = ForecastSettings(horizon=horizon, level=level, period=period, seconds=seconds, seed=seed)
        rows = sum(len(t) for t in panel.times)
        console.print(f"{len(panel)} series, {rows} rows; training for at most {seconds:g} seconds.", markup=False)
        forecaster, report = run(panel, settings)
        save_forecaster(out / "forecaster.safetensors", forecaster)
    ahead = forecaster.ahead(panel, points)
    files.write_text(out / "forecast.csv", _table(panel, ahead))
    files.write_bytes(out / "forecast.png", png(picture(panel, ahead, forecaster.settings.level)))
    if report is not None:
        files.write_json(
            out / "report.json", {**report.as_dict(), "horizon": forecaster.horizon, "season": _season(forecaster)}
        )
        if as_json:
            typer.echo(json.dumps(files.read_json(out / "report.json")))
        else:
            _say(report, forecaster, console)
    elif as_json:
        typer.echo(
            json.dumps(
                {
                    "forecast": str(out / "forecast.csv"),
                    "error": None,
                    "how": "a model of an earlier run; see its report",
                }
            )
        )
    console.print(f"Forecast: {out / 'forecast.csv'}   Picture: {out / 'forecast.png'}", markup=False, soft_wrap=True)


def _season(forecaster: Forecaster) -> float | None:
    periods = forecaster.network.periods
    return periods[0] * forecaster.horizon if periods else None


def _table(panel: Panel, ahead: list[Ahead]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", "time", "column", "median", "low", "high"])
    for found in ahead:
        for i, t in enumerate(found.times.tolist()):
            for c, column in enumerate(panel.columns):
                numbers = (f"{float(x[i, c]):.8g}" for x in (found.middle, found.low, found.high))
                writer.writerow([found.name, panel.shown(t), column, *numbers])
    return buffer.getvalue()


def _say(report: ForecastReport, forecaster: Forecaster, console: Console) -> None:
    season = _season(forecaster)
    lines = [
        f"Horizon {forecaster.horizon:g}, season {f'{season:.4g}' if season else 'none found'}; "
        f"{report.updates} updates in {report.cost.seconds:.0f} seconds.",
        f"On {report.values} held-out values after {report.windows} histories:",
        f"  {100 * report.level:g} % intervals cover {100 * report.coverage.value:.1f} % "
        f"[{100 * report.coverage.low:.1f}, {100 * report.coverage.high:.1f}]; mean width {report.width:.4g}.",
        f"  Mean absolute error {report.error}; "
        + ", ".join(f"{name} {error:.3g}" for name, error in report.baselines.items())
        + ".",
        f"  Ratio to the best of these {report.ratio}.",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    if report.ratio.low > 1:
        console.print(
            "  The simple forecast was better here: use it, or give the network more data or --seconds.", markup=False
        )
