"""Which of our samplers to take at 4, 6, 8, 12, 20 and 50 calls: on the exact problems, and on the bundled image model.

    python benchmarks/which_sampler.py [--quick] [--cache FOLDER] [--again TEXT]

The exact problems are those of ``benchmarks/samplers_accuracy.py``, whose stored JSON is read. On the image model every solver is
tried on two grids with three places of the last node before zero noise: the median RMS distance to a long run on 8 noises screens
them, and the best six at each number of calls are measured on 64 held-out noises that nothing was chosen on. From 12 calls on
only those are screened that came, with fewer calls, within two or three times the best with the same last node. Every figure is
written to the cache, so that a stopped run goes on where it was. Writes ``docs/benchmarks/which_sampler.json`` and
``docs/which-sampler.md``.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import our_samplers
from benchmarks.contenders import OURS
from isocline._core import files
from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.estimate import Estimate
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.models import bundled
from isocline.plans import Plan, grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.tuners import Calibration, NoiseSet, draw_noises, measure
from isocline.processes import Denoiser
from isocline.recipes.quickstart import SHAPE, labels
from isocline.recipes.shortlist import SHORTLIST
from isocline.recipes.train import load_image_model

ROOT = Path(__file__).resolve().parent.parent
EXACT = ROOT / "docs" / "benchmarks" / "samplers_accuracy.json"
OUT, PAGE = ROOT / "docs" / "benchmarks" / "which_sampler.json", ROOT / "docs" / "which-sampler.md"
CALLS = (4, 6, 8, 12, 20, 50)
SCREENED, HELD_OUT = 8, 64
BEST, KEPT = 3, 6
LAST = (0.002, 0.03, 0.12)  # noise level of the last node before 0
RACE = {
    12: (8, 3.0),
    20: (12, 3.0),
    50: (20, 2.0),
}  # there only what came, with fewer calls, within a factor of the best
FINE = 300  # steps of the reference
SEED = 2000
COLUMNS = ("rms", "median", "calm", "flips")  # of a cell in the JSON of samplers_accuracy


def image_candidates() -> list[Candidate]:
    """Return our rows for the image model, whose time is the noise level: there `exponential` and `t_adams` are others' twins."""
    rows = [c for c in our_samplers.candidates() if c.grid in (grids.log_snr, grids.karras)]
    rows = [c for c in rows if c.solver.__name__ != "t_adams"]
    return [replace(c, last=level) for level in LAST for c in rows]


def reference(model: Denoiser, steps: int) -> Plan:
    """Return the run that defines the truth: Adams of order 4, which at 200 steps is closer to its limit than Heun at 300."""
    times = grids.karras(model.process, steps, end="zero")
    return solvers.lam_adams(model.process, times, order=4).for_guidance(model.guidance)


@dataclass
class ImageSearch:
    """Screens and measures plans on the bundled model; figures already in the cache cost nothing."""

    cache: Path | None
    sizes: tuple[int, int] = (SCREENED, HELD_OUT)
    steps: int = FINE
    stored: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cache is not None and (self.cache / "image.json").exists():
            self.stored = files.read_json(self.cache / "image.json")

    @cached_property
    def model(self) -> Denoiser:
        """The bundled Fashion-MNIST model."""
        return load_image_model(bundled("fashion"))

    @cached_property
    def calibration(self) -> Calibration:
        """Noises with a long Heun run's results: the validation part screens, the held-out part reports."""
        rng = Stream(SEED, "which sampler")
        return draw_noises(reference(self.model, self.steps), self.model, SHAPE, (2, *self.sizes), rng, cond=labels)

    def doubt(self) -> float:
        """Return the median change of the reference when it takes two thirds of the steps, on the screening noises."""
        stored = self.stored.setdefault("reference", {})
        if "doubt" not in stored:
            coarser = reference(self.model, 2 * self.steps // 3)
            stored["doubt"] = [measure(coarser, self.model, self.calibration.validation).median().value]
            self._keep()
        return stored["doubt"][0]

    def _keep(self) -> None:
        if self.cache is not None:
            files.write_json(self.cache / "image.json", self.stored)

    def forget(self, text: str) -> None:
        """Drop the stored figures of rows whose name holds `text`."""
        self.stored = {key: found for key, found in self.stored.items() if text not in key}

    def figure(self, candidate: Candidate, calls: int, part: str) -> list[float] | None:
        """Return the median error with its interval, or None where exactly `calls` calls are impossible."""
        found = self.stored.setdefault(f"{part} | {candidate.name}", {})
        if str(calls) not in found:
            found[str(calls)] = self._measured(candidate, calls, getattr(self.calibration, part))
            self._keep()
        return found[str(calls)] or None

    def _measured(self, candidate: Candidate, calls: int, noises: NoiseSet) -> list[float]:
        try:
            plan = candidate.compile(self.model.process, calls, "zero").for_guidance(self.model.guidance)
            median = measure(plan, self.model, noises).median()
        except (InvalidInput, NotFinite):
            return []
        return [float(f"{value:.4g}") for value in (median.value, median.low, median.high)]

    def best(self, candidates: list[Candidate], calls: int) -> list[dict[str, Any]]:
        """Return the best rows at `calls` calls: chosen on the screening noises, ranked by the held-out ones."""
        screened = {c.name: (c, found[0]) for c in candidates if (found := self.figure(c, calls, "validation"))}
        chosen = sorted(screened.values(), key=lambda pair: pair[1])[:KEPT]
        rows = [(self.figure(c, calls, "held_out"), c.name) for c, _ in chosen]
        ranked = sorted((found, name) for found, name in rows if found)
        return [{"name": name, "error": found} for found, name in ranked[:BEST]]

    def worth_trying(self, candidates: list[Candidate], calls: int) -> list[Candidate]:
        """Return the candidates that did well enough with fewer calls, among those with the same last node."""
        if calls not in RACE:
            return candidates
        earlier, within = RACE[calls]
        tried = self.worth_trying(candidates, earlier)
        found = {c.name: value[0] for c in tried if (value := self.figure(c, earlier, "validation"))}
        best = {c.last: min(found.get(d.name, math.inf) for d in tried if d.last == c.last) for c in tried}
        return [c for c in tried if found.get(c.name, 0.0) <= within * best[c.last]]  # 0: impossible with so many calls

    def run(self, candidates: list[Candidate], budgets: Iterable[int]) -> dict[str, list[dict[str, Any]]]:
        """Return the best rows for each number of calls."""
        result = {}
        with progress("image model", len(list(budgets))) as bar:
            for calls in budgets:
                result[str(calls)] = self.best(self.worth_trying(candidates, calls), calls)
                bar.advance(1)
        return result


def exact(report: dict[str, Any]) -> dict[str, Any]:
    """Return our best rows on each exact bed, by end and number of calls, with all their figures."""
    return {
        bed: {
            "figure": part["figure"],
            "doubt": part["doubt"],
            "ends": {
                end: {str(n): _best_exact(part, end, str(n)) for n in CALLS}
                for end in sorted({key.split(" | ")[2] for key in part["rows"]})
            },
        }
        for bed, part in report["beds"].items()
    }


def _best_exact(part: dict[str, Any], end: str, calls: str) -> list[dict[str, Any]]:
    column, found = COLUMNS.index(part["figure"]), []
    for key, cells in part["rows"].items():
        package, name, ends = key.split(" | ")
        if package == OURS and ends == end and cells.get(calls):
            found.append((cells[calls][column], name, dict(zip(COLUMNS, cells[calls], strict=True))))
    return [{"name": name, **cell} for _, name, cell in sorted(found, key=lambda f: f[:2])[:BEST]]


HEAD = """# Which sampler at 4, 6, 8, 12, 20, 50 calls

Written by `python benchmarks/which_sampler.py`; isocline {isocline}, torch {torch}, Python {python}.

The three best of our samplers for each number of network calls, on problems whose truth is known and on the bundled image model.
They are measurements on these problems, not promises for yours: the ranking changes with the data and with the end point, and
neighbours in a table are often closer than their difference matters. Take one or two names from here and compare them on a few
dozen of your own starts, or let [`tune`](tuning.md) do it.

- *image model*: Fashion-MNIST, ends without noise; median RMS distance to a run of {steps} steps over {held_out} held-out noises,
  with its 95 % interval. That run changes by {doubt:.0e} when it takes a third fewer steps. Screened on {screened} other noises
  among {tried} combinations of solver, grid and last node.
- *circle16*, *gmm2*, *gmm64*: the [exact problems](benchmarks/samplers_accuracy.md); RMS on the circle, medians on the mixtures.
- *analytic first step* saves the first call, and needs the standard deviation of the data.

A name is a call. `lam_adams(order=3) on log_snr(last=0.12)` with 6 calls is

```python
from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate
from isocline.processes import EDM

row = Candidate(solvers.lam_adams, grids.log_snr, {{"order": 3}}, last=0.12)
plan = row.compile(EDM(), calls=6, end="zero")
assert plan.calls == 6 and row.name == "lam_adams(order=3) on log_snr(last=0.12)"
```
"""
ENDS = {"t_min": "to t_min", "zero": "to 0"}


def page(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [HEAD.format(**report["facts"], **report["facts"]["versions"])]
    for calls in map(str, report["calls"]):
        lines += [f"## {calls} calls", "", "| problem | best | second | third |", "|---|---|---|---|"]
        image = [f"{row['name']}: {Estimate(*row['error'])}" for row in report["image"].get(calls, [])]
        lines.append(_line("image model", image))
        for bed, part in report["exact"].items():
            for end, columns in part["ends"].items():
                found = [f"{row['name']}: {row[part['figure']]:.1e}" for row in columns.get(calls, [])]
                lines.append(_line(f"{bed}, {ENDS[end]}", found))
        lines.append("")
    return "\n".join(lines)


def _line(problem: str, found: list[str]) -> str:
    return f"| {problem} | " + " | ".join([*found, *[""] * (BEST - len(found))]) + " |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 calls, the shortlist and few noises; writes no files")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "which_sampler", help="folder of finished figures"
    )
    parser.add_argument("--search", action="store_true", help="fill the cache only; writes no pages")
    parser.add_argument("--again", action="append", default=[], metavar="TEXT", help="measure rows named so again")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    budgets, candidates = (CALLS, image_candidates()) if not given.quick else ((6,), list(SHORTLIST))
    search = ImageSearch(None, (4, 8), steps=30) if given.quick else ImageSearch(given.cache)
    for text in given.again:
        search.forget(text)
    if given.search:
        search.run(candidates, budgets)
        return
    facts = {
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "screened": search.sizes[0],
        "held_out": search.sizes[1],
        "tried": len(candidates),
        "steps": search.steps,
        "doubt": search.doubt(),
        "seed": SEED,
    }
    found = exact(files.read_json(EXACT)) if EXACT.exists() else {}
    report = {"facts": facts, "calls": list(budgets), "image": search.run(candidates, budgets), "exact": found}
    if given.quick:
        print(page(report))
        return
    files.write_json(OUT, report)
    files.write_text(PAGE, page(report))
    print(f"wrote {OUT} and {PAGE}")


if __name__ == "__main__":
    main()
