"""Fourier neural operators: isocline beside neuraloperator, in time for a training step and for an evaluation.

    python benchmarks/fno.py [--repeats 30] [--quick]

One dimension: width 64, 16 frequencies, 1024 points, batch 20. Two dimensions: width 32, 12 frequencies an axis, 64 x 64 points,
batch 16. Four blocks, one channel in and out, coordinates appended, float32 on one thread. neuraloperator is asked for 30, and for
23 x 22, modes, which are the same frequencies.

Contenders take turns in each repeat: neuraloperator with its defaults (a channel MLP in each block), neuraloperator without channel
MLP, isocline with the weights of the latter (`fno_from_neuralop`: the same function), isocline with its defaults, and T1 of the
same width and depth with twice as many cosines, which reach the same wave numbers. A training step is forward, mean square,
backward and Adam. Processor time; medians, and ratios of medians with 95 % intervals (bootstrap).

Writes ``docs/benchmarks/fno.json`` and ``.md``; with ``--quick`` (3 repeats) it only prints the page. neuraloperator is in
``benchmarks/requirements.txt``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.estimate import bootstrap_median, bootstrap_median_ratio
from isocline._version import __version__
from isocline.networks import FNO, T1, fno_from_neuralop, with_coordinates

ROOT = Path(__file__).parent.parent
SIZES: dict[str, dict[str, Any]] = {
    "1-D, 1024 points": {"grid": (1024,), "width": 64, "modes": (16,), "theirs": (30,), "batch": 20},
    "2-D, 64 x 64 points": {"grid": (64, 64), "width": 32, "modes": (12, 12), "theirs": (23, 22), "batch": 16},
}
PEER, SAME, OURS, ONCE = "neuraloperator, no channel MLP", "isocline, its weights", "isocline", "isocline, T1"
BARS = [(OURS, PEER, 0.8, ("1-D, 1024 points", "2-D, 64 x 64 points")), (ONCE, OURS, 0.6, ("1-D, 1024 points",))]
KINDS = ("training step", "evaluation")
Run = Callable[[], None]


class Placed(nn.Module):
    """A network that is given coordinates; neuraloperator appends them by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network of x with coordinates appended."""
        found: Tensor = self.network(with_coordinates(x))
        return found


def contenders(
    grid: tuple[int, ...], width: int, modes: tuple[int, ...], theirs: tuple[int, ...]
) -> dict[str, nn.Module]:
    import neuralop.models as peers

    torch.manual_seed(0)
    settings = {"n_modes": theirs, "in_channels": 1, "out_channels": 1, "hidden_channels": width}
    plain = peers.FNO(**settings, use_channel_mlp=False)
    return {
        "neuraloperator, defaults": peers.FNO(**settings),
        PEER: plain,
        SAME: Placed(fno_from_neuralop(plain.state_dict())),
        OURS: Placed(FNO(1 + len(grid), 1, modes, width=width)),
        ONCE: T1(1, 1, [2 * m for m in modes], grid, width=width),
    }


def runs(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Run]:
    """Return one training step and one evaluation."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad():
            network(x)

    return dict(zip(KINDS, (step, evaluate), strict=True))


def gap(networks: dict[str, nn.Module], x: Tensor) -> float:
    """Return how far the two networks of one function are apart, relative to the largest value."""
    with torch.no_grad():
        theirs, ours = networks[PEER](x), networks[SAME](x)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def measured(repeats: int, grid: tuple[int, ...], batch: int, **shape: Any) -> dict[str, Any]:
    """Return the medians in milliseconds and their ratios, from interleaved repeats."""
    networks = contenders(grid, **shape)
    x, y = torch.randn(batch, 1, *grid), torch.randn(batch, 1, *grid)
    apart = gap(networks, x)
    made = {name: runs(network, x, y) for name, network in networks.items()}
    times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in networks} for kind in KINDS}
    for repeat in range(-1, repeats):  # the first round warms up
        for name, kinds in made.items():
            for kind, run in kinds.items():
                begun = time.process_time()
                run()
                if repeat >= 0:
                    times[kind][name].append((time.process_time() - begun) * 1e3)
    counts = {name: sum(map(numbers, network.parameters())) for name, network in networks.items()}
    return {"gap": apart, "parameters": counts, "times": {kind: summary(table) for kind, table in times.items()}}


def numbers(p: Tensor) -> int:
    """Return how many real numbers a parameter has."""
    return p.numel() * (2 if p.is_complex() else 1)


def summary(table: dict[str, list[float]]) -> dict[str, Any]:
    values = {name: torch.tensor(row) for name, row in table.items()}
    found: dict[str, Any] = {}
    for name, row in values.items():
        ratios = {to: bootstrap_median_ratio(row, values[to], 0) for to in (PEER, OURS)}
        triples = {to: [r.value, r.low, r.high] for to, r in ratios.items()}
        found[name] = {"median": bootstrap_median(row, 0).value, "ratios": triples}
    return found


def page(result: dict[str, Any]) -> str:
    doc = (__doc__ or "").split("\n\n")
    lines = ["# Fourier neural operators beside neuraloperator", ""]
    lines += [f"Written by `python benchmarks/fno.py`; {result['versions']}; {result['repeats']} repeats.", ""]
    lines += [" ".join(part.split()) + "\n" for part in doc[2:4]]
    for size, found in result["sizes"].items():
        lines += [f"## {size}", "", f"Largest difference of the two networks of one function: {found['gap']:.1e}.", ""]
        for kind, table in found["times"].items():
            lines += [f"| {kind}, ms | parameters | median | to {PEER} | to {OURS} |", "|---|---|---|---|---|"]
            for name, row in table.items():
                ratios = " | ".join("{:.2f} [{:.2f}, {:.2f}]".format(*row["ratios"][to]) for to in (PEER, OURS))
                lines.append(f"| {name} | {found['parameters'][name]:,} | {row['median']:.1f} | {ratios} |")
            lines.append("")
    return "\n".join([*lines, "## Bars", "", *verdicts(result)]) + "\n"


def verdicts(result: dict[str, Any]) -> list[str]:
    """Return one line for each bar: it holds where the whole interval is below it."""
    lines = []
    for name, to, bar, sizes in BARS:
        for size in sizes:
            for kind in KINDS if name == OURS else KINDS[:1]:
                value, low, high = result["sizes"][size]["times"][kind][name]["ratios"][to]
                verdict = "holds" if high <= bar else "fails" if low > bar else "is not decided"
                lines.append(
                    f"- {name} to {to}, {kind}, {size}: {value:.2f} [{low:.2f}, {high:.2f}]; bar {bar} {verdict}."
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import neuralop

    repeats = 3 if given.quick else given.repeats
    versions = f"isocline {__version__}, neuraloperator {neuralop.__version__}, torch {torch.__version__}"
    result: dict[str, Any] = {"versions": f"{versions}, Python {platform.python_version()}", "repeats": repeats}
    result["sizes"] = {size: measured(repeats, **shape) for size, shape in SIZES.items()}
    if given.quick:
        print(page(result))
        return
    files.write_json(given.out / "fno.json", result)
    files.write_text(given.out / "fno.md", page(result))


if __name__ == "__main__":
    main()
