"""Networks as grids: advection over a long time and a steady vortex, against first-order grids of as many numbers.

    python benchmarks/insr.py [--seeds 5]         goes on where it was stopped

A bump ``exp(-10 (1 - cos(x - pi)))`` carried at speed 0.25 around (0, 2 pi) for 12 units of time, steps of 0.1: implicit midpoint
steps of a periodic tanh network of 2 x 16 (`insr`, Gauss-Newton at 500 fresh points) and first-order upwind differences on as
many nodes as the network has parameters, its steps at half their limit. The Taylor-Green vortex, which is steady, for one unit
of time in steps of 0.1: splitting (`incompressible`) with two periodic networks of 2 x 24, and semi-Lagrangian steps with linear
interpolation and a projection by Fourier coefficients on a grid that stores as many numbers (the two velocities and the
pressure). Errors are relative L2 at the end. Float64, one thread. Seeds that ``docs/benchmarks/insr.json`` has are not run
again. Writes that file and ``.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from isocline._core import files
from isocline._version import __version__
from isocline.networks import MLP, PeriodicFeatures
from isocline.optimizers.evolution import GaussNewtonFit, divergence, incompressible, initial_fit, insr
from isocline.points import Box, PointSet, Uniform

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
PERIOD, SPEED, LONG, STEP = 2 * math.pi, 0.25, 12.0, 0.1
LINE, SQUARE = Box(x=(0.0, PERIOD)), Box(x=(0.0, PERIOD), y=(0.0, PERIOD))
Row = dict[str, float]


def periodic(box: Box, outputs: int, width: int) -> nn.Module:
    features = PeriodicFeatures(box)
    body = MLP(features.outputs, outputs, width=width, depth=2, activation=nn.Tanh)
    return nn.Sequential(features, body).double()


def size(*fields: nn.Module) -> int:
    return sum(p.numel() for field in fields for p in field.parameters())


def grid(n: int, d: int) -> Tensor:
    line = PERIOD * torch.arange(n, dtype=torch.float64) / n
    return torch.cartesian_prod(*[line] * d).reshape(-1, d)


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def bump(x: Tensor) -> Tensor:
    return torch.exp(-10 * (1 - torch.cos(x - math.pi)))


def vortex(x: Tensor) -> Tensor:
    a, b = x.unbind(1)
    return torch.stack([torch.sin(a) * torch.cos(b), -torch.cos(a) * torch.sin(b)], 1)


def advection() -> Row:
    field = periodic(LINE, 1, 16)
    start = initial_fit(field, bump, PointSet(grid(256, 1)), iterations=200, tolerance=1e-13)
    began = time.process_time()
    fit = GaussNewtonFit(6, tolerance=1e-12)
    steps = list(insr(field, lambda u, q: -SPEED * u.x, 0.0, LONG, STEP, LINE, sampler=Uniform(500), minimise=fit))
    seconds = time.process_time() - began
    x = grid(512, 1)
    error = relative(field(x).detach(), bump(x - SPEED * LONG))
    worst = max(step.loss for step in steps)
    return {"error": error, "numbers": size(field), "seconds": seconds, "start": start.loss, "loss": worst}


def upwind(n: int) -> Row:
    h = PERIOD / n
    count = math.ceil(LONG / (0.5 * h / SPEED))
    u, share = bump(grid(n, 1)), SPEED * LONG / count / h
    began = time.process_time()
    for _ in range(count):
        u = u - share * (u - u.roll(1, 0))
    seconds = time.process_time() - began
    return {"error": relative(u, bump(grid(n, 1) - SPEED * LONG)), "numbers": n, "seconds": seconds}


def flow() -> Row:
    velocity, pressure = periodic(SQUARE, 2, 24), periodic(SQUARE, 1, 24)
    start = initial_fit(velocity, vortex, PointSet(grid(32, 2)), iterations=60, tolerance=1e-12)
    began = time.process_time()
    fit = GaussNewtonFit(6, tolerance=1e-10)
    steps = list(incompressible(velocity, pressure, 0.0, 1.0, STEP, SQUARE, sampler=Uniform(800), minimise=fit))
    seconds = time.process_time() - began
    x = grid(64, 2)
    left = float(divergence(velocity, x).detach().square().mean().sqrt())
    return {
        "error": relative(velocity(x).detach(), vortex(x)),
        "numbers": size(velocity, pressure),
        "seconds": seconds,
        "start": start.loss,
        "loss": max(step.loss for step in steps),
        "divergence": left,
    }


def semi_lagrangian(n: int) -> Row:
    x = grid(n, 2).numpy()
    v = vortex(grid(n, 2)).numpy()
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square = np.maximum(kx**2 + ky**2, 1)
    began = time.process_time()
    for _ in range(round(1.0 / STEP)):
        back = ((x - STEP * v) * n / PERIOD).T
        carried = [map_coordinates(v[:, c].reshape(n, n), back, order=1, mode="grid-wrap") for c in (0, 1)]
        a, b = (np.fft.fft2(part.reshape(n, n)) for part in carried)
        along = (kx * a + ky * b) / square
        v = np.stack([np.fft.ifft2(part).real.ravel() for part in (a - kx * along, b - ky * along)], 1)
    seconds = time.process_time() - began
    return {"error": relative(torch.from_numpy(v), vortex(grid(n, 2))), "numbers": 3 * n * n, "seconds": seconds}


NETWORKS: dict[str, Callable[[], Row]] = {"advection": advection, "vortex": flow}
GRIDS: dict[str, Callable[[int], Row]] = {
    "advection": upwind,
    "vortex": lambda numbers: semi_lagrangian(math.isqrt(numbers // 3)),
}


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Networks as grids", "", f"Written by `python benchmarks/insr.py`; {result['versions']}.", "", doc, ""]
    lines += [
        "| problem | on | numbers | error | seconds | mean square of the worst fit |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in result["networks"].items():
        lines.append(f"| {name} | network, {len(rows)} seeds | {rows[0]['numbers']} | {spread(rows, 'error')} | "
                     f"{statistics.median(r['seconds'] for r in rows):.0f} | {max(r['loss'] for r in rows):.1e} |")  # fmt: skip
        one = result["grids"][name]
        lines.append(f"| {name} | grid | {one['numbers']} | {one['error']:.2e} | {one['seconds']:.2g} | |")
    return "\n".join([*lines, "", *verdicts(result), ""])


def spread(rows: list[Row], key: str) -> str:
    values = [r[key] for r in rows]
    return f"{statistics.median(values):.2e} ({min(values):.2e} to {max(values):.2e})"


def verdicts(result: dict[str, Any]) -> list[str]:
    lines = []
    for name, rows in result["networks"].items():
        wins = sum(r["error"] < result["grids"][name]["error"] for r in rows)
        lines.append(f"- {name}: the network's error is below that of the grid in {wins} of {len(rows)} seeds.")
    rows = result["networks"].get("vortex", [])
    if rows:
        held = sum(r["divergence"] <= 1e-3 for r in rows)
        lines.append(
            f"- Root mean square of the divergence at the end: {spread(rows, 'divergence')} (bar 1e-3: {held} of {len(rows)})."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "insr.json"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"networks": {}, "grids": {}}
    for seed in range(given.seeds):
        for name, run in NETWORKS.items():
            rows = result["networks"].setdefault(name, [])
            if len(rows) == seed:
                torch.manual_seed(seed)
                rows.append(run())
                print(name, rows[-1], flush=True)
            if name not in result["grids"]:
                result["grids"][name] = GRIDS[name](int(rows[0]["numbers"]))
                print(name, result["grids"][name], flush=True)
            result["versions"] = (
                f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
            )
            files.write_json(path, result)
            files.write_text(given.out / "insr.md", page(result))


if __name__ == "__main__":
    main()
