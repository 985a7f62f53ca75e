"""Gotta Go Fast against Euler-Maruyama on exact beds, and what keeping the noise of rejected steps is worth.

    python benchmarks/adaptive_samplers.py [--seeds 5] [--samples 4096] [--quick] [--page]

VP with linear beta, float64, exact denoisers: the smooth mixture and the sharp mixture in 8 dimensions, the circle of 512 narrow
Gaussians in 16, and a mixture in 256 dimensions with a quarter of the samples. The error is the sliced Wasserstein distance to
16384 exact data, of the samples of all seeds together and of each seed; the floor is what exact data read. Every method has the
same starts and one last data prediction, which is counted. Euler-Maruyama runs on the uniform grid of the paper and on a Karras
grid. Further tables: rejections against the dimension, steps against the sharpness of the data, the variance of normal data with
the noise of rejected steps kept and redrawn. Writes ``docs/benchmarks/adaptive_samplers.json`` and, from it, ``.md``; ``--page``
only the latter.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.metrics import sliced_wasserstein
from isocline.plans import grids, solvers
from isocline.plans.adaptive import AdaptiveRun, DPMAdaptive, GottaGoFast, denoised, freeze
from isocline.processes import GaussianMixture, VariancePreserving

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
VP = VariancePreserving()


def wide_mixture() -> GaussianMixture:
    """Return six components of standard deviation 0.3 in 256 dimensions, about as far apart as in the smooth mixture."""
    means = 0.6 * Stream(0, "wide bed").normal((6, 256), dtype=torch.float64) * math.sqrt(8 / 256)
    return GaussianMixture(VP, means, torch.full((6,), 0.3, dtype=torch.float64))


BEDS: dict[str, Callable[[], GaussianMixture]] = {
    "smooth mixture": lambda: GaussianMixture.smooth_bed(VP),
    "sharp mixture": lambda: GaussianMixture.sharp_bed(VP),
    "circle": lambda: GaussianMixture.circle_bed(VP),
    "wide mixture": wide_mixture,
}
GRIDS = {"uniform": grids.uniform, "karras": grids.karras}
STEPS = (12, 25, 50, 100, 200, 400)
TOLERANCES = (0.5, 0.2, 0.1, 0.05, 0.02)
REFERENCE = 16384
DIRECTIONS = 64
NEAR = 1.1  # a distance within 10 % of the floor counts as the floor
Outcome = tuple[Tensor, float, float]  # samples, calls, share of rejected steps


def rejected(run: AdaptiveRun) -> float:
    return float(run.rejected.sum() / (run.accepted + run.rejected).sum())


def methods(model: GaussianMixture, steps: tuple[int, ...], tolerances: tuple[float, ...]) -> dict[str, Any]:
    """Return every method as a function of start states and seed."""
    found: dict[str, Callable[[Tensor, int], Outcome]] = {}

    def euler(name: str, n: int) -> Callable[[Tensor, int], Outcome]:
        plan = denoised(solvers.euler_maruyama(VP, GRIDS[name](VP, n - 1)))
        return lambda x, seed: (plan.run(model, x, rng=Stream(seed, "euler")).x, float(plan.calls), 0.0)

    def adaptive(rtol: float, bridge: bool) -> Callable[[Tensor, int], Outcome]:
        def run(x: Tensor, seed: int) -> Outcome:
            result = GottaGoFast(rtol=rtol, bridge=bridge).run(model, x, rng=Stream(seed, "adaptive"))
            return result.x, result.cost.calls, rejected(result)

        return run

    def frozen(rtol: float) -> Callable[[Tensor, int], Outcome]:
        def run(x: Tensor, seed: int) -> Outcome:
            plan = freeze(GottaGoFast(rtol=rtol).run(model, x[:256], rng=Stream(seed, "grid")), solvers.euler_maruyama)
            return plan.run(model, x, rng=Stream(seed, "euler")).x, float(plan.calls), 0.0

        return run

    def ordinary(x: Tensor, seed: int) -> Outcome:
        result = DPMAdaptive().run(model, x)
        x0 = model.predict(result.x, VP.t_min).x0
        return x0, result.cost.calls + 1, rejected(result)

    for name in GRIDS:
        found |= {f"Euler-Maruyama, {name}, {n}": euler(name, n) for n in steps}
    for bridge, name in ((True, "Gotta Go Fast"), (False, "Gotta Go Fast, redrawn")):
        found |= {f"{name}, rtol {rtol:g}": adaptive(rtol, bridge) for rtol in tolerances}
    found |= {f"Euler-Maruyama, frozen, rtol {rtol:g}": frozen(rtol) for rtol in tolerances}
    return found | {"DPM-Solver-23 (the ODE)": ordinary}


def one_bed(bed: str, given: argparse.Namespace, advance: Callable[[float, str], None]) -> list[dict[str, Any]]:
    """Return a row for each method: calls, distance of all seeds together, distance of each seed."""
    model, n = BEDS[bed](), given.samples // 4 if bed == "wide mixture" else given.samples
    reference, rows = model.sample(REFERENCE, Stream(999, "reference")), []

    def distance(x: Tensor) -> float:
        return sliced_wasserstein(x, reference, rng=0, directions=DIRECTIONS)

    def measured(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
        return {
            "bed": bed,
            "method": name,
            "calls": statistics.mean(calls for _, calls, _ in outcomes),
            "rejected": statistics.mean(share for _, _, share in outcomes),
            "together": distance(torch.cat([x for x, _, _ in outcomes])),
            "each": [distance(x) for x, _, _ in outcomes],
        }

    exact = [(model.sample(n, Stream(seed, "fresh")), 0.0, 0.0) for seed in range(given.seeds)]
    rows.append(measured("exact data", exact))
    starts = [VP.terminal((n, *model.event), Stream(s, "start"), dtype=torch.float64) for s in range(given.seeds)]
    for name, method in methods(model, given.steps, given.tolerances).items():
        rows.append(measured(name, [method(x, seed) for seed, x in enumerate(starts)]))
        advance(1, f"{bed}: {name}")
    return rows


def normal_data(d: int, std: float) -> GaussianMixture:
    return GaussianMixture(VP, torch.zeros(1, d, dtype=torch.float64), torch.tensor([std], dtype=torch.float64))


def dimensions(seeds: int, values: int) -> list[dict[str, Any]]:
    """Return rejections and the variance of the samples, kept and redrawn noise, for normal data of standard deviation 0.5."""
    alpha, sigma = float(VP.alpha(VP.t_min)), float(VP.sigma(VP.t_min))
    var = alpha**2 * 0.25 + sigma**2
    exact, rows = (alpha * 0.25 / var) ** 2 * var, []
    for d in (1, 8, 64, 512, 3072):
        for bridge in (True, False):
            runs = []
            for seed in range(seeds):
                x = VP.terminal((max(4, values // d), d), Stream(seed, "start"), dtype=torch.float64)
                runs.append(GottaGoFast(bridge=bridge).run(normal_data(d, 0.5), x, rng=Stream(seed, "adaptive")))
            ratios = [float(run.x.square().mean()) / exact for run in runs]
            rows.append(
                {
                    "d": d,
                    "bridge": bridge,
                    "calls": statistics.mean(run.cost.calls for run in runs),
                    "rejected": statistics.mean(rejected(run) for run in runs),
                    "variance": ratios,
                    "error": math.sqrt(2 / runs[0].x.numel()),
                }
            )
    return rows


def sharpness(seeds: int) -> list[dict[str, Any]]:
    """Return accepted steps for normal data of falling standard deviation in 64 dimensions."""
    rows = []
    for std in (1.0, 0.3, 0.1, 0.03, 0.01):
        model, steps = normal_data(64, std), []
        for seed in range(seeds):
            x = VP.terminal((64, 64), Stream(seed, "start"), dtype=torch.float64)
            run = GottaGoFast(rtol=0.1).run(model, x, rng=Stream(seed, "adaptive"))
            steps.append(float(run.accepted.double().mean()))
        rows.append({"std": std, "accepted": steps})
    return rows


def calls_at(curve: list[tuple[float, float]], error: float) -> float | None:
    """Return the calls at which a curve (calls, error) first comes down to `error`, between points linear in logarithms."""
    curve = sorted(curve)
    if curve[0][1] <= error:
        return curve[0][0]
    for (n, e), (m, f) in pairwise(curve):
        if f <= error:
            share = math.log(e / error) / math.log(e / f)
            return math.exp(math.log(n) + share * math.log(m / n))
    return None


def curve(rows: list[dict[str, Any]], name: str, key: int | None = None) -> list[tuple[float, float]]:
    """Return (calls, error) of the rows whose method begins with `name`: of all seeds together, or of seed `key`."""
    chosen = [row for row in rows if row["method"].startswith(name)]
    return [(row["calls"], row["together"] if key is None else row["each"][key]) for row in chosen]


def comparison(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table line for each tolerance: calls against those of Euler-Maruyama at the same error."""
    floor, lines = rows[0], []
    for row in (r for r in rows if r["method"].startswith("Gotta Go Fast, rtol")):
        at_floor = "yes" if row["together"] <= NEAR * floor["together"] else "no"
        cells = [row["method"].split(", ")[1], f"{row['calls']:.1f}", f"{row['together']:.4f}", at_floor]
        lines.append("| " + " | ".join(cells + [against(rows, row, floor, name) for name in GRIDS]) + " |")
    return lines


def against(rows: list[dict[str, Any]], row: dict[str, Any], floor: dict[str, Any], grid: str) -> str:
    """Return the ratio of calls to Euler-Maruyama's on `grid` at equal error, and the seeds in which it is at most a half."""
    start = f"Euler-Maruyama, {grid}"
    needed = calls_at(curve(rows, start), max(row["together"], NEAR * floor["together"]))
    errors = [max(mine, NEAR * least) for mine, least in zip(row["each"], floor["each"], strict=True)]
    each = [calls_at(curve(rows, start, seed), error) for seed, error in enumerate(errors)]
    wins = sum(n is None or row["calls"] <= 0.5 * n for n in each)
    return f"{'never reached' if needed is None else format(row['calls'] / needed, '.2f')} ({wins}/{len(each)})"


def bed_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of all methods on one bed."""
    lines = ["| method | calls | rejected | all seeds together | each seed, mean and range |", "|---|---|---|---|---|"]
    for row in rows:
        each = row["each"]
        spread = f"{statistics.mean(each):.4f} [{min(each):.4f}, {max(each):.4f}]"
        share = f"{100 * row['rejected']:.0f} %" if row["rejected"] else ""
        lines.append(f"| {row['method']} | {row['calls']:.1f} | {share} | {row['together']:.4f} | {spread} |")
    return lines


def page(stored: dict[str, Any]) -> str:
    """Return the page of a stored result."""
    settings, versions = stored["settings"], stored["versions"]
    lines = [
        "# Samplers with steps of their own\n",
        f"Written by `python benchmarks/adaptive_samplers.py`; isocline {versions['isocline']}, torch {versions['torch']}, Python "
        f"{versions['python']}; {settings['seeds']} seeds (0 to {settings['seeds'] - 1}) of {settings['samples']} samples, a "
        "quarter of it for the wide mixture (256 dimensions). VP with linear beta, float64, exact denoisers. The error is the "
        "sliced Wasserstein distance to 16384 exact data; *exact data* "
        "is what fresh data read, the floor. Every method ends with a data prediction at `t_min`, which is counted. *Redrawn* "
        "is the published rule for the noise of rejected steps, *frozen* Euler-Maruyama on the average grid of an adaptive run "
        "of 256 samples, whose calls are not counted. A rejected step costs one call, as its first output is kept.\n",
    ]
    for bed in BEDS:
        rows = [row for row in stored["rows"] if row["bed"] == bed]
        if not rows:
            continue
        lines += [f"\n## {bed.capitalize()}\n", *bed_table(rows)]
        lines += [
            "\nCalls of Gotta Go Fast divided by those Euler-Maruyama needs for the same error (all seeds together), or for one "
            "within 10 % of the floor where that is larger; in brackets the seeds in which it needs at most half as many. The "
            "aim was 0.50.\n",
            "| tolerance | calls | error | at the floor | against the uniform grid | against the Karras grid |",
            "|---|---|---|---|---|---|",
            *comparison(rows),
        ]
    lines += [
        "\n## Rejections, and the noise of rejected steps\n",
        "Normal data of standard deviation 0.5, default tolerances: share of rejected steps and the samples' variance divided by "
        "the exact one, mean and range over the seeds. The aim was less than 10 % rejections.\n",
        "| dimensions | noise of rejected steps | calls | rejected | variance | standard error of one seed |",
        "|---|---|---|---|---|---|",
    ]
    for row in stored["dimensions"]:
        v = row["variance"]
        lines.append(
            f"| {row['d']} | {'kept' if row['bridge'] else 'redrawn'} | {row['calls']:.1f} | {100 * row['rejected']:.1f} % | "
            f"{statistics.mean(v):.4f} [{min(v):.4f}, {max(v):.4f}] | {row['error']:.4f} |"
        )
    lines += [
        "\n## Sharper data take more steps\n",
        "Normal data in 64 dimensions, relative tolerance 0.1: accepted steps, mean and range over the seeds.\n",
        "| standard deviation | accepted steps |",
        "|---|---|",
    ]
    for row in stored["sharpness"]:
        a = row["accepted"]
        lines.append(f"| {row['std']:g} | {statistics.mean(a):.1f} [{min(a):.1f}, {max(a):.1f}] |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument(
        "--values", type=int, default=8192, help="coordinates drawn for each line of the variance table"
    )
    parser.add_argument(
        "--quick", action="store_true", help="smooth mixture only, 3 seeds of 512; prints, writes no files"
    )
    parser.add_argument("--only", choices=tuple(BEDS), help="measure this bed and keep what is stored of the others")
    parser.add_argument("--page", action="store_true", help="write the page again from the stored JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.steps, given.tolerances, beds = STEPS, TOLERANCES, tuple(BEDS)
    if given.quick:
        given.seeds, given.samples, given.values, beds = 3, 512, 1024, beds[:1]
        given.steps, given.tolerances = STEPS[1:5], TOLERANCES[:3]
    target = given.out / "adaptive_samplers.json"
    if given.page or given.only:
        stored = files.read_json(target)
        beds = (given.only,) if given.only else ()
    else:
        settings = {k: getattr(given, k) for k in ("seeds", "samples", "values", "steps", "tolerances")}
        versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
        stored = {"settings": settings, "versions": versions, "rows": []}
        stored |= {"dimensions": dimensions(given.seeds, given.values), "sharpness": sharpness(given.seeds)}
    with progress("sampling", len(beds) * (2 * len(given.steps) + 3 * len(given.tolerances) + 1)) as bar:
        for bed in beds:
            rows = [row for row in stored["rows"] if row["bed"] != bed]
            stored["rows"] = rows + one_bed(bed, given, bar.advance)
            if not given.quick:
                files.write_json(target, stored)
    text = page(stored)
    print(text)
    if not given.quick:
        files.write_text(given.out / "adaptive_samplers.md", text)


if __name__ == "__main__":
    main()
