"""Does depth harm a graph network? GRAND against a graph convolutional network, from 2 to 64 layers.

    python benchmarks/grand.py [--seeds 5] [--quick]

GRAND with explicit Euler and h = 1, so that T is the number of layers: linear (attention of the first state) and nonlinear
(attention at each step). Beside it a GCN of that many layers. Three graphs: nearest neighbours of scikit-learn's digits (5 labels
a class), contextual stochastic block models (n = 1500, 3 classes, 5 labels a class, a new one for each seed), and WordNet's nouns
(10 labels a class, `isocline data fetch wordnet`). Width, updates, rate, weight decay, dropout and the rule of stopping are the
same for all: the weights with the highest accuracy on 10 validation nodes a class count (of equal ones those with the lower loss),
looked at every fourth update. Accuracy is on all other nodes.

A second table integrates GRAND-l to T = 32 by implicit Euler with h = 8 (GMRES) and by Dopri5 with tolerance 1e-2.

Cells are kept in ``runs/grand`` and taken from there. Writes ``docs/benchmarks/grand.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._version import __version__
from isocline.datasets import NodeData, NodeSplit, contextual_blocks, digits_graph, load_wordnet
from isocline.integrators import PID, Dopri5, Euler, ImplicitEuler, NewtonKrylov, integrate
from isocline.networks.graph import GCN, Diffusion, Grand, Graph, LinearDiffusion, NonlinearDiffusion

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/grand")
DEPTHS = (2, 4, 8, 16, 32, 64)
WIDTH, UPDATES, RATE, DECAY, DROPOUT, VALIDATION = 16, 60, 0.02, 5e-4, 0.3, 10
BEDS: dict[str, tuple[Callable[[int], NodeData], int]] = {
    "digits": (lambda seed: digits_graph(5), 5),
    "block model": (lambda seed: contextual_blocks(rng=seed), 5),
    "nouns": (lambda seed: load_wordnet(), 10),
}
EULER = partial(integrate, method=Euler(), dt0=1.0)
KRYLOV = NewtonKrylov(rtol=1e-3, atol=1e-3, exact=1e-4)
SOLVERS = {
    "explicit Euler, h = 1": EULER,
    "implicit Euler, h = 8": partial(integrate, method=ImplicitEuler(solver=KRYLOV), dt0=8.0),
    "Dopri5, tolerance 1e-2": partial(integrate, method=Dopri5(), controller=PID(1e-2, 1e-2)),
}


def grand(kind: type[Diffusion], data: NodeData, time: float, solve: Callable[..., Any]) -> nn.Module:
    diffusion = kind(WIDTH, heads=2, size=8)
    return Grand(
        data.features.shape[1], len(data.classes), diffusion, width=WIDTH, time=time, solve=solve, dropout=DROPOUT
    )


MODELS: dict[str, Callable[[NodeData, int], nn.Module]] = {
    "GRAND-l": lambda data, depth: grand(LinearDiffusion, data, float(depth), EULER),
    "GRAND-nl": lambda data, depth: grand(NonlinearDiffusion, data, float(depth), EULER),
    "GCN": lambda data, depth: GCN(
        data.features.shape[1], len(data.classes), width=WIDTH, depth=depth, dropout=DROPOUT
    ),
}


def fit(model: nn.Module, data: NodeData, graph: Graph, split: NodeSplit) -> float:
    """Train and return the accuracy on the test nodes at the moment that the validation nodes chose."""
    optimiser = torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY)
    best, chosen = (-1.0, 0.0), 0.0
    for k in range(UPDATES):
        model.train()
        loss = nn.functional.cross_entropy(model(data.features, graph)[split.train], data.labels[split.train])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if k % 4 == 3:
            scores = scores_of(model, data, graph)
            miss = nn.functional.cross_entropy(scores[split.validation], data.labels[split.validation])
            now = (accuracy(scores, data, split.validation), -float(miss))
            if now > best:
                best, chosen = now, accuracy(scores, data, split.test)
    return chosen


@torch.no_grad()
def scores_of(model: nn.Module, data: NodeData, graph: Graph) -> Tensor:
    return model.eval()(data.features, graph)


def accuracy(scores: Tensor, data: NodeData, nodes: Tensor) -> float:
    return float((scores[nodes].argmax(1) == data.labels[nodes]).double().mean())


def cell(bed: str, name: str, make: Callable[[NodeData], nn.Module], seed: int) -> dict[str, Any]:
    path = RUNS / f"{bed}, {name}, {seed}.json"
    if path.is_file():
        return files.read_json(path)
    load, labels = BEDS[bed]
    data = load(seed)
    graph, split = data.graph.with_self_loops(), data.split(labels, validation=VALIDATION, rng=seed)
    torch.manual_seed(seed)
    model, began = make(data), time.monotonic()
    found: dict[str, Any] = {"accuracy": fit(model, data, graph, split), "seconds": time.monotonic() - began}
    if isinstance(model, Grand):
        with torch.no_grad():
            found["nfe"] = int(model.eval().solution(data.features, graph).stats.nfe)
    files.ensure_folder(RUNS)
    files.write_json(path, found)
    print(f"{bed:12s} {name:40s} seed {seed}: {found['accuracy']:.3f}  {found['seconds']:.0f} s", flush=True)
    return found


def table(seeds: int, beds: list[str], depths: list[int]) -> list[dict[str, Any]]:
    """Return accuracies for each graph, model and depth; seeds outermost, so that what is there is balanced."""
    rows = {
        (bed, name, depth): {"bed": bed, "model": name, "depth": depth, "cells": []}
        for bed in beds
        for name in MODELS
        for depth in depths
    }
    for seed in range(seeds):
        for (bed, name, depth), row in rows.items():
            make = partial(lambda data, name, depth: MODELS[name](data, depth), name=name, depth=depth)
            row["cells"].append(cell(bed, f"{name} {depth}", make, seed))
    return list(rows.values())


def solver_table(seeds: int, beds: list[str]) -> list[dict[str, Any]]:
    rows = []
    for bed in beds:
        for name, solve in SOLVERS.items():
            make = partial(lambda data, solve: grand(LinearDiffusion, data, 32.0, solve), solve=solve)
            cells = [cell(bed, f"GRAND-l to 32, {name}", make, seed) for seed in range(seeds)]
            rows.append({"bed": bed, "solver": name, "cells": cells})
    return rows


def accuracies(rows: list[dict[str, Any]], bed: str, model: str) -> tuple[list[int], np.ndarray]:
    """Return depths, and 100 times the accuracies (depths, seeds)."""
    mine = [row for row in rows if (row["bed"], row["model"]) == (bed, model)]
    return [r["depth"] for r in mine], 100 * np.array([[c["accuracy"] for c in r["cells"]] for r in mine])


def markdown(rows: list[dict[str, Any]]) -> str:
    depths = sorted({row["depth"] for row in rows})
    lines = ["| graph | model | " + " | ".join(map(str, depths)) + " |", "|---" * (2 + len(depths)) + "|"]
    for bed in dict.fromkeys(row["bed"] for row in rows):
        for model in MODELS:
            _, found = accuracies(rows, bed, model)
            shown = " | ".join(f"{each.mean():.1f} ± {each.std():.1f}" for each in found)
            lines.append(f"| {bed} | {model} | {shown} |")
    return "\n".join(lines)


def claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    """Return claim, seeds in which it holds, and whether these are at least four fifths."""
    out = []
    for bed in dict.fromkeys(row["bed"] for row in rows):
        for model in MODELS:
            depths, found = accuracies(rows, bed, model)
            for depth in (d for d in (32, 64) if d in depths):
                loss = found.max(0) - found[depths.index(depth)]
                holds = (loss >= 10) if model == "GCN" else (loss <= 2)
                bar = "at least 10 points below" if model == "GCN" else "within 2 points of"
                text = f"{bed}: {model} at depth {depth} is {bar} its best depth (mean loss {loss.mean():.1f})"
                out.append((text, f"{holds.sum()} of {len(holds)}", bool(holds.mean() >= 0.8)))
        for depth in (2, 4):
            depths, ours = accuracies(rows, bed, "GRAND-nl")
            ours, theirs = ours[depths.index(depth)], accuracies(rows, bed, "GCN")[1][depths.index(depth)]
            text = f"{bed}: GRAND-nl is no worse than GCN at depth {depth} (mean gain {(ours - theirs).mean():.1f})"
            out.append((text, f"{(ours >= theirs).sum()} of {len(ours)}", bool((ours >= theirs).mean() >= 0.8)))
    return out


def claim_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| claim | seeds | |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| {text} | {seeds} | {'holds' if good else 'does not hold'} |" for text, seeds, good in claims(rows)]
    )


def solver_markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| graph | solver | accuracy | evaluations | seconds of training |", "|---|---|---|---|---|"]
    for row in rows:
        found = 100 * np.array([c["accuracy"] for c in row["cells"]])
        nfe, seconds = (np.mean([c[key] for c in row["cells"]]) for key in ("nfe", "seconds"))
        lines.append(
            f"| {row['bed']} | {row['solver']} | {found.mean():.1f} ± {found.std():.1f} | {nfe:.0f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    versions = result["versions"]
    return (
        "# Depth of graph networks\n\n"
        f"Written by `python benchmarks/grand.py --seeds {result['seeds']}`; isocline {versions['isocline']}, torch "
        f"{versions['torch']}, Python {versions['python']}. Test accuracy in per cent, mean and standard deviation over seeds. "
        "Columns are layers, which for GRAND are steps of explicit Euler with h = 1. "
        f"Width {WIDTH}, {UPDATES} updates of Adam, the same rule of stopping for all. "
        "A deep GCN here has neither shortcuts nor normalisation, so that what it loses need not be smoothing alone. "
        "Cora, Citeseer and Pubmed are not reproduced: no package ships them.\n\n"
        + markdown(result["rows"])
        + "\n\nWhat was claimed beforehand, and in how many seeds it is so; four of five were asked for.\n\n"
        + claim_table(result["rows"])
        + "\n\n## Other integrators\n\nGRAND-l to T = 32. Evaluations are those of one prediction; for implicit steps most of "
        "them are products with the Jacobian. Seconds are of one core that other programs shared.\n\n"
        + solver_markdown(result["solvers"])
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--quick", action="store_true", help="1 seed, the block model, depths to 8; prints, writes no tables"
    )
    given = parser.parse_args()
    seeds, beds = (1, ["block model"]) if given.quick else (given.seeds, list(BEDS))
    rows = table(seeds, beds, [2, 4, 8] if given.quick else list(DEPTHS))
    print(markdown(rows), claim_table(rows), sep="\n\n")
    if given.quick:
        return
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    result = {"seeds": seeds, "versions": versions, "rows": rows, "solvers": solver_table(seeds, beds)}
    print(solver_markdown(result["solvers"]))
    files.write_json(given.out / "grand.json", result)
    files.write_text(given.out / "grand.md", page(result))


if __name__ == "__main__":
    main()
