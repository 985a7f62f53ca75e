"""What conditioning on a known mass gains: ProbConserv against the Euclidean projection and against nothing.

    python benchmarks/probconserv.py     five seeds, a few minutes on one core

Two problems on (0, 1) whose solution and mass are known at every time t: the porous-medium equation, ``u = (m max(t - x,
0))^{1/m}`` with mass ``m^{1 + 1/m} / (m + 1) t^{1 + 1/m}``, exponents m = 1 ... 6 (1 is easy, 6 has a steep front), and a front
that is carried, ``u = 1`` for ``x < c t``, speeds c = 0.5 ... 1.5. The model is a network of (x, t, parameter), three layers of
64, that gives a mean and a variance at each point; it learns from 64 random parameters, 50 random points each, by the Gaussian
likelihood, 2000 steps of Adam. (The paper's model is an attentive neural process.) Then, at t = 0.5 on 201 points with the
trapezoid rule: as it is, projected onto the mass, and conditioned on it with its own variances. The covariance given to
conditioning is diagonal. Mean squared error, Gaussian log-likelihood of a point (variances after conditioning, at least 1e-6),
place of the front where u falls below half its largest value. Writes ``docs/benchmarks/probconserv.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._version import __version__
from isocline.networks import MLP
from isocline.operators import conserved, projected, trapezoid

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
SEEDS, CASES, POINTS, STEPS, TIME, FLOOR = 5, 64, 50, 2000, 0.5, 1e-6
WAYS = ("as it is", "projected", "conditioned")


@dataclass(frozen=True)
class Front:
    """A solution with its mass, and the parameters that are tried."""

    name: str
    u: Callable[[Tensor, Tensor, Tensor], Tensor]
    mass: Callable[[float, float], float]
    low: float
    high: float
    tested: tuple[float, ...]


def porous(x: Tensor, t: Tensor, m: Tensor) -> Tensor:
    return (m * (t - x).clamp(min=0)) ** (1 / m)


BEDS = (
    Front(
        "porous medium", porous, lambda t, m: m ** (1 + 1 / m) / (m + 1) * t ** (1 + 1 / m), 1.0, 6.0, (1.0, 3.0, 6.0)
    ),
    Front("advection", lambda x, t, c: (x < c * t).double(), lambda t, c: c * t, 0.5, 1.5, (0.75, 1.25)),
)


def trained(bed: Front, seed: int) -> nn.Module:
    """Return a network (N, 3) to mean and logarithm of the variance."""
    torch.manual_seed(seed)
    network = MLP(3, 2, width=64, depth=3).double()
    parameter = (
        (bed.low + (bed.high - bed.low) * torch.rand(CASES, 1, dtype=torch.float64)).expand(-1, POINTS).flatten()
    )
    x, t = torch.rand(2, CASES * POINTS, dtype=torch.float64)
    inputs, truth = torch.stack([x, t, parameter / bed.high], 1), bed.u(x, t, parameter)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (256,))
        mean, logarithm = network(inputs[rows]).unbind(1)
        loss = (logarithm + (mean - truth[rows]).square() * torch.exp(-logarithm)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def judged(bed: Front, network: nn.Module, parameter: float) -> dict[str, dict[str, float]]:
    x = torch.linspace(0, 1, 201, dtype=torch.float64)
    t, p = torch.full_like(x, TIME), torch.full_like(x, parameter)
    with torch.no_grad():
        mean, logarithm = network(torch.stack([x, t, p / bed.high], 1)).T[:, None]
    variance, weights = logarithm.exp(), trapezoid(x)
    mass = torch.tensor([[bed.mass(TIME, parameter)]], dtype=torch.float64)
    after = conserved(mean, variance, weights, mass)
    found = {
        "as it is": (mean, variance),
        "projected": (projected(mean, weights, mass), variance),
        "conditioned": (after.mean, after.variance),
    }
    return {way: scores(u[0], v[0], x, bed.u(x, t, p), weights[0], float(mass)) for way, (u, v) in found.items()}


def scores(u: Tensor, v: Tensor, x: Tensor, truth: Tensor, weights: Tensor, mass: float) -> dict[str, float]:
    v = v.clamp(min=FLOOR)
    likelihood = -0.5 * ((2 * math.pi * v).log() + (u - truth).square() / v)
    return {
        "mse": float((u - truth).square().mean()),
        "log-likelihood": float(likelihood.mean()),
        "front": abs(front(u, x) - front(truth, x)),
        "mass error": abs(float(weights @ u) - mass),
    }


def front(u: Tensor, x: Tensor) -> float:
    """Return where u last lies above half its largest value."""
    return float(x[(u > 0.5 * u.max()).nonzero()[-1, 0]])


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = [
        "# Predictions that conserve mass",
        "",
        f"Written by `python benchmarks/probconserv.py`; {result['versions']}.",
        "",
    ]
    lines += [
        doc,
        "",
        "| problem | parameter | prediction | MSE | log-likelihood | front | mass error |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in result["cells"]:
        for way in WAYS:
            values = {k: statistics.median(s[way][k] for s in cell["seeds"]) for k in cell["seeds"][0][way]}
            lines.append(
                f"| {cell['bed']} | {cell['parameter']:g} | {way} | {values['mse']:.2e} | {values['log-likelihood']:.2f} | "
                f"{values['front']:.3f} | {values['mass error']:.1e} |"
            )
    lines += ["", "## Bars", ""]
    for cell in result["cells"]:
        n = len(cell["seeds"])
        wins = [sum(s["conditioned"]["mse"] <= s[other]["mse"] for s in cell["seeds"]) for other in WAYS[:2]]
        better = sum(s["conditioned"]["log-likelihood"] > s["as it is"]["log-likelihood"] for s in cell["seeds"])
        nearer = sum(s["conditioned"]["front"] <= s["as it is"]["front"] for s in cell["seeds"])
        holds = "holds" if min(*wins, better) >= 0.8 * n else "fails"
        lines.append(
            f"- {cell['bed']}, {cell['parameter']:g}: MSE no larger than as it is in {wins[0]}, than projected in {wins[1]} of {n} "
            f"seeds; higher likelihood in {better}; the front no further away in {nearer} (bar, 4 of 5 for errors and "
            f"likelihood: {holds})."
        )
    worst = max(s[way]["mass error"] for cell in result["cells"] for s in cell["seeds"] for way in WAYS[1:])
    lines.append(f"- The mass is met to {worst:.1e} (bar 1e-10: {'holds' if worst <= 1e-10 else 'fails'}).")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = []
    for bed in BEDS:
        networks = [trained(bed, seed) for seed in range(given.seeds)]
        for parameter in bed.tested:
            seeds = [judged(bed, network, parameter) for network in networks]
            cells.append({"bed": bed.name, "parameter": parameter, "seeds": seeds})
    versions = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    result = {"versions": versions, "cells": cells}
    files.write_json(given.out / "probconserv.json", result)
    files.write_text(given.out / "probconserv.md", page(result))


if __name__ == "__main__":
    main()
