"""Which points to train on: the error of a solution against the number of points inside, rule by rule.

    python benchmarks/pinn_points.py [--quick] [--only poisson] [--seeds 5]

Each cell is `isocline.solve` with its default network (conditions by construction, 3 x 24 tanh, float64) and 60 Gauss-Newton
steps (150 in four dimensions) on N points that are drawn once; only the rule differs: uniform, Latin hypercube, Sobol (N a
power of two), good lattices (Fibonacci in two dimensions, else by search), folded by the tent on every axis that is not
periodic. The error is relative L2 against the problem's reference on points of its own. The claim (arXiv 2307.13869): at N
points a lattice has the error that uniform and Latin hypercube points reach with 2 N or more. For each N of the lattice the
factor is the least N of the other rule whose median error is as small, interpolated in log N, over N; where its largest N does
not reach it, the factor is at least that. Cells are kept in ``runs/pinn_points``. Seeds that
``docs/benchmarks/pinn_points.json`` has are not run again. Writes that file and ``.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import torch

import isocline as iso
from isocline._core import files
from isocline._version import __version__
from isocline.equations import Periodic, Problem, library
from isocline.points import Folded, GoodLattice, LatinHypercube, Sampler, Sobol, Uniform
from isocline.recipes.solve import TrainingPoints, solve

ROOT = Path(__file__).parent.parent
STUCK = 0.1
FIBONACCI = (55, 89, 144, 233, 377, 610, 987)
Table = dict[str, dict[str, list[float]]]
POWERS = (64, 128, 256, 512, 1024)


class Case(NamedTuple):
    """A problem, how many points its rules have (Sobol: powers of two) and how many steps are made."""

    build: Callable[[], Problem]
    sizes: tuple[int, ...] = FIBONACCI
    powers: tuple[int, ...] = POWERS
    steps: int = 60


PROBLEMS = {
    "poisson": Case(library.poisson),
    "allen-cahn": Case(library.allen_cahn),
    "schroedinger": Case(library.schroedinger),
    "korteweg-de-vries": Case(library.korteweg_de_vries),
    "poisson-4d": Case(library.poisson_4d, (1009, 2003, 4001), (1024, 2048, 4096), 150),
}
QUICK = ("poisson",)


def rules(case: Case) -> dict[str, tuple[Callable[[int], Sampler], tuple[int, ...]]]:
    """Return for each rule how it is made for N points, and which N it is tried with."""
    problem = case.build()
    periodic = {c.axis for c in problem.conditions if isinstance(c, Periodic)}
    folded = tuple(name for name in problem.names if name not in periodic)

    def lattice(n: int) -> Sampler:
        return Folded(GoodLattice(n), axes=folded) if folded else GoodLattice(n)

    return {
        "lattice": (lattice, case.sizes),
        "uniform": (Uniform, case.sizes),
        "Latin hypercube": (LatinHypercube, case.sizes),
        "Sobol": (Sobol, case.powers),
    }


def cell(name: str, rule: str, n: int, seed: int, folder: Path) -> float:
    """Return the error of one run, from the folder where it is there."""
    path = folder / f"{name}-{rule.replace(' ', '-')}-{n}-{seed}.json"
    if not path.exists():
        case = PROBLEMS[name]
        points = TrainingPoints(rules(case)[rule][0](n), Sobol(16))
        budget = iso.Budget(evaluations=case.steps)
        found = solve(case.build(), points=points, budget=budget, rng=seed, classical=False)
        assert found.error.relative_l2 is not None
        files.write_json(path, {"error": found.error.relative_l2.value, "seconds": found.cost.seconds})
    return float(files.read_json(path)["error"])


def grown(name: str, seed: int, table: Table, folder: Path) -> Table:
    """Return a table of errors by rule and N with one more seed; what it has is not run again."""
    found: Table = {}
    for rule, (_, sizes) in rules(PROBLEMS[name]).items():
        before = table.get(rule, {})
        found[rule] = {str(n): before.get(str(n), []) for n in sizes}
        for n, values in found[rule].items():
            if len(values) == seed:
                values.append(cell(name, rule, int(n), seed, folder))
    return found


def factor(lattice: float, other: dict[int, float], n: int) -> tuple[float, bool]:
    """Return how many times N another rule needs for an error, and whether it reached it at all."""
    sizes = sorted(other)
    for small, large in itertools.pairwise(sizes):
        if other[small] <= lattice:
            return small / n, True
        if other[large] <= lattice:
            share = math.log(other[small] / lattice) / math.log(other[small] / other[large])
            return small * (large / small) ** share / n, True
    return sizes[-1] / n, False


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = [
        "# Points to train on",
        "",
        f"Written by `python benchmarks/pinn_points.py`; {result['versions']}.",
        "",
        doc,
        "",
    ]
    for name, table in result["problems"].items():
        seeds = len(next(iter(table["lattice"].values())))
        lines += [
            f"## {name}",
            "",
            f"Median error of {seeds} seeds, smallest and largest.",
            "",
            "| rule | N | median | smallest | largest |",
        ]
        lines.append("|---|---|---|---|---|")
        for rule, sizes in table.items():
            for n, values in sizes.items():
                lines.append(
                    f"| {rule} | {n} | {statistics.median(values):.2e} | {min(values):.2e} | {max(values):.2e} |"
                )
        lines += ["", *factors(table), stuck(table), ""]
    return "\n".join(lines) + "\n"


def stuck(table: dict[str, dict[str, list[float]]]) -> str:
    """Return how many runs of each rule have not left the plateau that training begins on."""
    runs = {rule: [value for values in sizes.values() for value in values] for rule, sizes in table.items()}
    counts = [f"{rule} {sum(v > STUCK for v in values)} of {len(values)}" for rule, values in runs.items()]
    return f"- Runs with an error above {STUCK}, which the factors are made of too: {', '.join(counts)}."


def factors(table: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return a line for each other rule: the median factor over all N of the lattice."""
    middle = {rule: {int(n): statistics.median(values) for n, values in sizes.items()} for rule, sizes in table.items()}
    lines = []
    for rule in ("uniform", "Latin hypercube", "Sobol"):
        found = [
            factor(error, middle[rule], n)
            for n, error in middle["lattice"].items()
            if 2 * n <= 1.01 * max(middle["lattice"])
        ]
        value = statistics.median(value for value, _ in found)
        open_ended = sum(not reached for _, reached in found)
        bar = "" if rule == "Sobol" else f" Bar 2: {'holds' if value >= 2 else 'fails'}."
        lines.append(
            f"- {rule} needs {value:.2f} times the points of the lattice (median; {open_ended} of {len(found)} not reached).{bar}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="Poisson in two dimensions, 3 seeds.")
    parser.add_argument("--only", choices=tuple(PROBLEMS), default=None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "pinn_points.json"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"problems": {}}
    names = (given.only,) if given.only else QUICK if given.quick else tuple(PROBLEMS)
    for name, seed in itertools.product(names, range(3 if given.quick else given.seeds)):
        before = result["problems"].get(name, {})
        result["problems"][name] = grown(name, seed, before, ROOT / "runs" / "pinn_points")
        result["versions"] = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        files.write_json(path, result)
        files.write_text(given.out / "pinn_points.md", page(result))


if __name__ == "__main__":
    main()
