"""Fine-tuning a network for one plan of 5 calls, judged by distances that were not minimised.

    python benchmarks/mmd_finetuning.py [--seeds 5] [--steps 300] [--quick]

Digits of 8 x 8, the small U-Nets behind EDM's preconditioning that `benchmarks/targets.py` trains, 5 DDIM calls on the exponential
grid. Minimised: the unbiased MMD^2 (polynomial kernel of degree 3) of the features of one classifier. Reported, for as many samples
as there are images: the energy distance of pixels, and of the features of another classifier (other seed, other width); the same
with 20 calls, which the network was not tuned for; and the RMS distance to what the untuned network's flow makes of the same noise.
Writes ``docs/benchmarks/mmd_finetuning.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import torch
from targets import PROCESS, RUNS, digit_features, digits_model, image_settings, shown
from torch import Tensor

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import load_digits
from isocline.metrics import energy_distance, rms
from isocline.plans import grids, solvers
from isocline.processes import Denoiser
from isocline.recipes.mmd_finetuning import MMDFinetuning
from isocline.training import Settings

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
FEW, MORE = 5, 20


def made(model: Denoiser, calls: int, noise: Tensor) -> Tensor:
    plan = solvers.ddim(PROCESS, grids.exponential(PROCESS, calls, t_min=0.01, end="zero"))
    start = noise * float(PROCESS.sigma(plan.times[0]))
    return torch.cat([plan.run(model, part).x for part in start.split(600)])


def one_seed(seed: int, steps: int, image_steps: int) -> dict[str, Any]:
    began, images = time.monotonic(), load_digits().all()[0]
    folder = RUNS / f"digits EDM {image_steps} 5"
    formulation, network, model = digits_model("EDM", image_settings(image_steps), seed, folder / str(seed))
    tuned_on = digit_features(folder / "classifier")
    judge = digit_features(folder / "judge", seed=1, width=48)
    noise = Stream(seed, "start").normal(tuple(images.shape))
    flow = made(model, 100, noise)

    def figures(model: Denoiser) -> dict[str, float]:
        found = {n: made(model, n, noise) for n in (FEW, MORE)}
        distances = {
            f"{name}, {n} calls": energy_distance(part(x), part(images))
            for n, x in found.items()
            for name, part in (("pixels", lambda x: x.flatten(1)), ("features", judge))
        }
        return distances | {"RMS to the flow": float(rms(found[FEW], flow).mean())}

    before = figures(model)
    plan = solvers.ddim(PROCESS, grids.exponential(PROCESS, FEW, t_min=0.01, end="zero"))
    settings = Settings(steps, batch=256, rate=2e-4, warmup=20, average=0.98, seed=seed)
    place = Path("runs/mmd") / f"{seed} {steps} {image_steps}"
    tuned = MMDFinetuning(tuned_on).fit(network.requires_grad_(), formulation.denoiser, plan, images, settings, place)
    return {"seed": seed, "before": before, "after": figures(tuned.denoiser), "seconds": time.monotonic() - began}


def table(rows: list[dict[str, Any]]) -> str:
    keys = list(rows[0]["before"])
    lines = ["| figure | before | after | lower after, seeds |", "|---|---|---|---|"]
    for key in keys:
        before, after = ([row[when][key] for row in rows] for when in ("before", "after"))
        better = sum(b < a for a, b in zip(before, after, strict=True))
        lines.append(f"| {key} | {shown(before)} | {shown(after)} | {better} of {len(rows)} |")
    return "\n".join(lines)


def page(rows: list[dict[str, Any]], steps: int) -> str:
    return (
        "# Fine-tuning for five calls\n\n"
        f"Written by `python benchmarks/mmd_finetuning.py`; isocline {__version__}, torch {torch.__version__}. {len(rows)} seeds, "
        f"{steps} updates of 256 samples. Energy distances to the images it was trained on, of pixels and of the features of a "
        "classifier that the tuning did not see; mean and standard error over seeds. The distance to the network's own flow grows, "
        "as it must: the samples are no longer those of the flow. With 20 calls the tuned network is worse than before: keep the "
        "untuned weights for other plans.\n\n" + table(rows) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--image-steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="1 seed; prints, writes no files")
    given = parser.parse_args()
    rows = [one_seed(seed, given.steps, given.image_steps) for seed in range(1 if given.quick else given.seeds)]
    print(table(rows))
    if given.quick:
        return
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    files.write_json(given.out / "mmd_finetuning.json", {"rows": rows, "versions": versions})
    files.write_text(given.out / "mmd_finetuning.md", page(rows, given.steps))


if __name__ == "__main__":
    main()
