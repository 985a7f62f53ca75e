"""How many calls of DDIM give the images of the portfolio's six?

    python benchmarks/portfolio_frechet.py --data DIR [--search FOLDER] [--calls 10,20,30,50] [--images 2000] [--quick]

Fréchet distances (features of the bundled classifier, 64 numbers, bias-corrected) to the 60 000 training images of
Fashion-MNIST: of the plan that ``benchmarks/portfolio.py`` found for 6 calls, of the best classical plan it tried, and of DDIM
with more calls on two grids. All start from the same noises, which the search did not see; it knew neither the classifier nor
the images, only distances of samples to the teacher's. Differences are paired by noise. Features are kept in
``runs/portfolio/frechet``. Writes ``docs/benchmarks/portfolio_frechet.json`` and ``.md``. `--quick`: 200 images, 30 calls;
prints, writes no page.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fashion_model import features, generate
from torch import Tensor

from isocline._core import files
from isocline._core.errors import IsoclineError
from isocline._core.estimate import Estimate
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import load_fashion
from isocline.metrics import frechet_distance, frechet_estimate
from isocline.metrics.mean import student
from isocline.models import bundled
from isocline.plans import Plan, grids, solvers
from isocline.processes import Denoiser
from isocline.recipes.classifier import load_classifier
from isocline.recipes.train import load_image_model

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/portfolio")
SEARCH = RUNS / "fashion-mnist-6-0"
GROUPS = 40
GRIDS = {"Karras": grids.karras, "log-SNR": grids.log_snr}


def ddim(model: Denoiser, grid: str, calls: int) -> Plan:
    return solvers.ddim(model.process, GRIDS[grid](model.process, calls, end="zero"))


def classical(search: Path) -> Plan:
    """Return the classical plan with the smallest median error on the validation noises of a search."""
    tried = [files.read_json(place) for place in search.glob("0-*.json") if not place.name.endswith(".plan.json")]
    best = min((one for one in tried if one["errors"]), key=lambda one: statistics.median(one["errors"]))
    return Plan.load(search / best["plan"])


def described(name: str, plan: Plan, model: Denoiser, images: int) -> Tensor:
    """Return the features (images, 64) of what `plan` makes of the same noises, from the store where they are there."""
    place = RUNS / "frechet" / f"{name.replace(' ', '-').replace(',', '')}-{images}.safetensors"
    if not place.exists():
        files.ensure_folder(place.parent)
        found = features(load_classifier(), generate(model, plan, images))
        files.write_tensors(place, {"features": found}, {"calls": str(plan.calls)})
        print(name, flush=True)
    return files.read_tensors(place)[0]["features"]


def difference(a: Tensor, b: Tensor, reference: Tensor) -> Estimate:
    """Return the distance of `a` minus that of `b`, bias-corrected, with a jackknife over groups of the same noises."""
    group = Stream(0, "difference").permutation(len(a)) % GROUPS

    def gap(keep: Tensor) -> float:
        return frechet_distance(a[keep], reference) - frechet_distance(b[keep], reference)

    whole = gap(group >= 0)
    pseudo = torch.tensor([GROUPS * whole - (GROUPS - 1) * gap(group != j) for j in range(GROUPS)], dtype=torch.float64)
    half = student(0.95, GROUPS - 1) * float(pseudo.std()) / math.sqrt(GROUPS)
    value = float(pseudo.mean())
    return Estimate(value, value - half, value + half, 0.95, len(a))


def page(rows: list[dict[str, Any]], images: int) -> str:
    lines = [
        "# Images of six calls",
        "",
        f"Written by `python benchmarks/portfolio_frechet.py --images {images}`; isocline {__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}. {images} images from the same noises for each row, against the "
        "60 000 training images; features of the bundled classifier; bias-corrected distances with 95 % jackknife intervals. The "
        "search saw neither the classifier nor the images. Below zero in the last column: better than the plan of six calls.",
        "",
        "| plan | calls | Fréchet distance | minus that of the portfolio's plan, paired |",
        "|---|---|---|---|",
    ]
    for row in rows:
        distance, gap = (Estimate(**row[key]) if row[key] else None for key in ("distance", "difference"))
        lines.append(f"| {row['name']} | {row['calls']} | {distance} | {gap or ''} |")
    return "\n".join([*lines, "", verdict(rows)]) + "\n"


def verdict(rows: list[dict[str, Any]]) -> str:
    """Say whether the plan is as good as DDIM with 30 calls on either grid: the paired difference is not clearly below zero."""
    mine = [row for row in rows if row["name"].startswith("DDIM") and row["calls"] == 30]
    reached = all(row["difference"]["high"] >= 0 for row in mine)
    ahead = all(row["difference"]["low"] > 0 for row in mine)
    said = "is better than" if ahead else "reaches" if reached else "does not reach"
    return f"The portfolio's plan of 6 calls {said} DDIM with 30 calls."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--search", type=Path, default=SEARCH)
    parser.add_argument("--calls", default="10,20,30,50")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="200 images, 30 calls; prints, writes no page")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    counts = [30] if given.quick else [int(n) for n in given.calls.split(",")]
    given.images = 200 if given.quick else given.images
    try:
        reference = features(load_classifier(), load_fashion(given.data).all()[0])
        plans = {"portfolio": Plan.load(given.search / "plan.json"), "best classical plan": classical(given.search)}
    except IsoclineError as error:
        print(f"left out: {error}")
        return
    model = load_image_model(bundled("fashion"))
    plans |= {f"DDIM, {grid}, {n}": ddim(model, grid, n) for n in counts for grid in GRIDS}
    found = {name: described(name, plan, model, given.images) for name, plan in plans.items()}
    rows = [
        {
            "name": name.rsplit(", ", 1)[0] if name.startswith("DDIM") else name,
            "calls": plan.calls,
            "distance": asdict(frechet_estimate(found[name], reference, 0)),
            "difference": None
            if name == "portfolio"
            else asdict(difference(found[name], found["portfolio"], reference)),
        }
        for name, plan in plans.items()
    ]
    print(page(rows, given.images))
    if not given.quick:
        files.write_json(given.out / "portfolio_frechet.json", {"rows": rows, "images": given.images})
        files.write_text(given.out / "portfolio_frechet.md", page(rows, given.images))


if __name__ == "__main__":
    main()
