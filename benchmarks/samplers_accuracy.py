"""How far each sampler's end states are from the truth, beside the peers', for the same number of network calls.

    PYTHONPATH=src python benchmarks/samplers_accuracy.py [--quick | --full] [--cache FOLDER] [--again TEXT]

Exact problems in float64: the 16-dimensional circle and Gaussian mixtures in 2 and 64 dimensions, variance preserving with the
usual linear rate. All start from the same fresh noises, 1024 for each of 3 seeds; each row is compared with the ODE's solution at
its own end point. A row is one solver with one setting for all beds and all numbers of calls. Every finished row is written to the
cache, so that a stopped run goes on where it was; ``--again TEXT`` forgets the rows whose name holds TEXT, after their code has
changed. Writes ``docs/benchmarks/samplers_accuracy.md`` and ``.json`` and its pictures.

Peers that are not installed are left out with a note; see ``benchmarks/requirements.txt``.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import accuracy_page, our_samplers, peer_samplers
from benchmarks.contenders import OURS, Contender, checked_run
from benchmarks.exact_beds import BEDS, Bed, Problem, problem
from isocline._core import files
from isocline._core.errors import NotFinite

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "benchmarks"
CALLS = (5, 6, 8, 10, 15, 20, 50)
ALSO_OURS = (4, 12)  # for the page that says which of our samplers to take
SAMPLES, SEEDS = 1024, 3
FLIP = 0.3  # an arbitrary cut: a sample this wrong has mostly ended in another component


def figures(errors: Tensor) -> dict[str, float]:
    """Return RMS, median, RMS without flips, and the number of flips, of per-sample errors (N,)."""
    calm = errors[errors <= FLIP]
    return {
        "rms": _short(errors.square().mean().sqrt()),
        "median": _short(errors.median()),
        "calm": _short(calm.square().mean().sqrt()) if len(calm) else _short(errors.square().mean().sqrt()),
        "flips": len(errors) - len(calm),
    }


def _short(value: Tensor) -> float:
    return float(f"{float(value):.4g}")


def cell(contender: Contender, task: Problem, calls: int) -> dict[str, Any] | None:
    """Return the figures of all samples and of each seed; None where the sampler cannot use exactly so many calls."""
    try:
        x = checked_run(contender, task.bed, task.start, calls)
    except NotFinite:
        return {"failed": True}
    if x is None:
        return None
    errors = task.errors(x, contender.end)
    if not bool(torch.isfinite(errors).all()):
        return {"failed": True}
    return {**figures(errors), "seeds": [figures(part) for part in errors.chunk(task.seeds)]}


def measure(contender: Contender, task: Problem, calls: Sequence[int]) -> dict[str, Any]:
    return {str(n): found for n in calls if (found := cell(contender, task, n)) is not None}


def row_path(cache: Path, bed: Bed, contender: Contender) -> Path:
    return cache / "rows" / bed.name / (re.sub(r"[^\w.=()-]+", "_", contender.key) + ".json")


def run_bed(bed: Bed, rows: list[Contender], given: argparse.Namespace) -> dict[str, Any]:
    """Return all rows of a bed, from the cache where they are stored."""
    task, found = problem(bed, given.samples, given.seeds, given.cache), {}
    for index, row in enumerate(rows):
        calls = sorted({*given.calls, *(given.also if row.package == OURS else ())})
        path = row_path(given.cache, bed, row)
        stored = files.read_json(path) if path.exists() and not given.quick else None
        if stored is None or stored["calls"] != calls:
            began = time.monotonic()
            stored = {"calls": calls, "cells": measure(row, task, calls)}
            if not given.quick:
                files.write_json(path, stored)
            print(f"{bed.name} {index + 1}/{len(rows)} {row.key} {time.monotonic() - began:.1f} s", file=sys.stderr)
        found[row.key] = {"package": row.package, "name": row.name, "end": row.end, "cells": stored["cells"]}
    return {"figure": bed.figure, "std": bed.std, "doubt": task.doubt, "rows": found}


def contenders() -> list[Contender]:
    """Return all rows, the peers' first."""
    rows = peer_samplers.contenders() + our_samplers.contenders()
    repeated = len(rows) - len({row.key for row in rows})
    if repeated:
        raise RuntimeError(f"{repeated} rows share their name with another")
    for name in our_samplers.not_listed():
        print(f"left out: isocline's {name}, which benchmarks/our_samplers.py does not list", file=sys.stderr)
    return rows


def forget(cache: Path, text: str) -> None:
    """Delete the stored rows whose key holds `text`."""
    for path in (cache / "rows").glob("*/*.json"):
        if re.sub(r"[^\w.=()-]+", "_", text) in path.name:
            path.unlink()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="the circle, 1 seed, 256 noises, 5 and 10 calls; writes no files"
    )
    size.add_argument("--full", action="store_true", help="everything; the default")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "samplers_accuracy", help="folder of finished rows"
    )
    parser.add_argument("--again", action="append", default=[], metavar="TEXT", help="measure rows named so again")
    parser.add_argument("--beds", nargs="+", default=[bed.name for bed in BEDS])
    given = parser.parse_args()
    given.samples, given.seeds, given.calls, given.also = SAMPLES, SEEDS, CALLS, ALSO_OURS
    if given.quick:
        given.samples, given.seeds, given.calls, given.also, given.beds = 256, 1, (5, 10), (), ["circle16"]
    return given


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)  # many small matrices
    for text in given.again:
        forget(given.cache, text)
    rows = contenders()
    beds = {bed.name: run_bed(bed, rows, given) for bed in BEDS if bed.name in given.beds}
    report = {"facts": accuracy_page.facts(given.samples, given.seeds, FLIP), "calls": list(given.calls), "beds": beds}
    text = accuracy_page.page(report)
    print(text)
    if given.quick or len(beds) < len(BEDS):
        return
    files.write_text(OUT / "samplers_accuracy.json", accuracy_page.as_json(report))
    for name in beds:
        accuracy_page.picture(report, name).savefig(OUT / f"samplers_accuracy_{name}.png", dpi=110)
    files.write_text(OUT / "samplers_accuracy.md", text)


if __name__ == "__main__":
    main()
