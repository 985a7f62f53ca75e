"""Convection by a network: points that follow the residual against fixed and redrawn ones.

    python benchmarks/r3.py [--steps 20000] [--seeds 5] [--beta 30] [--only R3]

``u_t + beta u_x = 0`` on [0, 2 pi] x [0, 1] from sin x, periodic (arXiv 2207.02338): a 4 x 50 tanh network in float32, 1000 points
inside, weight 100 on the start and on periodicity, Adam at 1e-3 with a cosine, compiled. All contenders take the same number of
steps with as many evaluations each: R3, its causal form, uniform points redrawn at every step (the honest baseline), uniform points
drawn once. The error is relative L2 against the exact solution on points of its own. Cells are kept in ``runs/r3``; seeds
that ``docs/benchmarks/r3.json`` has are not run again. Writes that file and ``r3.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

import isocline as iso
from isocline._core import files
from isocline._version import __version__
from isocline.equations.library import convection
from isocline.networks import MLP
from isocline.points import R3, CausalR3, Uniform
from isocline.recipes.solve import TrainingPoints, solve

ROOT = Path(__file__).parent.parent
N, FACES = 1000, 100
POINTS = {
    "fixed": TrainingPoints(Uniform(N), Uniform(FACES)),
    "redrawn": TrainingPoints(Uniform(N), Uniform(FACES), every=1),
    "R3": TrainingPoints(R3(N), Uniform(FACES), every=1),
    "causal R3": TrainingPoints(CausalR3(N), Uniform(FACES), every=1),
}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = MLP(2, 1, width=50, depth=4, activation=nn.Tanh)
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return made


def cell(name: str, beta: float, seed: int, steps: int, folder: Path) -> dict[str, float]:
    path = folder / f"{name.replace(' ', '-')}-{beta:g}-{steps}-{seed}.json"
    if not path.exists():
        found = solve(
            convection(beta), network(seed), POINTS[name], lambda m: torch.optim.Adam(m.parameters(), lr=1e-3),
            iso.Budget(evaluations=steps), weights={"conditions": 100.0}, rng=seed, classical=False, compile=True,
        )  # fmt: skip
        assert found.error.relative_l2 is not None
        files.write_json(path, {"error": found.error.relative_l2.value, "seconds": found.cost.seconds})
    kept: dict[str, float] = files.read_json(path)
    return kept


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = [
        "# Points that follow the residual",
        "",
        f"Written by `python benchmarks/r3.py`; {result['versions']}.",
        "",
        doc,
        "",
    ]
    for title, table in result["tables"].items():
        lines += [
            f"## {title}",
            "",
            "| points | median error | smallest | largest | seconds |",
            "|---|---|---|---|---|",
        ]
        for name, cells in table.items():
            values = [c["error"] for c in cells]
            seconds = statistics.median(c["seconds"] for c in cells)
            middle = statistics.median(values)
            lines.append(f"| {name} | {middle:.2e} | {min(values):.2e} | {max(values):.2e} | {seconds:.0f} |")
        lines += ["", *verdicts(table), ""]
    return "\n".join(lines) + "\n"


def verdicts(table: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = []
    for base, bar in (("redrawn", 0.5), ("fixed", 0.2)):
        pairs = list(zip(table.get("R3", []), table.get(base, []), strict=False))
        if pairs:
            wins = sum(a["error"] <= bar * b["error"] for a, b in pairs)
            verdict = "holds" if wins >= 0.8 * len(pairs) else "fails"
            lines.append(
                f"- R3 at most {bar} times the error of {base} points: {wins} of {len(pairs)} seeds (bar 4 of 5: {verdict})."
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--beta", type=float, default=30.0)
    parser.add_argument("--only", choices=tuple(POINTS), action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "r3.json"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"tables": {}}
    title = f"beta = {given.beta:g}, {given.steps} steps"
    table: dict[str, list[dict[str, float]]] = result["tables"].setdefault(title, {})
    for seed in range(given.seeds):
        for name in given.only or POINTS:
            cells = table.setdefault(name, [])
            if len(cells) == seed:
                cells.append(cell(name, given.beta, seed, given.steps, ROOT / "runs" / "r3"))
        result["versions"] = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        files.write_json(path, result)
        files.write_text(given.out / "r3.md", page(result))


if __name__ == "__main__":
    main()
