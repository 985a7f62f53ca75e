"""The page, the pictures and the JSON of `samplers_accuracy`: everything it says is computed from the measured rows."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks.contenders import OURS
from benchmarks.exact_beds import ENDS, LOOSE, PROCESS, TIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PACKAGES = (OURS, "azula", "k-diffusion", "diffusers")
COLOURS = {OURS: "#c55a11", "azula": "#1f4e79", "k-diffusion": "#3b7d4f", "diffusers": "#7a7a7a"}
CLOSE = 1.02
MORE_FLIPS = 10
INFORMED = "analytic first step"
SHOWN = {OURS: 14, "azula": 10, "k-diffusion": 6, "diffusers": 8}
FIGURES = {"rms": "RMS", "median": "median", "calm": "RMS without flips"}
AT = {"t_min": f"t = {PROCESS.t_min:g}", "zero": "t = 0"}
Row = dict[str, Any]


def facts(samples: int, seeds: int, flip: float) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    packages = {"isocline": _version(), "torch": torch.__version__}
    for name in ("diffusers", "k-diffusion", "azula", "numpy", "scipy"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "packages": packages,
        "samples": samples,
        "seeds": seeds,
        "flip": flip,
    }


def _version() -> str:
    """Return the version of this repository, which need not be installed here."""
    text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'^version = "(.+)"$', text, re.MULTILINE)[0]


# Rows


def rows_of(report: Row, bed: str, end: str) -> list[Row]:
    """Return the rows of a bed that end there, the best first: by the mean logarithm of figure over the column's best.

    Rows that fill less than half of the columns come last, as they are compared in few.
    """
    figure, found = report["beds"][bed]["figure"], report["beds"][bed]["rows"].values()
    rows = [row for row in found if row["end"] == end and any(_value(row, n, figure) for n in report["calls"])]
    best = {n: min(filter(None, (_value(row, n, figure) for row in rows)), default=None) for n in report["calls"]}
    sparse = {
        id(row): 2 * sum(bool(_value(row, n, figure)) for n in report["calls"]) < len(report["calls"]) for row in rows
    }
    return sorted(rows, key=lambda row: (sparse[id(row)], _distance(row, best, figure)))


def _value(row: Row, calls: int, figure: str) -> float | None:
    cell = row["cells"].get(str(calls))
    return None if cell is None or "failed" in cell else float(cell[figure])


def _distance(row: Row, best: dict[int, float | None], figure: str) -> float:
    pairs = [(_value(row, n, figure), least) for n, least in best.items()]
    logs = [math.log(value / least) for value, least in pairs if value and least]
    return sum(logs) / len(logs)


class Column(NamedTuple):
    """The best of ours and the best of the peers in one column, with the range of their ratio over the seeds.

    `informed` is the figure of our best row that saves a call because it knows the data's standard deviation. No peer is told
    that, so such rows do not compete.
    """

    calls: int
    figure: str
    ours: Row
    peer: Row
    ratio: float
    low: float
    high: float
    informed: float | None

    @property
    def holds(self) -> bool:
        """Whether ours is as good as the peers' best, within the bar."""
        return self.ratio <= CLOSE


def _competes(rows: list[Row], calls: int, figure: str) -> list[Row]:
    """Return the rows with a figure; of RMS without flips only those with few flips, as leaving out most samples is no merit."""
    rows = [row for row in rows if _value(row, calls, figure)]
    if figure != "calm" or not rows:
        return rows
    cells = {id(row): row["cells"][str(calls)] for row in rows}
    most = 2 * min(cells.values(), key=lambda cell: float(cell["median"]))["flips"] + MORE_FLIPS
    return [row for row in rows if cells[id(row)]["flips"] <= most]


def columns(report: Row, bed: str, end: str, figure: str) -> Iterator[Column]:
    """Yield a verdict for each number of calls where both sides have a row."""
    rows = rows_of(report, bed, end)
    for calls in report["calls"]:
        able = _competes(rows, calls, figure)
        informed = [_value(row, calls, figure) or math.inf for row in able if INFORMED in row["name"]]
        able = [row for row in able if INFORMED not in row["name"]]
        sides = [[row for row in able if (row["package"] == OURS) is mine] for mine in (True, False)]
        if all(sides):
            ours, peer = (min(side, key=lambda r: _value(r, calls, figure) or math.inf) for side in sides)
            cells = [row["cells"][str(calls)] for row in (ours, peer)]
            ratio, *seeds = (a[figure] / b[figure] for a, b in zip(*([c, *c["seeds"]] for c in cells), strict=True))
            yield Column(calls, figure, ours, peer, ratio, min(seeds), max(seeds), min(informed, default=None))


def figures_of(report: Row, bed: str) -> tuple[str, ...]:
    """Return the figures that are comparable on this bed."""
    return ("rms",) if report["beds"][bed]["figure"] == "rms" else ("median", "calm")


# Page


def page(report: Row) -> str:
    """Return the report as Markdown."""
    lines = ["# Accuracy of samplers", "", *_introduction(report)]
    for bed in report["beds"]:
        lines += ["", f"## {bed}", "", f"![error against network calls](samplers_accuracy_{bed}.png)"]
        for end in ENDS:
            if rows_of(report, bed, end):
                lines += ["", f"### {bed}, ending at {AT[end]}", "", *_verdict_table(report, bed, end)]
                lines += ["", *_figure_table(report, bed, end)]
    head = (
        "Single-step, pseudo and other methods against their likes, ending at t_min; errors in the order of the names."
    )
    return "\n".join([*lines, "", "## What the tables say", "", head, "", *statements(report)]) + "\n"


def _introduction(report: Row) -> list[str]:
    about = report["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    doubts = "; ".join(f"{bed} {max(part['doubt'].values()):.1e}" for bed, part in report["beds"].items())
    found = [
        (bed, end, column)
        for bed in report["beds"]
        for end in ENDS
        for figure in figures_of(report, bed)
        for column in columns(report, bed, end, figure)
    ]
    lost = [
        f"{bed} to {AT[end]}, {FIGURES[c.figure]} at {c.calls} calls ({c.ratio:.3f} times {c.peer['package']} {c.peer['name']})"
        for bed, end, c in found
        if not c.holds
    ]
    return [
        "Written by `python benchmarks/samplers_accuracy.py`: exact denoisers, so that nothing but the sampler is wrong.",
        "",
        f"{about['date']}; Python {about['python']}, {versions}. float64, {PROCESS.describe()}, {about['samples']} start noises "
        f"for each of {about['seeds']} seeds, the same for all. The truth is DOP853 with tolerance {TIGHT:g}; a run with "
        f"{LOOSE:g} differs at most by: {doubts}.",
        "",
        "- *circle16*: 512 Gaussians of width 0.01 on a circle in two of 16 coordinates. *gmm2*, *gmm64*: 8 and 10 equally "
        "likely Gaussians at standard normal places in 2 and 64 dimensions, widths log-uniform from 0.05 to 0.3 (seed 0; "
        "`benchmarks/exact_beds.py`).",
        "- An error is the RMS over a sample's coordinates. On the mixtures a sample near the border of two components may end in "
        "the other one, and a few such flips decide a plain RMS. There the tables show the median, the RMS without samples that "
        f"are wrong by more than {about['flip']:g}, and the number of these. That cut is arbitrary; with few calls it also catches "
        "samples that are merely far off. A row with more flips has its worst samples left out, so that in this figure only rows "
        f"compete whose flips are at most twice those of the row with the best median, plus {MORE_FLIPS}.",
        f"- Each row is compared with the truth at its own end: {AT['t_min']}, or {AT['zero']}, where the last step starts at "
        f"{AT['t_min']} and has to guess. The two kinds of row do not compare.",
        "- One setting a row, for all beds and calls; an empty cell means that the sampler cannot use exactly that many calls. "
        "The best row of a column is picked after the fact, for both sides.",
        "- diffusers has float32 tables and is told integer steps; its DDIM and PNDM start at t = 1 only with `trailing`. azula's "
        "own grid is linear in time; the log-SNR grid was handed to it. Its REAB as shipped has a wrong factor, which the rows "
        "*with sigma_s* put right. Our rows *analytic first step* know the data's standard deviation and save a call with it; they "
        "stand in a column of their own and do not compete.",
        "- All rows are in `samplers_accuracy.json`; the tables show the best of each package.",
        "",
        f"In {len(found) - len(lost)} of {len(found)} columns our best row is at most {CLOSE - 1:.0%} worse than the peers' best."
        + (f" The others: {'; '.join(lost)}." if lost else ""),
    ]


def _verdict_table(report: Row, bed: str, end: str) -> list[str]:
    lines = [
        "| calls | figure | our best | | best of the peers | | ratio (range over seeds) | within 2 % | analytic first step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures_of(report, bed):
        for c in columns(report, bed, end, figure):
            ours, peer = (f"{row['cells'][str(c.calls)][figure]:.2e}" for row in (c.ours, c.peer))
            lines.append(
                f"| {c.calls} | {FIGURES[figure]} | {c.ours['name']} | {ours} | {c.peer['package']} {c.peer['name']} | {peer} "
                f"| {c.ratio:.3f} ({c.low:.3f} to {c.high:.3f}) | {'yes' if c.holds else '**no**'} "
                f"| {'' if c.informed is None else f'{c.informed:.2e} '}|"
            )
    return lines


def _figure_table(report: Row, bed: str, end: str) -> list[str]:
    calls, rows = report["calls"], rows_of(report, bed, end)
    about = "RMS" if figures_of(report, bed) == ("rms",) else "median / RMS without flips / flips"
    lines = [f"| {about}, at calls | " + " | ".join(map(str, calls)) + " |", "|---" * (len(calls) + 1) + "|"]
    shown = [row for package in PACKAGES for row in [r for r in rows if r["package"] == package][: SHOWN[package]]]
    return lines + [
        f"| {row['package']}: {row['name']} | " + " | ".join(_cell(row, n, about == "RMS") for n in calls) + " |"
        for row in shown
    ]


def _cell(row: Row, calls: int, plain: bool) -> str:
    cell = row["cells"].get(str(calls))
    if cell is None:
        return ""
    if "failed" in cell:
        return "not finite"
    return f"{cell['rms']:.1e}" if plain else f"{cell['median']:.1e} / {cell['calm']:.1e} / {cell['flips']}"


# Statements

_SINGLE = [
    (f"{name} on log_snr", "ddim on log_snr", n)
    for name in ("dpm_solver_2", "dpm_solver_pp_2s", "heun")
    for n in (10, 20)
]
_PSEUDO = [
    (f"{name} on log_snr", "rho_adams(order=4) on log_snr", n) for name in ("ipndm", "plms", "s_pndm") for n in (6, 50)
]
_REAB = [(f"REAB{k}, log_snr", f"REAB{k} with sigma_s, log_snr", 20) for k in (2, 3, 4)]
_ORDERS = ("ipndm on log_snr", "plms on log_snr", "rho_adams(order=4) on log_snr", "lam_adams(order=4) on log_snr")
_TO_SIGMA_MIN = "DPM++ 3M to sigma_min, default"


def statements(report: Row) -> list[str]:
    """Return a table of what is often said of samplers, each cell computed from the rows that end at ``t_min``."""
    beds = list(report["beds"])
    lines = ["| | " + " | ".join(f"{bed}, {FIGURES[report['beds'][bed]['figure']]}" for bed in beds) + " |"]
    lines.append("|---" * (len(beds) + 1) + "|")
    for package, pairs in ((OURS, _SINGLE + _PSEUDO), ("azula", _REAB)):
        for one, other, n in pairs:
            cells = [_against(_at(report, bed, package, one, n), _at(report, bed, package, other, n)) for bed in beds]
            lines.append(f"| {one} against {other}, {n} calls | " + " | ".join(cells) + " |")
    worse = [_against(*(_at(report, bed, "diffusers", _TO_SIGMA_MIN, n) for n in (15, 10))) for bed in beds]
    lines.append(f"| diffusers {_TO_SIGMA_MIN}, 15 calls against itself at 10 | " + " | ".join(worse) + " |")
    for name in _ORDERS:
        slopes = [_slope(*(_at(report, bed, OURS, name, n) for n in (20, 50))) for bed in beds]
        lines.append(f"| order of {name}, seen from 20 to 50 calls | " + " | ".join(slopes) + " |")
    return lines


def _at(report: Row, bed: str, package: str, name: str, calls: int) -> float | None:
    row = report["beds"][bed]["rows"].get(f"{package} | {name} | t_min")
    return None if row is None else _value(row, calls, report["beds"][bed]["figure"])


def _against(one: float | None, other: float | None) -> str:
    if not one or not other:
        return ""
    return f"{'better' if one < other else 'worse'}: {one:.1e}, {other:.1e}"


def _slope(few: float | None, many: float | None) -> str:
    return f"{math.log(few / many) / math.log(50 / 20):.1f}" if few and many else ""


# Picture


def picture(report: Row, bed: str) -> Figure:
    """Return error against calls for both ends: the three best of ours and the two best of each peer."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(13, 5), layout="constrained")
    for axes, end in zip(drawing.subplots(1, 2), ENDS, strict=True):
        _draw(axes, report, bed, end)
    figure = FIGURES[report["beds"][bed]["figure"]]
    drawing.suptitle(f"{bed}: {figure} error against network calls, the best three of ours and two of each peer")
    return drawing


def _draw(axes: Axes, report: Row, bed: str, end: str) -> None:
    figure, rows = report["beds"][bed]["figure"], rows_of(report, bed, end)
    labels = []
    for package in reversed(PACKAGES):
        chosen = [row for row in rows if row["package"] == package and INFORMED not in row["name"]]
        short = "" if package == OURS else f"{package} "
        for row in chosen[: 3 if package == OURS else 2]:
            points = [(n, value) for n in report["calls"] if (value := _value(row, n, figure))]
            axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[package], lw=1.4, ms=3)
            labels.append((points[-1][1], short + row["name"], COLOURS[package]))
    axes.set(xscale="log", yscale="log", xlabel="network calls", ylabel=FIGURES[figure], title=f"ending at {AT[end]}")
    axes.set_xticks(report["calls"], [str(n) for n in report["calls"]], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _label(axes, labels, max(report["calls"]))


def _label(axes: Axes, labels: list[tuple[float, str, str]], last: int) -> None:
    """Write each line's name to the right of its end, moved down where two would overlap."""
    low, high = (math.log(v) for v in axes.get_ylim())
    gap, height = (high - low) / 22, math.inf
    for value, name, colour in sorted(labels, reverse=True):
        height = min(math.log(value), height - gap)
        axes.annotate(
            name, (last, value), (last * 1.2, math.exp(height)), color=colour, fontsize=7, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set_xlim(right=last * 40)
    axes.set_ylim(math.exp(min(low, height - gap)), math.exp(high))


def as_json(report: Row) -> str:
    """Return the report with one row a line: ``[rms, median, RMS without flips, flips]`` for each number of calls."""
    parts = []
    for bed, part in report["beds"].items():
        rows = [f"   {json.dumps(key)}: {json.dumps(_figures(row))}" for key, row in part["rows"].items()]
        doubt = json.dumps(part["doubt"])
        parts.append(
            f'  {json.dumps(bed)}: {{"figure": "{part["figure"]}", "doubt": {doubt}, "rows": {{\n'
            + ",\n".join(rows)
            + "\n  }}"
        )
    head = f' "facts": {json.dumps(report["facts"])},\n "calls": {json.dumps(report["calls"])},\n'
    return "{\n" + head + ' "beds": {\n' + ",\n".join(parts) + "\n }\n}\n"


def _figures(row: Row) -> dict[str, list[float] | None]:
    return {
        calls: None if "failed" in cell else [cell["rms"], cell["median"], cell["calm"], cell["flips"]]
        for calls, cell in row["cells"].items()
    }
