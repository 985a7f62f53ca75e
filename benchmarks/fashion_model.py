"""The figures of the bundled Fashion-MNIST model's card.

    python benchmarks/fashion_model.py --data DIR [--images 2000]

Fréchet distance between the features (bundled classifier, 64 numbers) of generated images and of the 60 000 training
images, beside that of as many held-out real images; 100 Heun steps, classes in turn. Writes
``docs/benchmarks/fashion_model.md`` and ``.json`` and a picture of samples.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import load_fashion
from isocline.metrics import frechet_distance, frechet_estimate
from isocline.models import bundled
from isocline.plans.plan import Plan
from isocline.processes import Denoiser
from isocline.recipes import pictures
from isocline.recipes.classifier import load_classifier
from isocline.recipes.quickstart import SHAPE, labels
from isocline.recipes.train import load_image_model
from isocline.recipes.tune import heun_teacher

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"


@torch.no_grad()
def features(network: torch.nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network.features(part) for part in images.split(1000)]).double()


def generate(model: Denoiser, plan: Plan, n: int) -> Tensor:
    start, cond = plan.start((n, *SHAPE), Stream(2000, "card")), labels(n)
    images = []
    with progress("generating", n) as bar:
        for first in range(0, n, 100):
            part = slice(first, first + 100)
            images.append(plan.run(model, start[part], cond=cond[part]).x)
            bar.advance(100)
    return torch.cat(images)


def draw_loss(table: Path, out: Path) -> None:
    """Draw the training loss that `isocline train fashion` wrote as ``loss.csv``, and its running mean."""
    from matplotlib.figure import Figure

    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    steps, loss = [int(a) for a, _ in rows], torch.tensor([float(b) for _, b in rows], dtype=torch.float64)
    smooth = loss.unfold(0, 25, 1).mean(1)
    picture = Figure(figsize=(6, 3.2), layout="constrained")
    axes = picture.subplots()
    axes.plot(steps, loss.tolist(), color=pictures.GREY, linewidth=0.5, label="20 steps")
    axes.plot(steps[12:-12], smooth.tolist(), color=pictures.INK, label="500 steps")
    axes.set(xlabel="step", ylabel="weighted denoising loss", ylim=(0.17, 0.4))
    axes.legend(frameon=False)
    pictures.save(picture, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    network = load_classifier()
    model = load_image_model(bundled("fashion"))
    reference = features(network, load_fashion(given.data).all()[0])
    held_out = features(network, load_fashion(given.data, train=False).all()[0])
    plan, began = heun_teacher(model), time.monotonic()
    images = generate(model, plan, given.images)
    seconds = time.monotonic() - began
    fake, real = features(network, images), held_out[Stream(2000, "real").permutation(len(held_out))[: given.images]]
    rows = {
        "generated": frechet_estimate(fake, reference, 0),
        "held-out real": frechet_estimate(real, reference, 0),
    }
    plain = {"generated": frechet_distance(fake, reference), "held-out real": frechet_distance(real, reference)}
    picture = pictures.side_by_side([(f"{plan.calls} calls", images[:60])], 10)
    pictures.save(picture, given.out / "fashion_samples.png")
    draw_loss(given.out / "fashion_loss.csv", given.out / "fashion_loss.png")
    table = (
        "| images | Fréchet distance (bias-corrected, 95 % interval) | plain, same number of images |\n|---|---|---|\n"
        + "\n".join(f"| {name} | {row} | {float(plain[name]):.4f} |" for name, row in rows.items())
    )
    ratio = float(plain["generated"]) / float(plain["held-out real"])
    text = (
        f"# The bundled Fashion-MNIST model\n\nWritten by `python benchmarks/fashion_model.py --images {given.images}`; isocline "
        f"{__version__}, torch {torch.__version__}, Python {platform.python_version()}. {given.images} images with "
        f"{plan.calls} calls each in {seconds:.0f} seconds, against the features of the 60 000 training images.\n\n{table}\n\n"
        f"Ratio of the plain distances: {ratio:.2f}.\n\n![samples](fashion_samples.png)\n\n![training loss](fashion_loss.png)\n"
    )
    files.write_text(given.out / "fashion_model.md", text)
    stored = {
        "estimates": {name: asdict(row) for name, row in rows.items()},
        "plain": {k: float(v) for k, v in plain.items()},
    }
    files.write_json(
        given.out / "fashion_model.json", stored | {"images": given.images, "calls": plan.calls, "ratio": ratio}
    )
    print(text)


if __name__ == "__main__":
    main()
