"""GITS and OptimalSteps of isocline beside the authors' own code, on the same models and judged on the same held-out noises.

    git clone https://github.com/zju-pi/diff-sampler build/repositories/diff-sampler
    git clone https://github.com/bebebe666/OptimalSteps build/repositories/OptimalSteps
    python benchmarks/research_code.py [FOLDER] [--quick] [--seeds 5] [--calls 5,6,8,10]

Every search is run as its repository sets it (see `authors_code.py`, which runs in processes of its own) or with isocline's
defaults; OptimalSteps of isocline also on as fine a grid as the authors'. The times found are put under DDIM and under DPM-Solver++
2M; what is compared is the distance to 100 Heun steps, from the same 256 held-out noises. The published OptimalSteps may leave out
the first part of the path and take the start noise for the state there, a first step without a call; it is run so, and beside it
`OptimalSteps(free_start=True)`, and GITS with one step more and an analytic first step (GENIE), which has as many calls.

It also puts the cost matrix of the published GITS through isocline's dynamic programming and counts equal schedules.

`--quick`: smooth mixture, 1 seed; prints, writes no page. Otherwise cells are kept in ``runs/research_code`` and the page is
``docs/benchmarks/research_code.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from portfolio import slug
from tuners import BEDS, DDIM, TWO_M, figures, geometric, prepared

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.plans import Plan, analytic_first_step, free_start
from isocline.plans.candidate import Candidate
from isocline.plans.tuners import GITS, Calibration, OptimalSteps, measure
from isocline.plans.tuners.gits import shortest_path
from isocline.processes import Denoiser

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/research_code")
EXACT = [bed for bed in BEDS if BEDS[bed].cond is None]
REPOSITORIES = {"GITS": "diff-sampler", "OptimalSteps": "OptimalSteps"}
STUDENTS = (DDIM, TWO_M)
OURS = {
    "GITS, isocline": (GITS(), False),
    "GITS, isocline, analytic first step": (GITS(), True),
    "OptimalSteps, isocline": (OptimalSteps(), False),
    "OptimalSteps, isocline, 200 nodes": (OptimalSteps(nodes=200), False),
    "OptimalSteps, isocline, free start": (OptimalSteps(free_start=True), False),
    "OptimalSteps, isocline, free start, 200 nodes": (OptimalSteps(nodes=200, free_start=True), False),
}
LIMIT = 1800  # seconds of one process


def authors(folder: Path, method: str, bed: str, budgets: list[int], seed: int) -> list[dict[str, Any]]:
    """Return what the authors' code finds for each number of calls."""
    given = ["--method", method, "--bed", bed, "--calls", ",".join(map(str, budgets)), "--seed", str(seed)]
    command = [
        sys.executable,
        "-c",
        "from authors_code import main; main()",
        str(folder / REPOSITORIES[method]),
        *given,
    ]
    where = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, env=where)
    if done.returncode:
        raise SystemExit(f"{REPOSITORIES[method]} stopped: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def on_times(student: Candidate, model: Denoiser, times: list[float]) -> Plan:
    """Return a student on the authors' times, in float32 for GITS, between the bed's ends; a late start is reached for nothing."""
    process = model.process
    nodes = torch.tensor([*times[:-1], float(process.t_min)], dtype=torch.float64)
    late = abs(float(nodes[0]) / float(process.t_max) - 1) > 1e-4
    nodes[0] = nodes[0] if late else process.t_max
    plan = student.solver(process, nodes, **student.solver_settings)
    return free_start(plan, process.t_max) if late else plan


def commit(repository: Path) -> str:
    """Return the commit of a repository, shortened."""
    command = ["git", "-C", str(repository), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def cells_of(folder: Path, bed: str, budgets: list[int], seed: int) -> Iterator[dict[str, Any]]:
    """Yield a cell for each method, number of calls and student."""
    model, calibration = prepared(bed, seed)
    bases = {
        (student.solver.__name__, calls): figures(
            measure(student.compile(model.process, calls, BEDS[bed].end), model, calibration.held_out)
        )
        for student in STUDENTS
        for calls in budgets
    }
    for c in (*theirs(folder, bed, budgets, seed), *ours(bed, budgets, seed)):
        yield c | {"base": bases[c["student"], c["at"]]}


def theirs(folder: Path, bed: str, budgets: list[int], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the cells of the authors' code; those of GITS say whether isocline finds the same path through the same costs."""
    model, calibration = prepared(bed, seed)
    for method in REPOSITORIES:
        for found in authors(folder, method, bed, budgets, seed):
            costs = torch.tensor(found.pop("costs", []), dtype=torch.float64)
            path = found.pop("path", None)
            same = path == forward_path(costs, found["at"]) if path else None
            for student in STUDENTS:
                tuned = figures(measure(on_times(student, model, found["times"]), model, calibration.held_out))
                name = student.solver.__name__
                yield found | {"row": f"{method}, authors", "student": name, "same_path": same, "tuned": tuned}


def ours(bed: str, budgets: list[int], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the cells of isocline."""
    model, calibration = prepared(bed, seed)
    for (row, (tuner, free)), calls, student in product(OURS.items(), budgets, STUDENTS):
        began = time.process_time()
        base = student.compile(model.process, calls + free, BEDS[bed].end)
        tuned = tuner.fit(base, model, calibration, Stream(seed, row))
        plan = analytic_first_step(tuned.plan, spread(calibration)) if free else tuned.plan
        assert plan.calls == calls
        yield {
            "row": row,
            "at": calls,
            "student": student.solver.__name__,
            "times": plan.times.tolist(),
            "calls": tuned.cost.calls,
            "noises": len(calibration.train),
            "seconds": time.process_time() - began,
            "tuned": figures(measure(plan, model, calibration.held_out)),
        }


def spread(calibration: Calibration) -> float:
    """Return the standard deviation of the teacher's training results about zero."""
    return float(calibration.train.target.square().mean().sqrt())


def forward_path(costs: torch.Tensor, steps: int) -> list[int]:
    """Return isocline's path through the authors' costs, which hold zeros where no step leads."""
    later = torch.ones_like(costs).triu(1).bool()
    return shortest_path(costs.where(later, torch.inf), steps, 1.15)


def kept(folder: Path, bed: str, budgets: list[int], seed: int) -> list[dict[str, Any]]:
    """Return the cells of a bed and a seed, from the store where they are there."""
    place = RUNS / f"{slug(bed, seed, *budgets)}.json"
    if not place.exists():
        files.write_json(place, [{"bed": bed, "seed": seed, **c} for c in cells_of(folder, bed, budgets, seed)])
        print(f"{bed}, seed {seed}: done", flush=True)
    return files.read_json(place)


def table(cells: list[dict[str, Any]], student: str, key: str) -> list[str]:
    """Return a row for each method and a column for each bed: error over that of the base, by calls and seeds."""
    mine = [c for c in cells if c["student"] == student]
    beds = list(dict.fromkeys(c["bed"] for c in mine))
    lines = [f"| {key}, {student} | {' | '.join(beds)} |", "|---" * (len(beds) + 1) + "|"]
    for row in dict.fromkeys(c["row"] for c in mine):
        columns = []
        for bed in beds:
            ratios = [c["tuned"][key] / c["base"][key] for c in mine if c["row"] == row and c["bed"] == bed]
            columns.append(f"{geometric(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        lines.append(f"| {row} | {' | '.join(columns)} |")
    return lines


def costs(cells: list[dict[str, Any]]) -> list[str]:
    """Return what the searches cost."""
    lines = ["| search | noises | calls for each | processor seconds |", "|---" * 4 + "|"]
    for row in dict.fromkeys(c["row"] for c in cells):
        mine = [c for c in cells if c["row"] == row]
        middle = {key: sorted(c[key] for c in mine)[len(mine) // 2] for key in ("noises", "calls", "seconds")}
        lines.append(f"| {row} | {middle['noises']} | {middle['calls']:.0f} | {middle['seconds']:.1f} |")
    return lines


def page(result: dict[str, Any]) -> str:
    cells, versions = result["cells"], result["versions"]
    commits = " and ".join(f"{name} at {at}" for name, at in result["commits"].items())
    given = result["settings"]
    paths = [c["same_path"] for c in cells if c.get("same_path") is not None and c["student"] == "ddim"]
    lines = [
        "# Beside the authors' code",
        "",
        f"Written by `python benchmarks/research_code.py`; isocline {versions['isocline']}, torch {versions['torch']}; {commits}. "
        f"{given['seeds']} seeds; {', '.join(map(str, given['calls']))} calls. Error of the student on "
        "the times found over its error on the Karras grid: geometric mean over calls and seeds, with the range; below 1 is "
        "better. Each search as its repository sets it, or as isocline does. Those of isocline return the base where nothing beats "
        "it on validation noises; those of the authors do not look.",
    ]
    for student in dict.fromkeys(c["student"] for c in cells):
        for key in ("median", "rms"):
            lines += ["", *table(cells, student, key)]
    lines += [
        "",
        "## Cost",
        "",
        "Medians over all cells. Calls of the search's own teacher are counted.",
        "",
        *costs(cells),
        "",
        "## The same costs, the same schedule",
        "",
        f"Isocline's dynamic programming found the authors' schedule from the authors' cost matrix in {sum(paths)} of "
        f"{len(paths)} searches of GITS.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("build/repositories"), help="holds the repositories"
    )
    parser.add_argument("--quick", action="store_true", help="smooth mixture, 1 seed; prints, writes no page")
    parser.add_argument("--calls", default="5,6,8,10")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    budgets, beds = [int(n) for n in given.calls.split(",")], EXACT[:1] if given.quick else EXACT
    seeds = 1 if given.quick else given.seeds
    missing = [name for name in REPOSITORIES.values() if not (given.folder / name).is_dir()]
    if missing:
        print(
            f"left out: {given.folder} has no {' and no '.join(missing)}; the first lines of this script say how to get them"
        )
        return
    files.ensure_folder(RUNS)
    cells = [c for seed in range(seeds) for bed in beds for c in kept(given.folder, bed, budgets, seed)]
    result = {
        "settings": {"seeds": seeds, "calls": budgets},
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "commits": {name: commit(given.folder / name) for name in REPOSITORIES.values()},
        "cells": cells,
    }
    print(page(result))
    if not given.quick:
        files.write_json(given.out / "research_code.json", result)
        files.write_text(given.out / "research_code.md", page(result))


if __name__ == "__main__":
    main()
