"""The message passing PDE solver on the combined equation: pushforward, bundles of frames, random nodes, and WENO.

    python benchmarks/mp_pde.py --quick             one step against pushforward, 3 seeds, a tenth of the training
    python benchmarks/mp_pde.py                     also single frames and random nodes; goes on with what is missing
    python benchmarks/mp_pde.py --experiment E2     viscosities in (0, 0.2), of which the network is told
    python benchmarks/mp_pde.py --stored            writes the page again from what is stored

256 trajectories of `CombinedEquation1D` (250 frames until t = 4, solved on 1600 cells, stored on 200) to learn from and 32 unseen
ones to judge by. A network sees 25 frames on 100 nodes: averages over pairs of cells (uniform), or 100 random ones of the 200
cells, others in every window. Its width is 64, its depth 4, its ball three cells to each side; it is not told the forcing. Bundles
have 25 frames, so that a trajectory takes 9 calls; "single frames" predicts one, in 225 calls. Adam, batch 4, rate 3e-3 with a
cosine, averaged weights, relative L2 loss, float32. One forward pass counts 1 and its gradient 2, so that an update costs 3 on one
step; pushforward unrolls 0, then up to 1, then up to 2 windows, the last from half of the training on, and costs 3.625 in the mean.
Every contender takes as many updates as the same total allows. Trainings are short, about 70 seconds of one free thread: what is
said here need not hold for longer ones. Errors are those of all 225 frames after the given ones: the paper's, the sum over frames
of the mean square over nodes, and the relative L2 error in the last frame; a case that is lost counts as 10. WENO of fifth order is
our own, starts from the exact averages in the last given frame and is told the forcing, as one row is not; it is compared with the
fine solution's averages over its own cells. The rate and the batch were chosen by the training loss of a short run on 32 of the
training cases. Cells are kept in ``runs/mp_pde``. Writes ``docs/benchmarks/mp_pde.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.stream import Stream, as_stream
from isocline._version import __version__
from isocline.datasets import Stored, generate
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.datasets.simulators import CombinedEquation1D
from isocline.datasets.simulators.ce1d import LENGTH
from isocline.equations.classical.finite_volume import averaged
from isocline.equations.classical.weno import CombinedEquation
from isocline.metrics import relative_error
from isocline.operators import MessagePassing, Normaliser, OneStep, Pushforward, Strategy, fit, rollout
from isocline.training import Part, Settings

ROOT = Path(__file__).parent.parent
STORED, NODES, FRAMES, PAST = 200, 100, 250, 25
TRAIN, TEST, WIDTH, DEPTH, BATCH = 256, 32, 64, 4, 4
LOST, SLACK, COARSE = 10.0, 1.5, 40
BARS = ("one step", "pushforward, single frames", f"WENO on {COARSE} cells")


@dataclass(frozen=True)
class Contender:
    """What is trained, and with how many seeds."""

    pushes: bool = True
    bundle: int = PAST
    random: bool = False
    seeds: int = 5

    @property
    def cost(self) -> float:
        """Forward passes of an update, in the mean over the training."""
        return 3.625 if self.pushes else 3.0

    def strategy(self, updates: int) -> Strategy:
        """Return what it is trained on."""
        return Pushforward(2, warmup=max(updates // 2, 1)) if self.pushes else OneStep()


CONTENDERS = {
    "one step": Contender(pushes=False),
    "pushforward": Contender(),
    "pushforward, single frames": Contender(bundle=1, seeds=3),
    "pushforward, random nodes": Contender(random=True, seeds=3),
}
QUICK = ("one step", "pushforward")


@dataclass(frozen=True)
class OnNodes:
    """Windows on 100 nodes: averages over pairs of stored cells, or random ones of the cells."""

    stored: Stored
    random: bool = False

    @property
    def spec(self) -> DataSpec:
        """That of the nodes."""
        return self.stored.spec.at((NODES,))

    def draw(
        self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Part | None = None
    ) -> Batch:
        """Return the part of the batch of an update."""
        part = part or Part()
        batch = self.stored.draw(step, window, batch_size, split, rng, part)
        return self.seen(batch, rng.child("nodes"), step, part.first(batch_size))

    def seen(self, batch: Batch, rng: Stream, step: int = 0, first: int = 0) -> Batch:
        """Return windows of the stored cells on the nodes."""
        if not self.random:
            places = batch.coordinates.unflatten(0, (NODES, -1)).mean(1)
            return replace(batch, spec=self.spec, x=halved(batch.x), y=halved(batch.target), coordinates=places)
        drawn = rng.uniform((len(batch), STORED), step=step, first=first)
        kept = drawn.argsort(1)[:, :NODES].sort(1).values
        x, y = (v.take_along_dim(kept[:, None, :, None], 2) for v in (batch.x, batch.target))
        return replace(batch, spec=self.spec, x=x, y=y, coordinates=batch.coordinates[kept])


def halved(frames: Tensor) -> Tensor:
    return frames.unflatten(2, (NODES, -1)).mean(3)


def simulator(experiment: str) -> CombinedEquation1D:
    return CombinedEquation1D(experiment, resolution=STORED, frames=FRAMES)  # type: ignore[arg-type]


def data(experiment: str, folder: Path) -> Stored:
    """Return trajectories on 200 cells; they are made once."""
    where = folder / f"data-{experiment}"
    generate(simulator(experiment), where, train=TRAIN, test=TEST, rng=0)
    return Stored(where)


def whole(stored: Stored, split: str) -> list[Batch]:
    return list(stored.batches(Window(PAST, FRAMES - PAST), TEST, split))


def cell(name: str, seed: int, total: float, experiment: str, folder: Path) -> dict[str, Any]:
    path = folder / f"{experiment}-{name.replace(' ', '-').replace(',', '')}-{total:g}-{seed}.json"
    if not path.exists():
        who, stored = CONTENDERS[name], data(experiment, folder)
        source, updates = OnNodes(stored, who.random), int(total / who.cost)
        normaliser = Normaliser.of(source.spec, [OnNodes(stored).seen(b, Stream(0)) for b in whole(stored, "train")])
        torch.manual_seed(seed)
        how: dict[str, Any] = {"radius": 3.5 / NODES, "width": WIDTH, "depth": DEPTH}
        model = MessagePassing(source.spec, Window(PAST, who.bundle), normaliser, **how)
        settings = Settings(updates, BATCH, 3e-3, 50, 0.995, seed=seed, checkpoint_every=250)
        fitted = fit(model, source, settings, folder / path.stem, strategy=who.strategy(updates))
        figures = judged(model, stored, bundled=who.bundle > 1)
        files.write_json(path, {**figures, "seconds": fitted.cost.seconds, "updates": updates})
    kept: dict[str, Any] = files.read_json(path)
    return kept


def judged(model: MessagePassing, stored: Stored, *, bundled: bool) -> dict[str, float]:
    """Return errors of rollouts of unseen cases on uniform nodes and, for bundles, on random ones, and seconds a case."""
    (batch,) = whole(stored, "test")
    began = time.perf_counter()
    found = rolled(model, OnNodes(stored).seen(batch, Stream(0)))
    found["seconds a case"] = (time.perf_counter() - began) / TEST
    if bundled:
        random = rolled(model, OnNodes(stored, random=True).seen(batch, Stream(7, "nodes")))
        found |= {f"{name}, random": value for name, value in random.items()}
    return found


def rolled(model: MessagePassing, batch: Batch) -> dict[str, float]:
    return errors(rollout(model, batch, FRAMES - PAST).frames, batch.target)


def errors(u: Tensor, v: Tensor) -> dict[str, float]:
    """Return means over cases; frames are ``(B, T, N, 1)``."""
    summed = (u - v).square().mean((2, 3)).sum(1).nan_to_num(LOST * FRAMES)
    last = relative_error(u[:, -1:], v[:, -1:]).nan_to_num(LOST).clamp(max=LOST)
    return {"summed": float(summed.clamp(max=LOST * FRAMES).mean()), "last": float(last.mean())}


def baselines(experiment: str, folder: Path) -> dict[str, dict[str, float]]:
    """Return errors of persistence and of WENO on 40 and 100 cells, also without forcing, and seconds a case."""
    path = folder / f"{experiment}-baselines.json"
    if not path.exists():
        (batch,) = whole(data(experiment, folder), "test")
        near = OnNodes(data(experiment, folder)).seen(batch, Stream(0))
        found = {"persistence": errors(near.x[:, -1:].expand_as(near.target), near.target)}
        for cells in (COARSE, NODES):
            found[f"WENO on {cells} cells"] = solved(batch, experiment, cells)
        found[f"WENO on {COARSE} cells, not told the forcing"] = solved(batch, experiment, COARSE, told=False)
        files.write_json(path, found)
    kept: dict[str, dict[str, float]] = files.read_json(path)
    return kept


def solved(batch: Batch, experiment: str, cells: int, *, told: bool = True) -> dict[str, float]:
    made = simulator(experiment)
    cases = made.sample(TEST, as_stream(0).child("test"))
    p, forcing = cases.parameters, made.forcing(cases, cells) if told else None
    solver = CombinedEquation(LENGTH, p["alpha"], p["beta"], p["gamma"], forcing, made.cfl)
    exact = averaged(torch.cat([batch.x[:, -1:], batch.target], 1)[..., 0].double(), STORED // cells, 1)
    times = [made.spec.dt * k for k in range(PAST - 1, FRAMES)]
    began = time.perf_counter()
    frames = torch.stack(list(solver.march(exact[:, 0], times)), 1)
    seconds = (time.perf_counter() - began) / TEST
    return {**errors(frames[:, 1:, :, None], exact[:, 1:, :, None]), "seconds a case": seconds}


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Message passing on the combined equation", ""]
    lines += [f"Written by `python benchmarks/mp_pde.py`; {result['versions']}.", "", doc, ""]
    lines += ["Medians over seeds, and ranges. Times are wall times on a shared machine.", ""]
    for title, table in result["tables"].items():
        lines += [f"## {title}", "", *rows(table), "", *verdicts(table), ""]
    return "\n".join(lines)


def rows(table: dict[str, Any]) -> list[str]:
    head = "| | seeds | updates | summed error | last frame, relative L2 | on random nodes: summed | last | training s | s a case |"
    lines = [head, "|---" * 9 + "|"]
    for name, cells in table["contenders"].items():
        if cells:
            spread = [ranged(cells, k) for k in ("summed", "last", "summed, random", "last, random")]
            lines.append(
                f"| {name} | {len(cells)} | {middle(cells, 'updates'):.0f} | {' | '.join(spread)} | "
                f"{middle(cells, 'seconds'):.0f} | {middle(cells, 'seconds a case'):.3f} |"
            )
    for name, found in table["baselines"].items():
        seconds = f"{found['seconds a case']:.3f}" if "seconds a case" in found else ""
        lines.append(f"| {name} | | | {found['summed']:.3g} | {found['last']:.3g} | | | | {seconds} |")
    return lines


def ranged(cells: list[dict[str, float]], key: str) -> str:
    if key not in cells[0]:
        return ""
    values = [c[key] for c in cells]
    return f"{statistics.median(values):.3g} ({min(values):.3g} ... {max(values):.3g})"


def middle(cells: list[dict[str, float]], key: str) -> float:
    return statistics.median(c[key] for c in cells)


def verdicts(table: dict[str, Any]) -> list[str]:
    cells = {name: found for name, found in table["contenders"].items() if found}
    ours = cells.get("pushforward")
    if not ours:
        return []
    rivals = {name: found for name, found in cells.items() if name in BARS}
    rivals |= {name: [found] * len(ours) for name, found in table["baselines"].items()}
    lines = [beaten(name, ours, theirs) for name, theirs in rivals.items()]
    on_random = cells.get("pushforward, random nodes", [])
    if on_random:
        lines.append(within("trained and judged on random nodes", on_random, ours))
    lines.append(within("trained on uniform nodes, judged on random ones", ours, ours))
    return lines + [f"- {name}: not measured here." for name in CONTENDERS if name not in cells]


def beaten(name: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    pairs = list(zip(ours, theirs, strict=False))
    wins = {key: sum(a[key] < b[key] for a, b in pairs) for key in ("last", "summed")}
    verdict = "holds" if wins["last"] >= 0.8 * len(pairs) else "fails"
    bar = f" (bar 4 of 5: {verdict})" if name in BARS else ""
    return (
        f"- pushforward against {name}: smaller error in the last frame in {wins['last']} of {len(pairs)} seeds{bar}, smaller "
        f"summed error in {wins['summed']}."
    )


def within(what: str, theirs: list[dict[str, float]], ours: list[dict[str, float]]) -> str:
    pairs = list(zip(theirs, ours, strict=False))
    last, summed = (statistics.median(a[f"{k}, random"] / b[k] for a, b in pairs) for k in ("last", "summed"))
    verdict = "holds" if max(last, summed) <= SLACK else "fails"
    return (
        f"- {what}: {last:.2f} times the last frame's error on uniform nodes, {summed:.2f} times the summed one "
        f"(medians; bar {SLACK} on both: {verdict})."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick", action="store_true", help="one step against pushforward, 3 seeds, a tenth of the training"
    )
    parser.add_argument("--experiment", choices=("E1", "E2", "E3"), default="E1")
    parser.add_argument("--total", type=float, default=5_000, help="forward passes of a batch that training may cost")
    parser.add_argument("--only", choices=tuple(CONTENDERS), action="append")
    parser.add_argument("--stored", action="store_true", help="write the page from what is stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path, folder = given.out / "mp_pde.json", ROOT / "runs" / "mp_pde"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"tables": {}}
    total = given.total / 10 if given.quick else given.total
    names = QUICK if given.quick else (given.only or tuple(CONTENDERS))
    if given.stored:
        files.write_text(given.out / "mp_pde.md", page(result))
        return
    title = f"{given.experiment}, {total:g} forward passes of a batch"
    table = result["tables"].setdefault(title, {"contenders": {}, "baselines": baselines(given.experiment, folder)})
    for seed in range(3 if given.quick else 5):
        for name in names:
            cells = table["contenders"].setdefault(name, [])
            if len(cells) == seed < CONTENDERS[name].seeds:  # what is stored is not run again
                cells.append(cell(name, seed, total, given.experiment, folder))
                result["versions"] = (
                    f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
                )
                files.write_json(path, result)
                files.write_text(given.out / "mp_pde.md", page(result))


if __name__ == "__main__":
    main()
