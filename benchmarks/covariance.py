"""Covariance augmentation on an elliptic equation: test errors with and without, at equal steps.

    python benchmarks/covariance.py             about 25 minutes on one core; goes on where it was stopped
    python benchmarks/covariance.py --quick     20 steps of each network; prints, writes nothing

``-div(a grad u) = f`` on the unit square, u = 0 at the boundary, with a smooth random tensor a and a smooth random f, solved with
linear elements on 17 x 17 points. A network maps (a, f, place) to u: a dilated residual network (two blocks of dilations 1, 2, 4,
8, 4, 2, 1) and a Fourier neural operator. Each is trained on 300 samples for 2000 steps of 10, with Adam and a cosine schedule, on
the relative L2 error, once on the samples as they are and once with a random change of coordinates for every second one. Both see
the full tensor. Five seeds of data and weights; 100 unseen samples, never changed. Writes ``docs/benchmarks/covariance.json`` and
``.md``.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets.covariance import Covariance
from isocline.datasets.fields import Batch, DataSpec, FieldSpec
from isocline.networks.fno import FNO

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
SEEDS, TRAIN, TEST, STEPS, BATCH, CELLS = 5, 300, 100, 2000, 10, 16
Row = dict[str, Any]
FIELDS = (FieldSpec("u"), FieldSpec("a", 2, varies=False), FieldSpec("f", varies=False))
SPEC = DataSpec("elliptic", FIELDS, ("x", "y"), (0, 0), (1, 1), (CELLS + 1,) * 2, ("wall", "wall"), 1, 0.0)
LINE = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64)
GRID = torch.stack(torch.meshgrid(LINE, LINE, indexing="ij"), -1)
AUGMENT = Covariance("a", source="f", strength=0.4)


def smooth(n: int, rng: Stream) -> Tensor:
    """Return random sums (n, 17, 17) of 4 x 4 cosines that decay."""
    waves = torch.cos(math.pi * torch.arange(4) * LINE[:, None])
    size = 1 / (1 + torch.arange(4.0, dtype=torch.float64)[:, None] ** 2 + torch.arange(4.0) ** 2)
    return torch.einsum("nkl,xk,yl->nxy", rng.normal((n, 4, 4), dtype=torch.float64) * size, waves, waves)


def solution(a: Tensor, f: Tensor) -> Tensor:
    """Return u (17, 17) of a (17, 17, 2, 2) and f (17, 17), by linear elements on two triangles in each cell."""
    n = CELLS + 1
    number = np.arange(n * n).reshape(n, n)
    p, q, r, s = (part.ravel() for part in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    cells = np.concatenate([np.stack([p, q, r], 1), np.stack([p, r, s], 1)])
    corners, area = GRID.reshape(-1, 2).numpy()[cells], 0.5 / CELLS**2
    edges = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)
    slopes = np.stack([-edges[..., 1], edges[..., 0]], -1) / (2 * area)
    middle = a.reshape(-1, 2, 2).numpy()[cells].mean(1)
    local = area * np.einsum("tid,tde,tje->tij", slopes, middle, slopes)
    rows, columns = np.repeat(cells, 3, 1).ravel(), np.tile(cells, (1, 3)).ravel()
    system = sparse.csr_matrix((local.ravel(), (rows, columns)), shape=(n * n, n * n))
    load = np.bincount(cells.ravel(), np.repeat(f.flatten().numpy()[cells].mean(1) * area / 3, 3), n * n)
    inner, u = number[1:-1, 1:-1].ravel(), np.zeros(n * n)
    u[inner] = spsolve(system[inner][:, inner].tocsc(), load[inner])
    return torch.from_numpy(u).reshape(n, n)


@cache
def samples(seed: int) -> Batch:
    """Return all samples of a seed: those to learn from, then the unseen ones."""
    n, rng = TRAIN + TEST, Stream(seed, "elliptic")
    first, second, mixed, source = (smooth(n, rng.child(name)) for name in ("first", "second", "mixed", "source"))
    first, second = first.exp(), second.exp()
    other = 0.5 * (first * second).sqrt() * torch.tanh(mixed)
    a, f = torch.stack([first, other, other, second], -1), 1 + source
    u = torch.stack([solution(x.unflatten(-1, (2, 2)), y) for x, y in zip(a, f, strict=True)])
    zeros = torch.zeros(n, 1, dtype=torch.float64)
    frames = u[:, None, ..., None]
    constants = torch.cat([a, f.unsqueeze(-1)], -1)
    return Batch(SPEC, frames[:, :0], frames, zeros, zeros[:, 0], torch.zeros(n, 0), GRID, constants)


def part(batch: Batch, chosen: Tensor) -> Batch:
    """Return some of the samples."""
    assert batch.constants is not None
    arrays = (batch.x[chosen], batch.target[chosen], batch.t[chosen], batch.dt[chosen], batch.parameters[chosen])
    return Batch(batch.spec, *arrays, batch.coordinates, batch.constants[chosen])


class DilatedBlock(nn.Module):
    """Seven convolutions of growing and falling dilation around the identity (Stachenfeld et al., arXiv 2112.15275)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for by in (1, 2, 4, 8, 4, 2, 1):
            layers += [nn.Conv2d(width, width, 3, padding=by, dilation=by), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, *S)."""
        found: Tensor = x + self.body(x)
        return found


def network(name: str) -> nn.Module:
    if name == "dilated ResNet":
        blocks = [DilatedBlock(24), DilatedBlock(24)]
        return nn.Sequential(nn.Conv2d(7, 24, 3, padding=1), *blocks, nn.Conv2d(24, 1, 3, padding=1))
    return FNO(7, 1, (6, 6), width=20, depth=4, padding=0.25)


def channels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return inputs (B, 7, *S) and outputs (B, 1, *S)."""
    assert batch.constants is not None
    places = GRID.expand(len(batch), *GRID.shape)
    return torch.cat([batch.constants, places], -1).movedim(-1, 1).float(), batch.target[:, 0].movedim(-1, 1).float()


def relative(found: Tensor, truth: Tensor) -> Tensor:
    return (found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def measured(name: str, augmented: bool, seed: int, steps: int = STEPS) -> Row:
    """Return the mean relative error on unseen samples and on those learnt from, and CPU seconds."""
    data = samples(seed)
    known, unseen = part(data, torch.arange(TRAIN)), part(data, torch.arange(TRAIN, TRAIN + TEST))
    x, y = channels(known)
    mean, std, scale = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True), y.std()
    torch.manual_seed(seed)
    body = network(name)
    adam = torch.optim.Adam(body.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    began, rng = time.process_time(), Stream(seed, "training")
    for step in range(steps):
        some = rng.child("cases").permutation(TRAIN, step=step)[:BATCH]
        x, y = channels(part(known, some))
        if augmented:
            half = some[: BATCH // 2]
            x[: BATCH // 2], y[: BATCH // 2] = channels(AUGMENT(part(known, half), rng.child(step)))
        adam.zero_grad()
        relative(body((x - mean) / std), y / scale).mean().backward()
        adam.step()
        schedule.step()
    seconds = time.process_time() - began
    with torch.no_grad():
        pairs = [channels(b) for b in (unseen, known)]
        errors = [float(relative(scale * body((x - mean) / std), y).mean()) for x, y in pairs]
    return {"error": errors[0], "training error": errors[1], "seconds": seconds}


NETWORKS = ("dilated ResNet", "FNO")
WAYS = {"as they are": False, "augmented": True}


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def page(rows: dict[str, Row]) -> str:
    lines = ["| network | samples | seeds | error, unseen | error, learnt from | CPU seconds |", "|---" * 6 + "|"]
    said = []
    for name in NETWORKS:
        for way in WAYS:
            found = [row for key, row in rows.items() if key.startswith(f"{name}/{way}/")]
            if found:
                cells = [shown([r[key] for r in found]) for key in ("error", "training error", "seconds")]
                lines.append(f"| {name} | {way} | {len(found)} | {' | '.join(cells)} |")
        seeds = [s for s in range(SEEDS) if all(f"{name}/{way}/{s}" in rows for way in WAYS)]
        if seeds:
            ratios = [rows[f"{name}/augmented/{s}"]["error"] / rows[f"{name}/as they are/{s}"]["error"] for s in seeds]
            better = sum(r <= 0.9 for r in ratios)
            said.append(
                f"- {name}: error with over error without {shown(ratios)}; at most 0.9 in {better} of {len(seeds)}."
            )
            if name == "dilated ResNet":
                met = "met" if len(seeds) == SEEDS and better >= 4 else "**not met**"
                said.append(f"  Bar, a gain of 10 % in at least 4 of 5 seeds: {met}.")
    return (
        f"# Covariance augmentation\n\nWritten by `python benchmarks/covariance.py`; isocline {__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}. {TRAIN} samples to learn from, {TEST} unseen, {STEPS} steps of "
        f"{BATCH}; {CELLS + 1} x {CELLS + 1} points. Relative L2 errors: medians, with the least and the greatest.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "\n".join(said)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 steps of each network; prints, writes nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        for name in NETWORKS:
            for way, augmented in WAYS.items():
                print(name, way, measured(name, augmented, 0, 20))
        return
    stored = given.out / "covariance.json"
    rows: dict[str, Row] = files.read_json(stored)["rows"] if stored.exists() else {}
    for name in NETWORKS:
        for seed in range(SEEDS):
            for way, augmented in WAYS.items():
                key = f"{name}/{way}/{seed}"
                if key not in rows:
                    rows[key] = measured(name, augmented, seed)
                    print(key, rows[key], flush=True)
                    files.write_json(stored, {"version": __version__, "rows": rows})
                    files.write_text(given.out / "covariance.md", page(rows))
    print(page(rows))


if __name__ == "__main__":
    main()
