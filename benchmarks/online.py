"""Training beside the solver: windows as they are computed against fixed trajectories, a reservoir against a queue.

    python benchmarks/online.py [--seconds 240] [--seeds 5] [--cases 150] [--quick]

The heated plate of 32 x 32 points and 101 frames (Meyer et al., arXiv 2306.16133): an MLP of 3 x 256 maps five temperatures
and a time to the field, Adam at 1e-3, batches of 64, weights averaged over about 1000 steps, float32. The error is the root
mean square over 32 other cases, in kelvin. The solver is made to take 0.25 seconds a case by pauses, or it would give more
frames than a training can look at. Rows one and two: the same wall time, the solver's included, with a process that simulates
beside the training and a reservoir of 32 000 frames, or with 64 fixed cases; these go on beyond that time until they have as
many steps, and are judged there, too. Rows three and four: cases come in the order of their temperatures, and the training
takes the whole stream from a queue or from a reservoir of 2000 frames. Cells are kept in ``runs/online``. Writes
``docs/benchmarks/online.json`` and ``.md``; ``--quick`` runs 2 seeds, 20 seconds and 40 cases, and writes to ``runs/online``.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.stream import Stream, as_stream
from isocline._version import __version__
from isocline.datasets import FIFO, Batch, Buffer, Frame, PoolSource, Reservoir, Simulated, Window
from isocline.datasets.buffers import Policy
from isocline.datasets.simulators import Cases, Heat2D
from isocline.networks import MLP

ROOT = Path(__file__).parent.parent
WINDOW, SIZE, TESTS, FIXED = Window(0, 1), 64, 32, 64
TOGETHER = 16  # cases that the solver computes side by side, and pauses for
HEAT = Heat2D()


@dataclass(frozen=True)
class Slow(Heat2D):
    """A solver that pauses at every frame of its cases."""

    pause: float = 0.04

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames, slowly."""
        for frame in super().simulate(cases, resolution=resolution):
            time.sleep(self.pause)
            yield frame


@dataclass(frozen=True)
class Sweep(Slow):
    """Cases whose temperatures rise slowly with their number, up to some spread."""

    pause: float = 0.005
    total: int = 150
    spread: float = 0.2

    def sample(self, n: int, rng: Stream | int, first: int = 0) -> Cases:
        """Return the cases numbered first ... first + n - 1."""
        found = super().sample(n, as_stream(rng), first)
        rise = (torch.arange(first, first + n, dtype=torch.float64) % self.total) / self.total
        for name in ("initial", "left", "right", "bottom", "top"):
            u = (found.parameters[name] - self.low) / (self.high - self.low)
            u = self.spread * u + (1 - self.spread) * rise
            found.parameters[name] = self.low + (self.high - self.low) * u
        return found


class Surrogate:
    """The network, its optimiser, and what it is judged by."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = MLP(6, 32 * 32, width=256, depth=3, activation=torch.nn.ReLU)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        self.steps = 0

    def told(self, batch: Batch) -> Tensor:
        """Return the temperatures, in units of 400 K above 100 K, and the time, (B, 6)."""
        temperatures = (batch.parameters[:, :5] - HEAT.low) / (HEAT.high - HEAT.low)
        return torch.cat([temperatures, batch.t.float()], 1)

    def truth(self, batch: Batch) -> Tensor:
        """Return what it should be."""
        return (batch.target.flatten(1) - HEAT.low) / (HEAT.high - HEAT.low)

    def step(self, batch: Batch) -> None:
        """Take one step of the optimiser."""
        loss = (self.net(self.told(batch)) - self.truth(batch)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        for mean, p in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
            mean.lerp_(p.detach(), max(1e-3, 1 / self.steps))

    @torch.no_grad()
    def error(self, batch: Batch) -> float:
        """Return the root mean square error of the averaged weights in kelvin."""
        return float((self.averaged(self.told(batch)) - self.truth(batch)).square().mean().sqrt()) * (
            HEAT.high - HEAT.low
        )


def frames_of(source: Simulated, split: str, cases: Sequence[int]) -> Batch:
    """Return all frames of some cases."""
    pairs = [(c, k) for c in cases for k in range(HEAT.times)]
    return source.batch([c for c, _ in pairs], [k for _, k in pairs], WINDOW, split)


def beside(seed: int, seconds: float, test: Batch) -> dict[str, float]:
    """Train on frames as they are computed."""
    start, model = time.perf_counter(), Surrogate(seed)
    buffer: Buffer[Any] = Buffer(Reservoir(32_000, 640, seed))
    with PoolSource(Slow(), buffer, WINDOW, rng=seed, batch=TOGETHER) as source:
        while time.perf_counter() - start < seconds:
            model.step(source.draw(model.steps, WINDOW, SIZE, "train", Stream(seed)))
        received = buffer.received
    return {"error": model.error(test), "steps": model.steps, "frames": received}


def fixed(seed: int, seconds: float, test: Batch, mark: int) -> dict[str, float]:
    """Train on 64 cases; look at the error after `mark` steps, too."""
    start, model, rng = time.perf_counter(), Surrogate(seed), Stream(seed, "windows")
    source, marked, late = Simulated(Slow(), {"train": FIXED}, seed, TOGETHER), 0.0, 0.0
    while time.perf_counter() - start - late < seconds or model.steps < mark:
        model.step(source.draw(model.steps, WINDOW, SIZE, "train", rng))
        if model.steps == mark:
            before = time.perf_counter()
            marked = model.error(test)
            late = time.perf_counter() - before
    found = {"error": model.error(test), "steps": model.steps, "frames": FIXED * HEAT.times}
    return {**found, "error at equal steps": marked}


def swept(policy: Policy[Any], seed: int, sweep: Sweep, test: Batch) -> dict[str, float]:
    """Train on a whole ordered stream."""
    start, model = time.perf_counter(), Surrogate(seed)
    buffer: Buffer[Any] = Buffer(policy)
    first = 0.0
    with PoolSource(sweep, buffer, WINDOW, cases=sweep.total, rng=seed) as source:
        for batch in source.batches(WINDOW, SIZE):
            first = first or time.perf_counter()
            model.step(batch)
    took = time.perf_counter() - first
    found = {"error": model.error(test), "steps": model.steps, "frames": buffer.received}
    return {**found, "batches a second": model.steps / took, "seconds": time.perf_counter() - start}


def kept(path: Path, make: Callable[[], dict[str, float]]) -> dict[str, float]:
    if not path.exists():
        files.write_json(path, make())
    found: dict[str, float] = files.read_json(path)
    return found


def measured(seed: int, seconds: float, cases: int, folder: Path) -> dict[str, dict[str, float]]:
    test = frames_of(Simulated(HEAT, {"test": TESTS}, 1000 + seed), "test", range(TESTS))
    sweep = Sweep(total=cases)
    every = Simulated(Sweep(total=cases, pause=0.0), {"test": cases}, 1000 + seed)
    spread = frames_of(every, "test", [k * cases // TESTS for k in range(TESTS)])
    online = kept(folder / f"online-{seconds:g}-{seed}.json", lambda: beside(seed, seconds, test))
    mark = int(online["steps"])
    return {
        "online": online,
        "64 fixed cases": kept(folder / f"fixed-{seconds:g}-{seed}.json", lambda: fixed(seed, seconds, test, mark)),
        "queue": kept(folder / f"fifo-{cases}-{seed}.json", lambda: swept(FIFO(2000), seed, sweep, spread)),
        "reservoir": kept(
            folder / f"reservoir-{cases}-{seed}.json",
            lambda: swept(Reservoir(2000, 500, seed), seed, sweep, spread),
        ),
    }


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Training beside the solver", "", f"Written by `python benchmarks/online.py`; {result['versions']}.", ""]
    lines += [doc, "", f"Here: {result['seconds']:g} seconds, {result['cases']} cases in order.", ""]
    lines += ["| training | median error, K | smallest | largest | steps | frames | batches a second |"]
    lines += ["|---|---|---|---|---|---|---|"]
    cells = result["cells"]
    for name in cells[0]:
        errors = [c[name]["error"] for c in cells]
        steps, frames = (statistics.median(c[name][what] for c in cells) for what in ("steps", "frames"))
        rates = [c[name]["batches a second"] for c in cells if "batches a second" in c[name]]
        shown = f"{statistics.median(rates):.1f}" if rates else ""
        ends = f"{statistics.median(errors):.2f} | {min(errors):.2f} | {max(errors):.2f}"
        lines.append(f"| {name} | {ends} | {steps:.0f} | {frames:.0f} | {shown} |")
    return "\n".join([*lines, "", *verdicts(cells), ""])


def verdicts(cells: list[dict[str, dict[str, float]]]) -> list[str]:
    n = len(cells)

    def said(text: str, ratios: list[float], bar: float, wanted: float) -> str:
        wins = sum(r <= bar for r in ratios)
        verdict = "holds" if wins >= wanted * n else "fails"
        return f"- {text}: ratios {', '.join(f'{r:.2f}' for r in ratios)}; {wins} of {n} at most {bar:g} ({verdict})."

    time_ = [c["online"]["error"] / c["64 fixed cases"]["error"] for c in cells]
    steps = [c["online"]["error"] / c["64 fixed cases"]["error at equal steps"] for c in cells]
    sweep = [c["reservoir"]["error"] / c["queue"]["error"] for c in cells]
    rate = [c["queue"]["batches a second"] / c["reservoir"]["batches a second"] for c in cells]
    return [
        said("Error of online over fixed cases at equal time", time_, 0.8, 0.8),
        said("The same at equal steps", steps, 0.8, 0.8),
        said("Error of the reservoir over the queue on cases in order", sweep, 1.0, 1.0),
        said("Batches a second of the queue over the reservoir", rate, 0.2, 1.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.seeds, given.cases, given.out = 20.0, 2, 40, ROOT / "runs" / "online"
    torch.set_num_threads(1)
    versions = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    result: dict[str, Any] = {"seconds": given.seconds, "cases": given.cases, "versions": versions, "cells": []}
    for seed in range(given.seeds):
        result["cells"].append(measured(seed, given.seconds, given.cases, ROOT / "runs" / "online"))
        files.write_json(given.out / "online.json", result)
        files.write_text(given.out / "online.md", page(result))
    print(page(result))


if __name__ == "__main__":
    main()
