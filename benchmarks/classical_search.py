"""The full search over classical plans that justifies the shortlist of `isocline tune`.

    python benchmarks/classical_search.py [--quick]

Every solver and order on every grid, each with three places of the last node before zero noise, on the bundled Fashion-MNIST
model at 4, 6, 10 and 20 calls: median RMS distance to a 100-step Heun teacher on 24 noises of their own (seed 1000, used nowhere
else). Prints which candidates come within 10 % of the best at each budget, and how near the shortlist comes. Writes
``docs/benchmarks/classical_search.md`` and ``.json``.
"""

from __future__ import annotations

import argparse
import math
import platform
from dataclasses import replace
from pathlib import Path

import torch
from plans_circle import all_candidates

from isocline._core import files
from isocline._core.errors import InvalidInput
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.models import bundled
from isocline.plans.candidate import Candidate
from isocline.plans.plan import Plan
from isocline.plans.tuners import draw_noises, measure
from isocline.processes import Denoiser
from isocline.recipes.quickstart import SHAPE, labels
from isocline.recipes.shortlist import SHORTLIST
from isocline.recipes.train import load_image_model
from isocline.recipes.tune import heun_teacher

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
CALLS = (4, 6, 10, 20)
LAST = (0.002, 0.03, 0.12)  # noise level of the last node before 0
NEAR = 1.1


def search(budgets: tuple[int, ...], noises: int, only: str) -> dict[str, dict[int, float]]:
    """Return the median error of every candidate (whose name begins with `only`) at every budget."""
    model = load_image_model(bundled("fashion"))
    calibration = draw_noises(heun_teacher(model), model, SHAPE, (2, noises, 2), Stream(1000, "search"), cond=labels)
    candidates = [replace(c, last=level) for c in all_candidates() for level in LAST]
    candidates = [candidate for candidate in candidates if candidate.name.startswith(only)]
    found: dict[str, dict[int, float]] = {candidate.name: {} for candidate in candidates}
    with progress("searching", len(candidates) * sum(budgets)) as bar:
        for candidate in candidates:
            for calls in budgets:
                plan = _at_least(candidate, model, calls)
                found[candidate.name][calls] = measure(plan, model, calibration.validation).median().value
                bar.advance(calls, candidate.name)
    return found


def _at_least(candidate: Candidate, model: Denoiser, calls: int) -> Plan:
    """Return the plan with `calls` calls, or one more for a solver that needs an odd number: the comparison favours it."""
    try:
        return candidate.compile(model.process, calls, "zero")
    except InvalidInput:
        return candidate.compile(model.process, calls + 1, "zero")


def stored(folder: Path) -> dict[str, dict[int, float]]:
    """Return the stored result of an earlier search."""
    table = files.read_json(folder / "classical_search.json")
    return {name: {int(n): error for n, error in errors.items()} for name, errors in table.items()}


def report(found: dict[str, dict[int, float]], budgets: tuple[int, ...], noises: int) -> str:
    """Return the page: the ten best of each budget, and the verdict on the shortlist."""
    best = {n: min(errors[n] for errors in found.values() if n in errors) for n in budgets}
    short = {candidate.name for candidate in SHORTLIST}
    lines = [
        "# Full search over classical plans\n",
        f"Written by `python benchmarks/classical_search.py`; isocline {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}. Median RMS distance to the 100-step Heun teacher on {noises} noises (seed 1000), bundled "
        f"Fashion-MNIST model, {len(found)} combinations of solver, order and grid, last step to zero noise. Heun, which then "
        "needs an odd number of calls, gets one more. Candidates of the shortlist that `isocline tune` tries have a star.\n",
    ]
    for n in budgets:
        ranked = sorted((errors[n], name) for name, errors in found.items() if n in errors)
        lines += [f"\n## {n} calls\n", "| plan | error | against the best |", "|---|---|---|"]
        lines += [f"| {name}{' *' if name in short else ''} | {e:.4f} | {e / best[n]:.3f} |" for e, name in ranked[:10]]
        reach = min((errors[n] for name, errors in found.items() if name in short and n in errors), default=math.inf)
        lines.append(f"\nBest of the shortlist: {reach / best[n]:.3f} times the best of all.")
    near = {n: [name for name, errors in found.items() if n in errors and errors[n] <= NEAR * best[n]] for n in budgets}
    lines += ["\n## Candidates within 10 % of the best\n", "| calls | candidates |", "|---|---|"]
    lines += [f"| {n} | {'; '.join(names)} |" for n, names in near.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 calls and 16 noises only; prints, writes no files")
    parser.add_argument(
        "--only", default="", help="search solvers whose name begins so, and keep the others' stored figures"
    )
    parser.add_argument("--stored", action="store_true", help="write the page again from the stored JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    budgets, noises = ((6,), 16) if given.quick else (CALLS, 24)
    found = stored(given.out) if given.stored or given.only else {}
    if not given.stored:
        found |= search(budgets, noises, given.only)
    if not given.quick:
        files.write_json(given.out / "classical_search.json", found)
    page = report(found, budgets, noises)
    print(page)
    if not given.quick:
        files.write_text(given.out / "classical_search.md", page)


if __name__ == "__main__":
    main()
