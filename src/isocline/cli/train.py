"""``isocline train``: the repository's own models, by the repository's own recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Train the bundled models again, or with other settings.", no_args_is_help=True)
Data = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this form on Python 3.10
    typer.Option(help="Folder of the data files; the usual places are tried where it is left out."),
]
Steps = Annotated[Optional[int], typer.Option(help="Number of updates; the recipe's own by default.", min=1)]  # noqa: UP045
Batch = Annotated[Optional[int], typer.Option(help="Samples in each update.", min=1)]  # noqa: UP045
Every = Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)]


@app.command()
def fashion(
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints and result.")] = Path("runs/fashion"),
    steps: Steps = None,
    batch: Batch = None,
    seed: int = 0,
    checkpoint_every: Every = 500,
) -> None:
    """Train the Fashion-MNIST model (an hour or two on two cores). Run it again to resume.

    The data are IDX files: `isocline data fetch fashion-mnist`, or the Debian package `dataset-fashion-mnist`.
    """
    from isocline.datasets import load_fashion
    from isocline.recipes.train import FASHION

    _run(FASHION, load_fashion(data), out, steps, batch, seed, checkpoint_every)


@app.command()
def digits(
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints and result.")] = Path("runs/digits"),
    steps: Steps = None,
    batch: Batch = None,
    seed: int = 0,
    checkpoint_every: Every = 500,
) -> None:
    """Train a small model on scikit-learn's 1797 digits of 8 x 8 pixels (two minutes). Run it again to resume."""
    from isocline.datasets import load_digits
    from isocline.recipes.train import DIGITS

    _run(DIGITS, load_digits(data), out, steps, batch, seed, checkpoint_every)


def _run(recipe, images, out, steps, batch, seed, every) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from isocline.recipes.train import train_images

    changes = {"steps": steps, "batch": batch, "seed": seed, "checkpoint_every": every}
    settings = replace(recipe.settings, **{name: value for name, value in changes.items() if value is not None})
    _, trained = train_images(recipe, images, out, settings)
    step, loss = trained.losses[-1]
    typer.echo(f"{out / 'model.safetensors'}: {step} steps, loss {loss:.9g}, {trained.seconds:.0f} seconds")
