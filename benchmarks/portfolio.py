"""The whole portfolio against the best classical plan on its best grid, on noises that nothing was fitted or chosen on.

    python benchmarks/portfolio.py [--quick] [--only BED] [--calls 5,6,8] [--seeds 3] [--image-seeds 1] [--image-seconds 900]

The beds are those of ``benchmarks/tuners.py``. Plans are compared by the median on mixtures and images, and by the root mean
square on the circle, where single errors at its centre matter. Each cell draws 64 training, 64 validation and 256 held-out
noises of its seed and calls `isocline.recipes.tune_portfolio` as a user would; the classical plan is the best on the validation
noises of all solvers on all grids. Cells are kept in ``runs/portfolio``; those of the stored table are not run again, and one
that was stopped continues. `--quick`: smooth mixture, 1 seed, 5 calls; prints, writes no page. Otherwise writes
``docs/benchmarks/portfolio.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import platform
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tuners import BEDS, geometric

from isocline._core import files
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.plans.tuners import Calibration, draw_noises
from isocline.processes import Denoiser
from isocline.recipes.portfolio import Chosen, tune_portfolio
from isocline.recipes.search_store import Store
from isocline.recipes.tried import Statistic, estimated, paired_ratio
from isocline.recipes.tune import heun_teacher

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/portfolio")
IMAGES, QUICK = "Fashion-MNIST", "smooth mixture"
BARS = {IMAGES: 0.5}
SIZES = (64, 64, 256)
NAMES: dict[Statistic, str] = {"median": "median", "rms": "root mean square"}


def statistic_of(bed: str) -> Statistic:
    return "rms" if bed == "circle" else "median"


def slug(*words: object) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, words)).lower())


@cache
def prepared(bed: str, seed: int) -> tuple[Denoiser, Calibration]:
    """Return a bed's model, and the noises of a seed with the teacher's results; all numbers of calls share them."""
    found = BEDS[bed]
    model, store = found.build(), Store(RUNS / slug(bed, "noises", seed), {})
    calibration = store.calibration()
    if calibration is None:
        teacher, stream = heun_teacher(model, end=found.end), Stream(seed, f"portfolio {bed}")
        calibration = draw_noises(teacher, model, found.shape, SIZES, stream, cond=found.cond, dtype=found.dtype)
        store.keep_calibration(calibration)
    return model, calibration


def searched(bed: str, calls: int, seed: int, seconds: float | None, place: Path) -> Chosen:
    model, calibration = prepared(bed, seed)
    return tune_portfolio(
        model,
        BEDS[bed].shape,
        Budget(calls=calls, seconds=seconds if bed == IMAGES else None),
        rng=Stream(seed, f"portfolio {bed}"),
        cond=BEDS[bed].cond,
        end=BEDS[bed].end,
        statistic=statistic_of(bed),
        calibration=calibration,
        dtype=BEDS[bed].dtype,
        folder=place,
    )


def cell(bed: str, calls: int, seed: int, seconds: float | None, place: Path) -> dict[str, Any]:
    """Search once; what is reported was measured on held-out noises, unless it says validation."""
    found, statistic = searched(bed, calls, seed, seconds, place), statistic_of(bed)
    classical = min((one for one in found.tried if one.round == 0), key=lambda one: one.score(statistic))
    kinds: tuple[Statistic, ...] = ("median", "rms")
    return {
        "chosen": found.name,
        "classical": classical.name,
        "statistic": statistic,
        "error": asdict(estimated(found.held_out.errors, statistic)),
        "classical_error": asdict(estimated(found.classical.errors, statistic)),
        "ratios": {k: asdict(paired_ratio(found.held_out.errors, found.classical.errors, k)) for k in kinds},
        "complete": found.complete,
        "cost": found.cost.as_dict(),
        "validation": {
            one.name: one.score(statistic) / classical.score(statistic)
            if one.plan
            else one.reason or "the time was over"
            for one in found.tried
            if one.round > 0
        },
    }


def unpack(table: Path) -> None:
    """Put the cells of a stored table where cells are kept."""
    for c in files.read_json(table)["cells"] if table.exists() else ():
        place = RUNS / slug(c["bed"], c["at"], c["seed"]) / "cell.json"
        if not place.exists():
            files.ensure_folder(place.parent)
            files.write_json(place, c)


def kept(bed: str, calls: int, seed: int, seconds: float | None) -> dict[str, Any]:
    """Return a cell, from the store where it is there."""
    folder = RUNS / slug(bed, calls, seed)
    place = folder / "cell.json"
    if not place.exists():
        found = cell(bed, calls, seed, seconds, folder)
        files.write_json(
            place, {"bed": bed, "at": calls, "seed": seed, "limit": seconds if bed == IMAGES else None, **found}
        )
        ratio = found["ratios"][statistic_of(bed)]
        print(
            f"{bed:18} {calls:2} calls, seed {seed}: {found['chosen']:22} {ratio['value']:.3f} "
            f"[{ratio['low']:.3f}, {ratio['high']:.3f}], {found['cost']['seconds']:.0f} s",
            flush=True,
        )
    return files.read_json(place)


def table(cells: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| bed | calls | seed | best classical plan | its error | chosen | its error | ratio | seconds |",
        "|---" * 9 + "|",
    ]
    for c in cells:
        ratio, limit = c["ratios"][c["statistic"]], f" of {c['limit']:.0f}" if c["limit"] else ""
        lines.append(
            f"| {c['bed']} | {c['at']} | {c['seed']} | {c['classical']} | {c['classical_error']['value']:.2g} | {c['chosen']} "
            f"| {c['error']['value']:.2g} | {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] "
            f"| {c['cost']['seconds']:.0f}{limit}{'' if c['complete'] else ', not all tried'} |"
        )
    return lines


def verdicts(cells: list[dict[str, Any]]) -> list[str]:
    """Return the bars of each bed and number of calls: geometric means over seeds, and the worst seed."""
    lines = ["| bed | compared by | calls | seeds | ratio, mean of seeds | worst seed | bar | |", "|---" * 8 + "|"]
    for bed, calls in dict.fromkeys((c["bed"], c["at"]) for c in cells):
        mine = [c for c in cells if (c["bed"], c["at"]) == (bed, calls)]
        ratios = [c["ratios"][c["statistic"]]["value"] for c in mine]
        limit, mean = BARS.get(bed, 0.4), geometric(ratios)
        said = "holds" if max(ratios) <= limit else "holds in the mean" if mean <= limit else "fails"
        name = NAMES[mine[0]["statistic"]]
        lines.append(f"| {bed} | {name} | {calls} | {len(mine)} | {mean:.3f} | {max(ratios):.3f} | {limit} | {said} |")
    return lines


def page(result: dict[str, Any]) -> str:
    cells, versions = result["cells"], result["versions"]
    missing = [bed for bed in BEDS if bed not in {c["bed"] for c in cells}]
    worse = [c for c in cells if c["ratios"][c["statistic"]]["value"] > 1]
    lines = [
        "# The portfolio",
        "",
        f"Written by `python benchmarks/portfolio.py`; isocline {versions['isocline']}, torch {versions['torch']}. 256 held-out "
        "noises a cell; errors are distances to a teacher of 100 Heun steps; intervals are 95 % bootstrap intervals of the paired "
        "ratio. The classical plan is the best, on the validation noises, of solvers and orders on all grids. Exact beds in "
        "float64, images in float32 with a limit of time for each search, beside its seconds. Seconds do not include the teacher's "
        "runs, which the searches of a seed share; one core, shared with other work.",
        "",
        *([f"Not measured yet: {', '.join(missing)}.", ""] if missing else []),
        *verdicts(cells),
        "",
        f"Worse than the classical plan on held-out noises: {len(worse)} of {len(cells)} cells.",
        "",
        "## Cell by cell",
        "",
        *table(cells),
        "",
        "## What each tuner gained on the validation noises",
        "",
        "Ratio to the best classical plan, geometric mean over all cells of a bed in which the tuner fitted.",
        "",
        *gains(cells),
    ]
    return "\n".join(lines) + "\n"


def gains(cells: list[dict[str, Any]]) -> list[str]:
    beds = list(dict.fromkeys(c["bed"] for c in cells))
    names = list(dict.fromkeys(name for c in cells for name in c["validation"]))
    lines = [f"| tuner | {' | '.join(beds)} |", "|---" * (len(beds) + 1) + "|"]
    for name in names:
        columns = []
        for bed in beds:
            found = [c["validation"].get(name) for c in cells if c["bed"] == bed]
            ratios = [value for value in found if isinstance(value, float)]
            columns.append(f"{geometric(ratios):.2f}" if ratios else "does not fit")
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smooth mixture, 1 seed, 5 calls; prints, writes no page")
    parser.add_argument("--only", choices=list(BEDS))
    parser.add_argument("--calls", default="5,6,8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-seeds", type=int, default=1)
    parser.add_argument("--image-seconds", type=float, default=900.0)
    parser.add_argument("--stored", action="store_true", help="write the page of the cells that are there")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.quick:
        given.only, given.seeds, given.calls = QUICK, 1, "5"
    files.ensure_folder(RUNS)
    unpack(given.out / "portfolio.json")
    if not given.stored:
        for seed in range(max(given.seeds, given.image_seeds)):
            for bed in [given.only] if given.only else BEDS:
                if seed < (given.image_seeds if bed == IMAGES else given.seeds):
                    for calls in map(int, given.calls.split(",")):
                        kept(bed, calls, seed, given.image_seconds)
    cells = [files.read_json(place) for place in RUNS.glob("*/cell.json")]
    cells.sort(key=lambda c: (list(BEDS).index(c["bed"]), c["at"], c["seed"]))
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    result = {"cells": cells, "versions": versions}
    print(page(result))
    if not given.quick:
        files.write_json(given.out / "portfolio.json", result)
        files.write_text(given.out / "portfolio.md", page(result))


if __name__ == "__main__":
    main()
