"""Tuner by tuner: what a better table gains at equal calls, on noises that nothing was fitted or chosen on.

    python benchmarks/tuners.py [--quick] [--stored] [--only BED] [--calls 4,5,6,8,10] [--rows GITS,LD3] [--seeds 5]

Beds, all in float64 but the last: smooth mixture (8-D, wide components), sharp mixture (the same means, width 0.1), circle (512
narrow components in 16-D), perturbed mixture (the smooth one with a smooth error of at most 0.1), Fashion-MNIST (bundled model).
EDM process, runs from 80 to 0.002, or to 0 for images. Each row is a tuner on the base plan its paper starts from: DDIM,
DPM-Solver++ 2M or UniPC-2, on Karras's grid, or on the log-SNR grid for DPM-Solver-v3. Each cell has 64 training, 64 validation and
256 held-out noises of its seed, and a teacher of 100 Heun steps. Shown are root mean square, median and share of errors above 0.25
(basin flips), and the ratios to the base; the last row is the best of the shortlist's classical plans, chosen on validation noises.

Cells are kept in ``runs/tuners``; those of ``docs/benchmarks/tuners.json`` are not run again. `--quick`: smooth mixture, 3
seeds, 5, 8 and 10 calls; writes its own table ``tuners_quick``. Otherwise writes ``docs/benchmarks/tuners.json`` and ``.md``.
`--stored` runs nothing: it writes the page of the cells that are there, and says which beds are missing.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from isocline._core import files
from isocline._core.errors import IsoclineError
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.models import bundled
from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.grids.span import End
from isocline.plans.tuners import (
    DODE,
    DSS,
    GITS,
    IIA,
    LD3,
    S3,
    Bespoke,
    Calibration,
    ConstantNoise,
    DCSolver,
    DPMSolverV3,
    EndToEnd,
    Free,
    Measured,
    OptimalSteps,
    TeacherState,
    TimeAligner,
    draw_noises,
    measure,
)
from isocline.processes import EDM, Denoiser, GaussianMixture, PerturbedDenoiser
from isocline.recipes.quickstart import SHAPE, labels
from isocline.recipes.shortlist import SHORTLIST
from isocline.recipes.train import load_image_model
from isocline.recipes.tune import best_classical, heun_teacher

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/tuners")
PROCESS, FLIP = EDM(), 0.25


class Bed(NamedTuple):
    """A model, the shape of its data, where runs end, their precision and the labels."""

    build: Callable[[], Denoiser]
    shape: tuple[int, ...]
    end: End = "t_min"
    dtype: torch.dtype = torch.float64
    cond: Any = None


def smooth() -> GaussianMixture:
    return GaussianMixture.smooth_bed(PROCESS)


def sharp() -> GaussianMixture:
    model = smooth()
    return GaussianMixture(PROCESS, model.means / 0.6, torch.full_like(model.stds, 0.1), model.weights)


BEDS = {
    "smooth mixture": Bed(smooth, (8,)),
    "sharp mixture": Bed(sharp, (8,)),
    "circle": Bed(lambda: GaussianMixture.circle_bed(PROCESS), (16,)),
    "perturbed mixture": Bed(lambda: PerturbedDenoiser(smooth(), 0.1, 0), (8,)),
    "Fashion-MNIST": Bed(lambda: load_image_model(bundled("fashion")), SHAPE, "zero", torch.float32, labels),
}
DDIM = Candidate(solvers.ddim, grids.karras)
TWO_M = Candidate(solvers.dpm_solver_pp_2m, grids.karras)
UNIPC = Candidate(solvers.unipc, grids.karras, {"order": 2})
LOG_2M = Candidate(solvers.dpm_solver_pp_2m, grids.log_snr)
LOG_DDIM = Candidate(solvers.ddim, grids.log_snr)
MIDPOINT = Candidate(solvers.dpm_solver_2, grids.karras)


class Row(NamedTuple):
    """A tuner on a base plan."""

    name: str
    base: Candidate
    tuner: Any


ROWS = (
    Row("GITS", DDIM, GITS()),
    Row("OptimalSteps", DDIM, OptimalSteps()),
    Row("OptimalSteps, free start", DDIM, OptimalSteps(free_start=True)),
    Row("GITS", TWO_M, GITS()),
    Row("OptimalSteps", TWO_M, OptimalSteps()),
    Row("IIA, fixed carry", TWO_M, IIA(free_carry=False)),
    Row("IIA, free carry", TWO_M, IIA()),
    Row("D-ODE", DDIM, DODE()),
    Row("D-ODE", TWO_M, DODE()),
    Row("DC-Solver", UNIPC, DCSolver()),
    Row("DPM-Solver-v3, order 1", LOG_DDIM, DPMSolverV3(order=1)),
    Row("DPM-Solver-v3, order 2", LOG_2M, DPMSolverV3(order=2)),
    Row("time aligner, noise", TWO_M, TimeAligner(objective=ConstantNoise())),
    Row("time aligner, teacher", TWO_M, TimeAligner(objective=TeacherState())),
    Row("LD3, times", TWO_M, LD3(both_rounds=0)),
    Row("LD3", TWO_M, LD3()),
    Row("DSS", TWO_M, DSS()),
    Row("Bespoke RK2", MIDPOINT, Bespoke()),
    Row("S3, 400 schedules", TWO_M, S3(evaluations=400)),
    Row("end to end, times and model times", TWO_M, EndToEnd(free=Free(weights=False))),
    Row("end to end", TWO_M, EndToEnd()),
)
CLASSICAL, QUICK = "best classical plan", "smooth mixture"


def bar(calls: int) -> dict[tuple[str, str], float]:
    """Return the bars on the smooth mixture at 10 calls: tuner, base solver -> largest ratio of the RMS."""
    return (
        {
            ("LD3, times", "dpm_solver_pp_2m"): 0.35,
            ("LD3", "dpm_solver_pp_2m"): 0.2,
            ("DSS", "dpm_solver_pp_2m"): 0.35,
            ("IIA, free carry", "dpm_solver_pp_2m"): 0.8,
            ("D-ODE", "dpm_solver_pp_2m"): 0.9,
            ("GITS", "ddim"): 0.8,
            ("OptimalSteps", "ddim"): 0.6,
            ("DPM-Solver-v3, order 2", "dpm_solver_pp_2m"): 0.7,
        }
        if calls == 10
        else {}
    )


@cache
def prepared(bed: str, seed: int) -> tuple[Denoiser, Calibration]:
    """Return a bed's model and the noises of a seed with the teacher's results."""
    found = BEDS[bed]
    model = found.build()
    teacher = heun_teacher(model, end=found.end)
    stream = Stream(seed, f"tuners {bed}")
    return model, draw_noises(teacher, model, found.shape, (64, 64, 256), stream, cond=found.cond, dtype=found.dtype)


def one_cell(bed: str, row: Row, calls: int, seed: int) -> dict[str, Any]:
    """Tune once and measure on held-out noises; a tuner that does not fit says why."""
    model, calibration = prepared(bed, seed)
    try:
        base = row.base.compile(model.process, calls, BEDS[bed].end).for_guidance(model.guidance)
        tuned = row.tuner.fit(base, model, calibration, Stream(seed, row.name))
    except IsoclineError as error:
        return {"reason": str(error)}
    return {
        "base": figures(measure(base, model, calibration.held_out)),
        "tuned": figures(measure(tuned.plan, model, calibration.held_out)),
        "calls": tuned.cost.calls,
        "seconds": tuned.cost.seconds,
    }


def classical_cell(bed: str, calls: int, seed: int) -> dict[str, Any]:
    model, calibration = prepared(bed, seed)
    began = time.monotonic()
    chosen = best_classical(model, calibration, calls, BEDS[bed].end, SHORTLIST)
    plan = chosen.compile(model.process, calls, BEDS[bed].end).for_guidance(model.guidance)
    found = figures(measure(plan, model, calibration.held_out))
    return {"base": found, "tuned": found, "calls": 0, "seconds": time.monotonic() - began, "name": chosen.name}


def figures(found: Measured) -> dict[str, float]:
    errors = found.errors
    return {"rms": found.rms(), "median": float(errors.median()), "flips": float((errors > FLIP).double().mean())}


def label(row: Row | None) -> str:
    return CLASSICAL if row is None else f"{row.name}, on {row.base.solver.__name__}"


def place_of(bed: str, name: str, calls: int, seed: int) -> Path:
    return RUNS / (re.sub(r"[^a-z0-9]+", "-", f"{bed} {name} {calls} {seed}".lower()) + ".json")


def unpack(table: Path) -> None:
    """Put the cells of a stored table where cells are kept."""
    for c in files.read_json(table)["cells"] if table.exists() else ():
        place = place_of(c["bed"], c["row"], c["at"], c["seed"])
        if not place.exists():
            files.write_json(place, c)


def kept(bed: str, row: Row | None, calls: int, seed: int) -> dict[str, Any]:
    """Return a cell, from the store where it is there."""
    place = place_of(bed, label(row), calls, seed)
    if not place.exists():
        found = classical_cell(bed, calls, seed) if row is None else one_cell(bed, row, calls, seed)
        files.write_json(place, {"bed": bed, "row": label(row), "at": calls, "seed": seed, **found})
        print(f"{bed:18} {label(row):48} {calls:3} calls, seed {seed}: {said(found)}", flush=True)
    return files.read_json(place)


def said(found: dict[str, Any]) -> str:
    if "reason" in found:
        return f"skipped: {found['reason']}"
    base, tuned = found["base"], found["tuned"]
    ratios = ", ".join(f"{key} {tuned[key]:.4f} ({tuned[key] / base[key]:.2f})" for key in ("rms", "median"))
    return f"{ratios}, {found['seconds']:.1f} s"


def geometric(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(bed: str, calls: int, cells: list[dict[str, Any]]) -> list[str]:
    """Return one bed at one number of calls as Markdown; ratios are geometric means over seeds with their range."""
    lines = [
        "| tuner, on base | RMS | median | flips | RMS / base | median / base | calls | seconds |",
        "|---" * 8 + "|",
    ]
    for name in dict.fromkeys(c["row"] for c in cells):
        mine = [c for c in cells if c["row"] == name]
        skipped = [c["reason"] for c in mine if "reason" in c]
        if skipped:
            lines.append(f"| {name} | {skipped[0]} |" + " |" * 6)
            continue
        columns = [
            f"{sum(c['tuned'][key] for c in mine) / len(mine):.4f}"
            if key != "flips"
            else f"{100 * sum(c['tuned'][key] for c in mine) / len(mine):.1f} %"
            for key in ("rms", "median", "flips")
        ]
        for key in ("rms", "median"):
            ratios = [c["tuned"][key] / c["base"][key] for c in mine]
            columns.append(f"{geometric(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        columns += [f"{sum(c[key] for c in mine) / len(mine):.0f}" for key in ("calls", "seconds")]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def verdicts(calls: int, cells: list[dict[str, Any]]) -> list[str]:
    """Return a line for each bar, by the geometric mean of the RMS ratio over seeds."""
    said = []
    for (name, solver), limit in bar(calls).items():
        mine = [c for c in cells if c["row"] == f"{name}, on {solver}" and "reason" not in c]
        if mine:
            ratios = [c["tuned"]["rms"] / c["base"]["rms"] for c in mine]
            mean = geometric(ratios)
            held = sum(r <= limit for r in ratios)
            said.append(
                f"- {name} on {solver}: {mean:.2f}, bar {limit}: {'holds' if mean <= limit else 'fails'}, "
                f"in {held} of {len(ratios)} seeds"
            )
    return said


def summary(cells: list[dict[str, Any]], key: str) -> list[str]:
    """Return a row for each tuner: ratios to its base and to the best classical plan, over all calls and seeds of each bed."""
    beds = list(dict.fromkeys(c["bed"] for c in cells))
    best = {(c["bed"], c["at"], c["seed"]): c["tuned"][key] for c in cells if c["row"] == CLASSICAL}
    lines = [f"| {key}; tuner, on base | {' | '.join(beds)} | ahead in |", "|---" * (len(beds) + 2) + "|"]
    for name in dict.fromkeys(c["row"] for c in cells if c["row"] != CLASSICAL):
        columns, ahead = [], list[bool]()
        for bed in beds:
            mine = [c for c in cells if c["bed"] == bed and c["row"] == name and "tuned" in c]
            base = [c["tuned"][key] / c["base"][key] for c in mine]
            classical = [c["tuned"][key] / best[place] for c in mine if (place := (bed, c["at"], c["seed"])) in best]
            columns.append(
                f"{geometric(base):.2f}, {geometric(classical):.2f}"
                if base and classical
                else lacking(cells, bed, name)
            )
            ahead += [ratio < 1 for ratio in classical]
        columns.append(f"{sum(ahead)} of {len(ahead)}")
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def lacking(cells: Sequence[dict[str, Any]], bed: str, name: str) -> str:
    """Say why a row has no figure on a bed."""
    return "does not fit" if any(c["bed"] == bed and c["row"] == name for c in cells) else "not measured"


def fewer(bed: str, cells: Sequence[dict[str, Any]], given: dict[str, Any]) -> list[str]:
    """Say which cells of a bed are missing, a line for each kind."""
    mine = [c for c in cells if c["bed"] == bed]
    if not mine:
        return [f"- {bed}: not measured"]
    seeds, rows = {c["seed"] for c in mine}, dict[tuple[int, ...], list[str]]()
    for row in (*ROWS, None):
        at = {c["at"] for c in mine if c["row"] == label(row)}
        rows.setdefault(tuple(n for n in given["calls"] if n in at), []).append(label(row))
    lines = [f"- {bed}: {len(seeds)} of {given['seeds']} seeds"] if len(seeds) < given["seeds"] else []
    for at, names in rows.items():
        where = f"at {', '.join(map(str, at))} calls only" if at else "not measured"
        lines += [f"- {bed}, {where}: {'; '.join(names)}"] if at != tuple(given["calls"]) else []
    return lines


def page(result: dict[str, Any]) -> str:
    given, versions = result["settings"], result["versions"]
    lines = [
        "# Tuners",
        "",
        f"Written by `python benchmarks/tuners.py{' --quick' if given['quick'] else ''}`; isocline {versions['isocline']}, torch "
        f"{versions['torch']}. {given['seeds']} seeds, 256 held-out noises each; ratios to the base plan are geometric means over "
        "seeds with their range. *Calls*: network calls for each noise of a batch that tuning took, the teacher's end points not "
        "counted.",
    ]
    beds = [QUICK] if given["quick"] else list(BEDS)
    notes = [line for bed in beds for line in fewer(bed, result["cells"], given)]
    lines += ["", "What is missing:", "", *notes] if notes else []
    if not given["quick"]:
        lines += [
            "",
            "## All calls together",
            "",
            "Each pair: the ratio to the base plan, then the ratio to the best classical plan of the shortlist at the same calls; "
            "below 1 is better; geometric means over calls and seeds. Last: in how many cells it is ahead of that classical plan.",
        ]
        for key in ("median", "rms"):
            lines += ["", *summary(result["cells"], key)]
    for bed in dict.fromkeys(c["bed"] for c in result["cells"]):
        for calls in given["calls"]:
            cells = [c for c in result["cells"] if c["bed"] == bed and c["at"] == calls]
            if not cells:
                continue
            lines += ["", f"## {bed}, {calls} calls", "", *table(bed, calls, cells)]
            if bed == QUICK:
                lines += ["", *verdicts(calls, cells)]
    return "\n".join(lines) + "\n"


def stored(budgets: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """Return the cells that are there, in the order of the page."""
    names = [label(row) for row in (*ROWS, None)]
    found = [files.read_json(place) for place in RUNS.glob("*.json")]
    found = [c for c in found if c["row"] in names and c["at"] in budgets and c["seed"] < seeds]
    return sorted(found, key=lambda c: (list(BEDS).index(c["bed"]), c["at"], names.index(c["row"]), c["seed"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smooth mixture, 3 seeds, 5, 8 and 10 calls")
    parser.add_argument("--stored", action="store_true", help="write the page of the cells that are there")
    parser.add_argument("--only", choices=list(BEDS))
    parser.add_argument("--calls", default="4,5,6,8,10")
    parser.add_argument(
        "--rows", default="", help="how the names of rows start, with commas; all where nothing is said"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.quick:
        given.only, given.seeds, given.calls = QUICK, 3, "5,8,10"
    budgets = [int(n) for n in given.calls.split(",")]
    files.ensure_folder(RUNS)
    unpack(given.out / "tuners.json")
    cells = (
        stored(budgets, given.seeds)
        if given.stored
        else [
            kept(bed, row, calls, seed)
            for bed in ([given.only] if given.only else BEDS)
            for seed in range(given.seeds)
            for calls in budgets
            for row in (*ROWS, None)
            if label(row).startswith(tuple(given.rows.split(",")))
        ]
    )
    result = {
        "settings": {"quick": given.quick, "seeds": given.seeds, "calls": budgets},
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "cells": cells,
    }
    print(page(result))
    if given.quick or not (given.only or given.rows):
        name = "tuners_quick" if given.quick else "tuners"
        files.write_json(given.out / f"{name}.json", result)
        files.write_text(given.out / f"{name}.md", page(result))


if __name__ == "__main__":
    main()
