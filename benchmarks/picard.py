"""How many rounds does a sampler need when its steps are solved in parallel?

    python benchmarks/picard.py [--seeds 5] [--quick]

Exact denoisers, float64, plans of 100 rows on a grid of equal steps in the half log-SNR: DDIM, DPM-Solver++ 2M and ancestral
sampling under the linear VP process, on the smooth bed and on the circle; and the fields of `isocline.integrators.picard`,
Dopri5 on 100 steps of Lorenz' equations and of a pendulum. A round is one evaluation of a window of states: what a machine with
enough room does in the time of one call. 32 samples a seed; a round is shared by all of them, so that the slowest decides. The
error is the distance to the sequential run of the same plan with the same noise: root mean square over samples and coordinates,
and the largest.

Wall time is not measured: on two cores a window costs as much as its states. Writes ``docs/benchmarks/picard.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.integrators import Dopri5, Steps, integrate
from isocline.integrators.picard import picard as picard_ode
from isocline.plans import Plan, grids, solvers
from isocline.plans.picard import picard
from isocline.processes import GaussianMixture, VariancePreserving

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
PROCESS, ROWS = VariancePreserving(), 100
BEDS: dict[str, Callable[[], GaussianMixture]] = {
    "smooth": lambda: GaussianMixture.smooth_bed(PROCESS),
    "circle": lambda: GaussianMixture.circle_bed(PROCESS),
}
PLANS: dict[str, Callable[[Tensor], Plan]] = {
    "ddim": lambda t: solvers.ddim(PROCESS, t),
    "dpm_solver_pp_2m": lambda t: solvers.dpm_solver_pp_2m(PROCESS, t),
    "ancestral": lambda t: solvers.ancestral(PROCESS, t),
}


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    x, u, z = y.unbind(-1)
    return torch.stack([10 * (u - x), x * (28 - z) - u, x * u - 8 / 3 * z], -1)


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1], -torch.sin(y[:, 0])], -1)


FIELDS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int, float]] = {
    "lorenz, t to 2": (lorenz, 3, 2.0),
    "pendulum, t to 10": (pendulum, 2, 10.0),
}


def distance(a: Tensor, b: Tensor) -> dict[str, float]:
    return {"rms": float((a - b).square().mean().sqrt()), "largest": float((a - b).abs().max())}


def sampled(bed: GaussianMixture, plan: Plan, seed: int, window: int, tolerance: float) -> dict[str, float]:
    """Return rounds, evaluations and distance to the sequential run of one seed."""
    x = plan.start((32, *bed.event), Stream(seed, "picard"), dtype=torch.float64)
    run = picard(plan, bed, x, window=window, tolerance=tolerance, rng=seed)
    return {"rounds": run.rounds, "evaluations": run.evaluations, **distance(run.x, plan.run(bed, x, rng=seed).x)}


def solved(name: str, seed: int, window: int, tolerance: float) -> dict[str, float]:
    """Return the same for an ODE."""
    field, d, end = FIELDS[name]
    y0 = 1 + Stream(seed, "picard").normal((32, d), dtype=torch.float64)
    times = torch.linspace(0, end, ROWS + 1, dtype=torch.float64)
    run = picard_ode(field, y0, times, method=Dopri5(), window=window, tolerance=tolerance)
    true = integrate(field, y0, 0.0, end, method=Dopri5(), controller=Steps(times)).y1
    return {"rounds": run.rounds, "evaluations": run.evaluations, **distance(run.ys[-1], true)}


def table(seeds: int, windows: list[int], tolerances: list[float]) -> list[dict[str, Any]]:
    rows = []
    for window in windows:
        for tolerance in tolerances:
            for bed_name, bed in BEDS.items():
                for plan_name, compile_plan in PLANS.items():
                    plan = compile_plan(grids.log_snr(PROCESS, ROWS))
                    cells = [sampled(bed(), plan, seed, window, tolerance) for seed in range(seeds)]
                    rows.append(row(f"{bed_name}, {plan_name}", window, tolerance, cells))
            for name in FIELDS:
                cells = [solved(name, seed, window, tolerance) for seed in range(seeds)]
                rows.append(row(name, window, tolerance, cells))
    return rows


def row(what: str, window: int, tolerance: float, cells: list[dict[str, float]]) -> dict[str, Any]:
    return {"what": what, "window": window, "tolerance": tolerance, "cells": cells}


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | window | tolerance | rounds / steps | worst seed | evaluations / steps | rms | largest |"]
    lines.append("|---" * 8 + "|")
    for r in sorted(rows, key=lambda r: (r["what"], r["window"], -r["tolerance"])):
        cells = r["cells"]
        mean = {key: sum(c[key] for c in cells) / len(cells) for key in ("rounds", "evaluations", "rms")}
        worst, largest = max(c["rounds"] for c in cells), max(c["largest"] for c in cells)
        lines.append(
            f"| {r['what']} | {r['window']} | {r['tolerance']:g} | {mean['rounds'] / ROWS:.2f} | {worst / ROWS:.2f} | "
            f"{mean['evaluations'] / ROWS:.1f} | {mean['rms']:.1e} | {largest:.1e} |"
        )
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    versions = result["versions"]
    lines = [
        "# Rounds of Picard iteration",
        "",
        f"Written by `python benchmarks/picard.py --seeds {result['seeds']}`; isocline {versions['isocline']}, torch "
        f"{versions['torch']}, Python {versions['python']}. {ROWS} steps, 32 samples, mean over {result['seeds']} seeds. "
        "Rounds are sequential network calls in units of those of the sequential run; evaluations are what they amount to "
        "together. The tolerance of plans is in units of the noise that ancestral sampling adds in a step, that of the ODEs in "
        "units of the state. Errors are distances to the sequential run. The bar was 0.4 rounds a step.",
        "",
        markdown(result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="3 seeds, one window; prints, writes no files")
    given = parser.parse_args()
    seeds = 3 if given.quick else given.seeds
    windows, tolerances = ([100], [0.1, 0.0]) if given.quick else ([20, 50, 100], [0.1, 0.01, 0.0])
    result = {
        "seeds": seeds,
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "rows": table(seeds, windows, tolerances),
    }
    print(markdown(result["rows"]))
    if not given.quick:
        files.write_json(given.out / "picard.json", result)
        files.write_text(given.out / "picard.md", page(result))


if __name__ == "__main__":
    main()
