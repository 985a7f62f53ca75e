"""``isocline plan``: look at plan files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isocline._core.errors import InvalidInput
from isocline.plans.plan import Plan
from isocline.processes.parameterisation import parameterisation_named

app = typer.Typer(help="Show, draw, convert and compare plan files.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="A plan file (JSON).")]


@app.command()
def show(file: File) -> None:
    """Print a plan: what it was made for, then its rows."""
    typer.echo(Plan.load(file).describe())


@app.command()
def plot(file: File, out: Annotated[Path, typer.Option("--out", "-o", help="A PNG file.")] = Path("plan.png")) -> None:
    """Draw a plan: noise levels, model times and weights."""
    from isocline.recipes.pictures import save

    typer.echo(save(Plan.load(file).plot(), out))


@app.command()
def convert(
    file: File,
    to: Annotated[str, typer.Option(help="Data, Noise, VPrediction, FlowVelocity or Score.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new plan file.")],
) -> None:
    """Rewrite a plan for another network output; it computes the same samples."""
    typer.echo(Plan.load(file).convert(parameterisation_named(to)).save(out))


@app.command()
def compare(first: File, second: File) -> None:
    """Say whether two plans compute the same; exit code 1 if they do not."""
    a, b = Plan.load(first), Plan.load(second)
    if a.process != b.process:
        raise InvalidInput(f"the plans are for different processes: {a.process.describe()} and {b.process.describe()}")
    same = a == b
    typer.echo("the plans compute the same" if same else _difference(a, b))
    raise typer.Exit(0 if same else 1)


def _difference(a: Plan, b: Plan) -> str:
    if a.calls != b.calls or a.times.shape != b.times.shape:
        return f"the plans differ: {a.calls} and {b.calls} calls"
    mine, theirs = a.canonical(), b.convert(a.parameterisation).canonical()
    worst = (mine.outputs - theirs.outputs).abs().max()
    nodes = (a.times - b.times).abs().max()
    return f"the plans differ: by up to {worst:.3g} in canonical weights and {nodes:.3g} in times"
