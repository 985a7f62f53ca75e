"""``isocline train``: denoisers of one's own data, and the repository's own models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from isocline.datasets import Images
    from isocline.recipes.train import ImageRecipe
    from isocline.training import Settings, Trained

app = typer.Typer(help="Train a denoiser of your own data, or the bundled models again.", no_args_is_help=True)
Data = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this form on Python 3.10
    typer.Option(help="Folder of the data files; the usual places are tried where it is left out."),
]
Steps = Annotated[Optional[int], typer.Option(help="Number of updates; the recipe's own by default.", min=1)]  # noqa: UP045
Batch = Annotated[Optional[int], typer.Option(help="Samples in each update, over all devices.", min=1)]  # noqa: UP045
Every = Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)]
Seconds = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Stop after so many seconds; the same command continues.", min=0.0),
]
Count = Annotated[int, typer.Option(help="GPUs, or processes where there are none.", min=1)]
Precision = Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")]
Board = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs beside loss.csv.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints and result.")]


@app.command()
def data(
    source: Annotated[
        Path, typer.Argument(help="A .npy file (N, d) or (N, C, H, H), or a .csv file, one datum a row.")
    ],
    out: Out = Path("runs/model"),
    formulation: Annotated[str, typer.Option(help="cem, edm, ddpm, v_prediction, score or rectified_flow.")] = "cem",
    steps: Annotated[int, typer.Option(help="Number of updates.", min=1)] = 5000,
    batch: Annotated[int, typer.Option(help="Samples in each update, over all devices.", min=1)] = 256,
    rate: Annotated[float, typer.Option(help="Peak learning rate.", min=0.0)] = 1e-3,
    width: Annotated[int, typer.Option(help="Width of the network.", min=8)] = 128,
    depth: Annotated[int, typer.Option(help="Hidden layers of the network for vectors.", min=1)] = 3,
    seed: int = 0,
    checkpoint_every: Every = 500,
    seconds: Seconds = None,
    devices: Count = 1,
    precision: Precision = "32-true",
    tensorboard: Board = False,
) -> None:
    """Train a denoiser of your own data. Run it again to resume.

    `isocline diagnose` says which formulation suits them. The result serves `isocline sample`, `tune` and `diagnose`.
    """
    from isocline._core.estimate import Budget
    from isocline.recipes.own_data import train_on
    from isocline.recipes.sources import load_array
    from isocline.training import Settings

    points = load_array(source)
    settings = Settings(steps, batch=batch, rate=rate, seed=seed, checkpoint_every=checkpoint_every)
    where = _where(out, devices, precision, tensorboard)
    learned = train_on(
        points,
        out,
        formulation=formulation,
        settings=settings,
        width=width,
        depth=depth,
        budget=Budget(seconds=seconds) if seconds else None,
        **where,
    )
    _say(out, learned.fitted.trained, settings, where["fabric"])


@app.command()
def fashion(
    data: Data = None,
    out: Out = Path("runs/fashion"),
    steps: Steps = None,
    batch: Batch = None,
    seed: int = 0,
    checkpoint_every: Every = 500,
    seconds: Seconds = None,
    devices: Count = 1,
    precision: Precision = "32-true",
    tensorboard: Board = False,
) -> None:
    """Train the Fashion-MNIST model (an hour or two on two cores). Run it again to resume.

    The data are IDX files: `isocline data fetch fashion-mnist`, or the Debian package `dataset-fashion-mnist`.
    """
    from isocline.datasets import load_fashion
    from isocline.recipes.train import FASHION

    changes = {"steps": steps, "batch": batch, "seed": seed, "checkpoint_every": checkpoint_every}
    _run(FASHION, load_fashion(data), out, changes, seconds, _where(out, devices, precision, tensorboard))


@app.command()
def digits(
    data: Data = None,
    out: Out = Path("runs/digits"),
    steps: Steps = None,
    batch: Batch = None,
    seed: int = 0,
    checkpoint_every: Every = 500,
    seconds: Seconds = None,
    devices: Count = 1,
    precision: Precision = "32-true",
    tensorboard: Board = False,
) -> None:
    """Train a small model on scikit-learn's 1797 digits of 8 x 8 pixels (two minutes). Run it again to resume."""
    from isocline.datasets import load_digits
    from isocline.recipes.train import DIGITS

    changes = {"steps": steps, "batch": batch, "seed": seed, "checkpoint_every": checkpoint_every}
    _run(DIGITS, load_digits(data), out, changes, seconds, _where(out, devices, precision, tensorboard))


def _run(
    recipe: ImageRecipe,
    images: Images,
    out: Path,
    changes: dict[str, int | None],
    seconds: float | None,
    where: dict[str, Any],
) -> None:
    from isocline._core.estimate import Budget
    from isocline.recipes.train import train_images

    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    settings = replace(recipe.settings, **given)
    budget = Budget(seconds=seconds) if seconds else None
    _, trained = train_images(recipe, images, out, settings, budget=budget, **where)
    _say(out, trained, settings, where["fabric"])


def _where(out: Path, devices: int, precision: str, tensorboard: bool) -> dict[str, Any]:
    from isocline.training import TensorBoard, launched

    fabric = launched(devices, precision)
    first = fabric is None or fabric.global_rank == 0
    return {"fabric": fabric, "logs": [TensorBoard(out / "tensorboard")] if tensorboard and first else []}


def _say(out: Path, trained: Trained, settings: Settings, fabric: Any) -> None:
    if fabric is not None and fabric.global_rank:
        return
    step, loss = trained.losses[-1]
    typer.echo(f"{out / 'model.safetensors'}: {step} steps, loss {loss:.9g}, {trained.seconds:.0f} seconds")
    if not trained.finished:
        typer.echo(f"the time is used up at {step} of {settings.steps} steps; the same command continues")
