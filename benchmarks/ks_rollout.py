"""How far a surrogate of the Kuramoto-Sivashinsky equation stays correlated: strategies at equal multiplications.

    python benchmarks/ks_rollout.py --quick     one step against pushforward, 3 seeds
    python benchmarks/ks_rollout.py             also PDE-Refiner and a net of four times the parameters, 5 seeds; goes on
    python benchmarks/ks_rollout.py --stored    writes the page again from what is stored

512 trajectories of `KS1D` (L = 64 and dt = 0.2, each +- 10 %, viscosity 1, 256 points), 140 frames each; every fourth frame is
used. All contenders are the same periodic U-Net in float32, told L and dt, with differences as target and averaged weights; the
larger one has twice the width. Adam, batch 32, rate 1e-3 with a cosine. One forward pass counts 1 and its gradient 2, so an update
costs 3 on one step, 3.5 in the mean with pushforward over one window, 3 for PDE-Refiner, and 12 for the larger net, whose
products are four times as many: every contender takes as many updates as the same total allows. Judged on 64 trajectories of 640
frames: when the correlation with the solver falls below 0.9 and 0.8, the mean over trajectories; a step of PDE-Refiner costs four
passes there. Cells are kept in ``runs/ks_rollout``. Writes ``docs/benchmarks/ks_rollout.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from isocline._core import files
from isocline._version import __version__
from isocline.datasets import Stored, generate
from isocline.datasets.fields import Window
from isocline.datasets.simulators import KS1D
from isocline.metrics import correlation, high_correlation_time, relative_error
from isocline.operators import OneStep, Pushforward, Refine, Strategy, rollout
from isocline.recipes.operator import OperatorConfig, load_operator, train_operator
from isocline.training import Settings

ROOT = Path(__file__).parent.parent
STRIDE, WIDTH, BATCH, TRAIN, TEST = 4, 16, 32, 512, 64
BAR, THRESHOLDS = 1.2, (0.9, 0.8)


@dataclass(frozen=True)
class Contender:
    """What is trained, and what an update costs."""

    strategy: Strategy
    cost: float
    width: int = WIDTH
    refinement: int = 0


CONTENDERS = {
    "one step": Contender(OneStep(), 3.0),
    "pushforward": Contender(Pushforward(1), 3.5),
    "PDE-Refiner": Contender(Refine(), 3.0, refinement=3),
    "one step, 4 x parameters": Contender(OneStep(), 12.0, 2 * WIDTH),
}
QUICK = ("one step", "pushforward")


def sources(folder: Path) -> tuple[Stored, Stored]:
    """Return the training set and the long test set; they are made once."""
    generate(KS1D(), folder / "train", train=TRAIN, valid=16, rng=0)
    generate(KS1D(frames=640), folder / "long", train=1, test=TEST, rng=1)
    return Stored(folder / "train"), Stored(folder / "long")


def cell(name: str, seed: int, total: float, folder: Path) -> dict[str, Any]:
    path = folder / f"{name.replace(' ', '-').replace(',', '')}-{total:g}-{seed}.json"
    if not path.exists():
        train, long = sources(folder / "data")
        who = CONTENDERS[name]
        run = folder / path.stem
        config = OperatorConfig(
            "unet", who.width, train.spec, Window(1, 1, STRIDE), refinement=who.refinement, sigma_min=2e-3
        )
        settings = Settings(int(total / who.cost), BATCH, 1e-3, 100, 0.995, seed=seed, checkpoint_every=500)
        fitted, _ = train_operator(train, run, config, settings, strategy=who.strategy)
        figures = judged(run, long)
        files.write_json(path, {**figures, "seconds": fitted.cost.seconds, "updates": settings.steps})
    kept: dict[str, Any] = files.read_json(path)
    return kept


def judged(run: Path, source: Stored) -> dict[str, Any]:
    """Return correlation times, one-step error, and the parameters."""
    model = load_operator(run).model
    frames = (source.times("test") - 1) // STRIDE
    found: dict[str, list[torch.Tensor]] = {f"time {c:g}": [] for c in THRESHOLDS} | {"one step": []}
    for batch in source.batches(Window(1, frames, STRIDE), 32, "test"):
        done = rollout(model, batch, frames)
        like = correlation(done.frames, batch.target)
        ahead = batch.t - batch.t[:, :1] + batch.dt[:, None]
        for c in THRESHOLDS:
            found[f"time {c:g}"].append(high_correlation_time(like, ahead, c))
        found["one step"].append(relative_error(done.frames[:, :1], batch.target[:, :1])[:, 0])
    means = {name: float(torch.cat(values).mean()) for name, values in found.items()}
    return {**means, "parameters": sum(p.numel() for p in model.parameters())}


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Rollouts of the Kuramoto-Sivashinsky equation", ""]
    lines += [f"Written by `python benchmarks/ks_rollout.py`; {result['versions']}.", "", doc, ""]
    head = "| contender | seeds | parameters | updates | time above 0.9 | above 0.8 | one step, relative L2 | seconds |"
    for title, table in result["tables"].items():
        lines += [f"## {title}", "", head, "|---|---|---|---|---|---|---|---|"]
        for name, cells in table.items():
            middle = {k: statistics.median(c[k] for c in cells) for k in cells[0]}
            spread = f"{min(c['time 0.9'] for c in cells):.1f} ... {max(c['time 0.9'] for c in cells):.1f}"
            lines.append(
                f"| {name} | {len(cells)} | {middle['parameters']:.0f} | {middle['updates']:.0f} | {middle['time 0.9']:.1f} "
                f"({spread}) | {middle['time 0.8']:.1f} | {middle['one step']:.2e} | {middle['seconds']:.0f} |"
            )
        lines += ["", *verdicts(table), ""]
    return "\n".join(lines) + "\n"


def verdicts(table: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = []
    base = table.get("one step", [])
    for name, cells in table.items():
        pairs = list(zip(cells, base, strict=False))
        if name == "one step" or not pairs:
            continue
        ratios = [a["time 0.9"] / b["time 0.9"] for a, b in pairs]
        wins = sum(r >= BAR for r in ratios)
        verdict = "holds" if wins >= 0.8 * len(ratios) else "fails"
        bar = f" (bar 4 of 5: {verdict})" if "parameters" not in name else ""
        lines.append(
            f"- {name}: {statistics.median(ratios):.2f} times the time above 0.9 of one step (median); at least {BAR} times in "
            f"{wins} of {len(ratios)} seeds{bar}."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one step against pushforward, 3 seeds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total", type=float, default=9_000, help="forward passes of a batch that training may cost")
    parser.add_argument("--only", choices=tuple(CONTENDERS), action="append")
    parser.add_argument("--stored", action="store_true", help="write the page from what is stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "ks_rollout.json"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"tables": {}}
    title = f"{given.total:g} forward passes of a batch"
    seeds, names = (3, QUICK) if given.quick else (given.seeds, given.only or tuple(CONTENDERS))
    table: dict[str, list[dict[str, float]]] = result["tables"].setdefault(title, {})
    for seed in () if given.stored else range(seeds):
        for name in names:
            if len(table.setdefault(name, [])) == seed:  # what is stored is not run again
                table[name].append(cell(name, seed, given.total, ROOT / "runs" / "ks_rollout"))
        result["versions"] = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        files.write_json(path, result)
        files.write_text(given.out / "ks_rollout.md", page(result))
    if given.stored:
        files.write_text(given.out / "ks_rollout.md", page(result))


if __name__ == "__main__":
    main()
