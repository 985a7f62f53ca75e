"""What should a network learn when data lie on a thin set: score, noise, velocity, or the bounded target?

    python benchmarks/targets.py [--quick] [--only BED] [--seeds 5]

Five formulations that differ in one choice, the network's output: score, noise, v, and the data prediction (the bounded target of
Lu, Wang and Bal, arXiv 2301.07882), and the data prediction behind EDM's preconditioning as the strong baseline. Process
(Ornstein-Uhlenbeck, t from 1e-4 to 8), weight (SNR on the data, 1 on the noise), time law (log-uniform), network, updates, data,
initial weights and noise are the same. Beds:

    circle        the unit circle in 2 dimensions          circle in R^8   the same in a random plane of 8 dimensions
    moons         two half circles                         thick circle    with noise of 0.3: the negative control
    spiral        one and a half turns                     digits          1797 images of 8 x 8, a small U-Net

Samples: 200 steps of DDIM (50 for images) on the exponential grid, then the data prediction at t_min. Measured on curves: the
share of samples farther than 0.1 from the set, their median distance, and the sliced Wasserstein distance to fresh data; samples
that are not finite count as far away. On the thick circle only the last is meaningful. On digits: the Fréchet distance of pixels
and of features of a small classifier. `--quick` trains on the circle in R^8 with 3 seeds. Cells are kept in ``runs/targets`` and
taken from there. Writes ``docs/benchmarks/targets.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stacked import StackedMLP, drawn_from
from torch import Tensor, nn

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import load_digits
from isocline.metrics import frechet_distance, sliced_wasserstein
from isocline.metrics.manifold import nearest_distance
from isocline.networks.unet import UNet, UNetShape
from isocline.objectives import Formulation, cem
from isocline.plans import Plan, grids, solvers
from isocline.processes import (
    Data,
    Denoiser,
    EDMPreconditioning,
    Noise,
    Score,
    VPrediction,
    ornstein_uhlenbeck,
)
from isocline.recipes import fit_denoiser
from isocline.training import Settings

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/targets")
PROCESS = ornstein_uhlenbeck(1e-4, 8.0)
PLAN, IMAGE_PLAN = (solvers.ddim(PROCESS, grids.exponential(PROCESS, n, end="zero")) for n in (200, 50))
POINTS, SAMPLES, IMAGES, TOLERANCE = 20_000, 4096, 1000, 0.1


class Bed(NamedTuple):
    """Data on, or around, a curve: `curve` maps uniform numbers (N,) to points (N, d)."""

    dimension: int
    curve: Callable[[Tensor], Tensor]
    thickness: float = 0.0
    steps: int = 6_000

    def sample(self, n: int, rng: Stream) -> Tensor:
        """Return `n` data (n, d), float64."""
        points = self.curve(rng.child("place").uniform((n,), dtype=torch.float64))
        return points + self.thickness * rng.child("noise").normal(tuple(points.shape), dtype=torch.float64)

    def distance(self, x: Tensor) -> Tensor:
        """Return the distance (N,) of samples (N, d) to the curve, read off 8192 points of it."""
        return nearest_distance(self.curve((torch.arange(8192, dtype=torch.float64) + 0.5) / 8192))(x)


def circle(u: Tensor) -> Tensor:
    angle = 2 * math.pi * u
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)


def moons(u: Tensor) -> Tensor:
    angle, side = 2 * math.pi * u, torch.where(u < 0.5, 1.0, -1.0)
    return torch.stack([torch.cos(angle) - 0.5 * side, torch.sin(angle) - 0.25 * side], dim=1)


def spiral(u: Tensor) -> Tensor:
    angle = 3 * math.pi * torch.sqrt(u * (1 - 1 / 9) + 1 / 9)
    return (angle / (3 * math.pi))[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1) * 1.2


def plane_of_8(u: Tensor) -> Tensor:
    axes = torch.linalg.qr(Stream(0, "plane").normal((8, 2), dtype=torch.float64))[0]
    return circle(u) @ axes.T


BEDS = {
    "circle": Bed(2, circle),
    "moons": Bed(2, moons),
    "spiral": Bed(2, spiral),
    "circle in R^8": Bed(8, plane_of_8, steps=10_000),
    "thick circle": Bed(2, circle, 0.3),
}
DIGITS = "digits"


def targets(sigma_data: float) -> dict[str, Formulation]:
    """Return the formulations by name."""
    bounded = cem(PROCESS)
    found = {
        name: replace(bounded, parameterisation=output)
        for name, output in (("score", Score()), ("noise", Noise()), ("velocity", VPrediction()), ("bounded", Data()))
    }
    return found | {"EDM": replace(bounded, preconditioning=EDMPreconditioning(sigma_data))}


TARGETS = tuple(targets(1.0))


def points_cell(bed: Bed, name: str, settings: Settings, seeds: int, folder: Path) -> list[dict[str, float]]:
    """Train one network for each seed, all at once, and return the figures of each."""
    data = torch.stack([bed.sample(POINTS, Stream(seed, "data")) for seed in range(seeds)])
    formulation = targets(float(data.std()))[name]
    network = StackedMLP(seeds, bed.dimension + 1, bed.dimension)
    settings = replace(settings, batch=settings.batch * seeds)
    denoiser = fit_denoiser(drawn_from(data.float()), formulation, network, settings, folder).denoiser
    noise = torch.cat([Stream(seed, "start").normal((SAMPLES, bed.dimension)) for seed in range(seeds)])
    samples = generated(denoiser, noise).view(seeds, SAMPLES, bed.dimension).double()
    return [figures(bed, found, Stream(seed, "test")) for seed, found in enumerate(samples)]


@torch.no_grad()
def generated(denoiser: Denoiser, noise: Tensor, plan: Plan = PLAN) -> Tensor:
    """Return the samples, whatever they are: a run that leaves the finite numbers is part of the result."""
    x = noise * float(PROCESS.sigma(plan.times[0]))
    for context in plan.iterate(denoiser, x):
        x = context.x
    return x.clone()


def figures(bed: Bed, found: Tensor, rng: Stream) -> dict[str, float]:
    finite = found[torch.isfinite(found).all(1)]
    distance, lost = bed.distance(finite), len(found) - len(finite)
    return {
        "far": (int((distance > TOLERANCE).sum()) + lost) / len(found),
        "distance": float(distance.median()),
        "wasserstein": sliced_wasserstein(finite, bed.sample(len(finite), rng), rng.child("directions")),
        "lost": lost / len(found),
    }


def digits_model(name: str, settings: Settings, seed: int, folder: Path) -> tuple[Formulation, UNet, Denoiser]:
    """Train one U-Net on the digits, or take it from `folder`; return how, the raw network and the denoiser."""
    images = load_digits().all()[0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(UNetShape(side=8, patch=1, widths=(16, 32), embedding=32))
    formulation = targets(float(images.std()))[name]
    fitted = fit_denoiser(images, formulation, network, replace(settings, seed=seed), folder)
    return formulation, network, fitted.denoiser


def digits_cell(name: str, settings: Settings, seed: int, folder: Path) -> dict[str, float]:
    """Return the Fréchet distances between samples of one network and the images."""
    images, denoiser = load_digits().all()[0], digits_model(name, settings, seed, folder)[2]
    found = generated(denoiser, Stream(seed, "start").normal((IMAGES, *images.shape[1:])), IMAGE_PLAN)
    features = digit_features(folder.parent / "classifier")
    lost = ~torch.isfinite(found).flatten(1).all(1)
    found = found[~lost]
    return {
        "features": frechet_distance(features(found), features(images)),
        "pixels": frechet_distance(found.flatten(1), images.flatten(1)),
        "lost": float(lost.double().mean()),
    }


def digit_features(folder: Path, seed: int = 0, width: int = 32) -> Callable[[Tensor], Tensor]:
    """Return the 32 features of a small classifier of the digits, trained here for distances alone."""
    from isocline.training import Part, train

    images = load_digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 64, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 32),
            nn.SiLU(),
            nn.Linear(32, 10),
        )
    rows = Stream(seed, "classifier")

    def batch(step: int, part: Part) -> tuple[Tensor, Tensor]:
        return images.take(rows.integers(len(images), (64,), step=step)[part.rows(64)])

    def loss(network: nn.Module, data: tuple[Tensor, Tensor], step: int, part: Part) -> Tensor:
        return nn.functional.cross_entropy(network(data[0]), data[1])

    network.load_state_dict(train(network, batch, loss, Settings(1500, batch=64), folder).weights)
    network.requires_grad_(False)
    return lambda x: network[:-1](x).double()


def image_settings(steps: int) -> Settings:
    return Settings(steps, batch=64, rate=2e-3, warmup=50, average=0.995)


def cell(bed: str, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one bed and target over the seeds, from the store where they are there."""
    steps = given.image_steps if bed == DIGITS else BEDS[bed].steps
    folder = RUNS / f"{bed} {name} {steps} {given.seeds}"
    stored = folder / "cell.json"
    if stored.exists():
        return files.read_json(stored)
    began = time.monotonic()
    if bed == DIGITS:
        rows = [digits_cell(name, image_settings(steps), seed, folder / str(seed)) for seed in range(given.seeds)]
    else:
        settings = Settings(steps, batch=256, rate=2e-3, clip=math.inf, checkpoint_every=2000)
        rows = points_cell(BEDS[bed], name, settings, given.seeds, folder)
    found = {"bed": bed, "target": name, "rows": rows, "seconds": time.monotonic() - began}
    files.write_json(stored, found)
    print(f"{bed:14} {name:9} " + "  ".join(f"{key} {shown([r[key] for r in rows])}" for key in rows[0]), flush=True)
    return found


def shown(values: list[float]) -> str:
    column = torch.tensor(values, dtype=torch.float64)
    mean, error = float(column.mean()), float(column.std()) / math.sqrt(len(values))
    return f"{mean:.4f} ± {error:.4f}" if mean < 1000 else f"{mean:.1e} ± {error:.1e}"


def measured(bed: str) -> tuple[str, ...]:
    """Return the figures that mean something on a bed; the first decides."""
    if bed == DIGITS:
        return ("features", "pixels")
    return ("wasserstein",) if BEDS[bed].thickness else ("far", "distance", "wasserstein")


def verdicts(bed: str, cells: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return one sentence for each comparison, seed by seed."""
    key, seeds = measured(bed)[0], len(cells["score"])

    def count(mine: str, other: str, factor: float = 1.0) -> str:
        wins = sum(a[key] <= factor * b[key] for a, b in zip(cells[mine], cells[other], strict=True))
        return f"{wins} of {seeds}"

    return [
        f"bounded at most noise: {count('bounded', 'noise')}",
        f"bounded at most half of score: {count('bounded', 'score', 0.5)}",
        f"bounded at most EDM: {count('bounded', 'EDM')}",
        f"EDM at most noise: {count('EDM', 'noise')}",
        f"EDM at most half of score: {count('EDM', 'score', 0.5)}",
    ]


def page(result: dict[str, Any]) -> str:
    given, versions = result["settings"], result["versions"]
    lines = [
        "# What should the network learn when data are thin",
        "",
        f"Written by `python benchmarks/targets.py`; isocline {versions['isocline']}, torch {versions['torch']}. "
        f"{given['seeds']} seeds; an MLP of 3 x 128 with batches of 256, {given['image_steps']} updates of 64 for a "
        "small U-Net on digits. Mean and standard error over seeds. *Far*: share of "
        f"{SAMPLES} samples farther than {TOLERANCE} from the curve. Everything but the network's "
        "output is the same; see the head of the file. *EDM* is the bounded target behind EDM's preconditioning. Where samples "
        "of the score's network leave all bounds, the Wasserstein distance says by how much.",
    ]
    for bed in dict.fromkeys(c["bed"] for c in result["cells"]):
        cells = {c["target"]: c["rows"] for c in result["cells"] if c["bed"] == bed}
        keys = measured(bed)
        updates = "" if bed == DIGITS else f", {BEDS[bed].steps} updates"
        lines += ["", f"## {bed}{updates}", "", f"| target | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
        lines += [f"| {t} | {' | '.join(shown([r[k] for r in rows]) for k in keys)} |" for t, rows in cells.items()]
        if len(cells) == len(TARGETS):
            lines += ["", "In seeds, " + "; ".join(verdicts(bed, cells)) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="circle in R^8, 3 seeds; prints, writes no files")
    parser.add_argument("--only", choices=[*BEDS, DIGITS], help="train one bed; the others come from the store")
    parser.add_argument("--image-steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.quick:
        given.only, given.seeds = "circle in R^8", 3
    result = {
        "settings": {key: vars(given)[key] for key in ("image_steps", "seeds")},
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "cells": [
            cell(bed, name, given) for bed in ([given.only] if given.only else [*BEDS, DIGITS]) for name in TARGETS
        ],
    }
    print(page(result))
    if not given.only:
        files.write_json(given.out / "targets.json", result)
        files.write_text(given.out / "targets.md", page(result))


if __name__ == "__main__":
    main()
