"""MMGP on notched plates: errors, intervals and seconds, beside a network and simpler guesses from the same runs.

    python benchmarks/mmgp.py             about 20 minutes on one core; goes on where it was stopped
    python benchmarks/mmgp.py --quick     one seed, few runs; prints, writes nothing

150 runs to learn from, 40 unseen ones, and 10 with larger notches than any seen; five seeds, each with runs of its own. Beside
MMGP:

- mean: the mean field of the training runs at the same place of the common mesh; for numbers their mean;
- inputs only: a Gaussian process for the numbers that sees the load and Poisson's ratio, but no shape;
- network: a multilayer perceptron from place, distance to the boundary, inputs and both edges at 12 heights to the fields, trained
  with Adam for as many CPU seconds as MMGP took to fit.

Field errors are relative L2 errors over vertices, root mean square over runs; Q^2 is one minus the squared error over the variance.
Writes ``docs/benchmarks/mmgp.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from isocline._core import files
from isocline._version import __version__
from isocline.datasets.simulators.plates import Plates
from isocline.meshes import MeshRun, interpolation, to_disc
from isocline.operators.gaussian_process import GaussianProcess
from isocline.operators.mmgp import MMGP

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
SEEDS, TRAIN, TEST, FAR = 5, 150, 40, 10
FIELDS, SCALARS = ("displacement_x", "displacement_y", "stress"), ("compliance", "stress_max")
MODES, RESTARTS = 16, 2
LARGER = Plates(left_radius=(0.28, 0.34), right_radius=(0.28, 0.34))
HEIGHTS = torch.linspace(-0.9, 0.9, 12, dtype=torch.float64)
Row = dict[str, Any]


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def rms(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).square().mean().sqrt())


def q2(found: Sequence[float], truth: Sequence[float]) -> float:
    a, b = torch.tensor(found, dtype=torch.float64), torch.tensor(truth, dtype=torch.float64)
    return 1 - float((a - b).square().sum() / (b - b.mean()).square().sum())


def mean_field(model: MMGP, run: MeshRun, name: str) -> Tensor:
    """Return the mean of the training fields at the vertices of a run."""
    back = interpolation(model.common, to_disc(run.mesh, model.at).points)
    return torch.from_numpy(back @ model.fields[name].modes.mean.numpy())


def description(run: MeshRun) -> Tensor:
    """Return what the network sees at each vertex, (N, 29)."""
    x, edge = run.mesh.points, run.mesh.points[run.mesh.loop]
    distance = torch.from_numpy(cKDTree(edge.numpy()).query(x.numpy())[0])
    sides = []
    for side in (edge[:, 0] < 0, edge[:, 0] > 0):
        part = edge[side]
        sides.append(part[(part[:, 1] - HEIGHTS[:, None]).abs().argmin(1), 0])
    shared = torch.cat([torch.tensor([run.inputs["gradient"], run.inputs["nu"]], dtype=torch.float64), *sides])
    return torch.cat([x, distance[:, None], shared.expand(len(x), -1)], 1)


def network(runs: Sequence[MeshRun], seconds: float, seed: int) -> Callable[[MeshRun], Tensor]:
    """Return the network trained on runs for CPU seconds; it gives the fields (N, 3) of a run."""
    torch.manual_seed(seed)
    x = torch.cat([description(run) for run in runs]).float()
    y = torch.cat([torch.stack([run.fields[name] for name in FIELDS], 1) for run in runs]).float()
    scale = [(v.mean(0), v.std(0).clamp(min=1e-6)) for v in (x, y)]
    x, y = ((v - mean) / std for v, (mean, std) in zip((x, y), scale, strict=True))
    widths = [x.shape[1], 96, 96, 96, 96]
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.GELU())]
    body = nn.Sequential(*layers, nn.Linear(96, y.shape[1]))
    adam = torch.optim.Adam(body.parameters(), 2e-3)
    began = time.process_time()
    while (spent := (time.process_time() - began) / seconds) < 1:
        adam.param_groups[0]["lr"] = 2e-3 * max(1 - spent, 0.01)
        some = torch.randint(len(x), (2048,))
        adam.zero_grad()
        (body(x[some]) - y[some]).square().mean().backward()
        adam.step()

    def predict(run: MeshRun) -> Tensor:
        with torch.no_grad():
            found = body((description(run).float() - scale[0][0]) / scale[0][1])
        return (found * scale[1][1] + scale[1][0]).double()

    return predict


def measured(seed: int, train: int = TRAIN, test: int = TEST, far: int = FAR) -> Row:
    """Return all figures of one seed."""
    began = time.process_time()
    known = Plates().runs(train, seed)
    simulated = time.process_time() - began
    unseen, larger = Plates().runs(test, seed, first=train), LARGER.runs(far, 1000 + seed)
    wall, began = time.perf_counter(), time.process_time()
    model = MMGP.fit(known, field_modes=MODES, restarts=RESTARTS, rng=seed)
    row: Row = {
        "fit": time.process_time() - began,
        "fit wall": time.perf_counter() - wall,
        "simulated": simulated / train,
    }
    began = time.process_time()
    found = [model.predict(run, rng=i) for i, run in enumerate(unseen)]
    row["predict"] = (time.process_time() - began) / test
    net = network(known, row["fit"], seed)
    others = [net(run) for run in unseen]
    kept = [model.representation(run) for run in unseen]
    beyond = [model.predict(run, rng=i) for i, run in enumerate(larger)]
    for k, name in enumerate(FIELDS):
        pairs = [(f[name], run.fields[name]) for f, run in zip(found, unseen, strict=True)]
        row[name] = {
            "MMGP": rms([relative(f.mean, truth) for f, truth in pairs]),
            "network": rms([relative(o[:, k], truth) for o, (_, truth) in zip(others, pairs, strict=True)]),
            "mean": rms([relative(mean_field(model, run, name), run.fields[name]) for run in unseen]),
            "interpolation": rms([relative(r[name][0], truth) for r, (_, truth) in zip(kept, pairs, strict=True)]),
            "modes": rms([relative(r[name][1], truth) for r, (_, truth) in zip(kept, pairs, strict=True)]),
            "coverage": statistics.mean(covered(f.interval(0.9), truth) for f, truth in pairs),
            "larger": wider([f[name].std for f in found], [f[name].std for f in beyond]),
        }
    plain = inputs_only(known, unseen)
    for k, name in enumerate(SCALARS):
        truth = [run.scalars[name] for run in unseen]
        parts = [f[name] for f in found]
        row[name] = {
            "MMGP": q2([float(p.mean) for p in parts], truth),
            "inputs only": q2(plain[:, k].tolist(), truth),
            "mean": q2([statistics.mean(run.scalars[name] for run in known)] * test, truth),
            "coverage": statistics.mean(
                covered(p.interval(0.9), torch.tensor(t)) for p, t in zip(parts, truth, strict=True)
            ),
            "larger": wider([p.std for p in parts], [f[name].std for f in beyond]),
        }
    return row


def covered(interval: tuple[Tensor, Tensor], truth: Tensor) -> float:
    return float(((truth >= interval[0]) & (truth <= interval[1])).double().mean())


def wider(near: Sequence[Tensor], far: Sequence[Tensor]) -> float:
    """Return the ratio of median variances, far to near."""
    first, second = (statistics.median(float(s.square().mean()) for s in part) for part in (near, far))
    return second / first


def inputs_only(known: Sequence[MeshRun], unseen: Sequence[MeshRun]) -> Tensor:
    """Return numbers (M, 2) from a process without shapes."""
    x, new = (
        torch.tensor([list(run.inputs.values()) for run in runs], dtype=torch.float64) for runs in (known, unseen)
    )
    y = torch.tensor([[run.scalars[name] for name in SCALARS] for run in known], dtype=torch.float64)
    return GaussianProcess.fit(x, y, restarts=RESTARTS).predict(new)[0]


def spread(values: Sequence[float], form: str = ".3g") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(names: Sequence[str], columns: Sequence[str], rows: Sequence[Row], what: str) -> str:
    lines = [f"| {what} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [spread([r[name][column] for r in rows]) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mark(holds: bool) -> str:
    return "met" if holds else "**not met**"


def verdict(rows: Sequence[Row]) -> str:
    """Return what became of the bars."""
    said = []
    for name in (*FIELDS, *SCALARS):
        cover = statistics.median(r[name]["coverage"] for r in rows)
        said.append(f"90 % intervals of {name} cover 80 to 97 % {mark(0.8 <= cover <= 0.97)} ({100 * cover:.1f} %)")
    for name in SCALARS:
        found = statistics.median(r[name]["MMGP"] for r in rows)
        said.append(f"Q^2 of {name} at least 0.98 {mark(found >= 0.98)} ({found:.3f})")
    for name in FIELDS:
        wins = sum(r[name]["MMGP"] <= 0.5 * r[name]["network"] for r in rows)
        said.append(
            f"error of {name} at most half the network's in every seed {mark(wins == len(rows))} ({wins} of {len(rows)})"
        )
    up = sum(all(r[name]["larger"] > 1 for name in FIELDS) for r in rows)
    said.append(f"larger notches raise the variance of all fields {mark(up == len(rows))} ({up} of {len(rows)})")
    longest = max(r["fit wall"] for r in rows)
    said.append(f"fitted within 120 s {mark(longest <= 120)} (longest {longest:.0f} s)")
    return "\n".join(f"- {line}" for line in said)


def page(rows: Sequence[Row]) -> str:
    cpu = {key: spread([r[key] for r in rows], ".2f") for key in ("simulated", "predict", "fit", "fit wall")}
    fields = table(FIELDS, ("MMGP", "network", "mean", "interpolation", "modes"), rows, "relative error")
    scalars = table(SCALARS, ("MMGP", "inputs only", "mean"), rows, "Q^2")
    intervals = table((*FIELDS, *SCALARS), ("coverage", "larger"), rows, "")
    return (
        f"# MMGP on notched plates\n\nWritten by `python benchmarks/mmgp.py`; isocline {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}. {TRAIN} runs to learn from, {TEST} unseen, {FAR} with larger notches; "
        f"{len(rows)} seeds: medians, with the least and the greatest. {MODES} modes for each field, {RESTARTS} starts of each "
        "fit.\n\n"
        f"{fields}\n\nInterpolation is the error of a known field after both interpolations, modes that with the projection to "
        f"{MODES} modes: no learning is in either.\n\n{scalars}\n\n{intervals}\n\nCoverage is that of 90 % intervals; larger is "
        "the ratio of the median variance for larger notches to that for unseen plates.\n\n"
        f"CPU seconds: {cpu['simulated']} for a simulation, {cpu['fit']} to fit (wall: {cpu['fit wall']}, on a core that other "
        f"work shared), {cpu['predict']} for a prediction with 256 draws.\n\n## Bars\n\n{verdict(rows)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few runs; prints, writes nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        print(measured(0, 20, 4, 2))
        return
    stored = given.out / "mmgp.json"
    rows: dict[str, Row] = files.read_json(stored)["rows"] if stored.exists() else {}
    for seed in range(SEEDS):
        if str(seed) not in rows:
            rows[str(seed)] = measured(seed)
            print(seed, rows[str(seed)], flush=True)
            files.write_json(stored, {"version": __version__, "rows": rows})
            files.write_text(given.out / "mmgp.md", page(list(rows.values())))
    print(page(list(rows.values())))


if __name__ == "__main__":
    main()
