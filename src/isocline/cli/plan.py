"""``isocline plan``: look at plan files, and carry them to other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from isocline._core.errors import InvalidInput, nearest, require
from isocline.plans.export import ComfyUIExport, KDiffusionExport, comfyui, k_diffusion
from isocline.plans.plan import Plan
from isocline.processes.parameterisation import parameterisation_named

app = typer.Typer(help="Show, draw, convert, compare and export plan files.", no_args_is_help=True)
PROGRAMS: dict[str, Callable[[Plan], KDiffusionExport | ComfyUIExport]] = {
    "k-diffusion": k_diffusion,
    "comfyui": comfyui,
}
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


@app.command()
def export(
    file: File,
    to: Annotated[str, typer.Option(help="k-diffusion, comfyui or diffusers.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="Folder, for diffusers.")] = None,  # noqa: UP045
    output: Annotated[Optional[str], typer.Option(help="Model's output, for diffusers.")] = None,  # noqa: UP045
) -> None:
    """Print the sampler, noise levels and settings with which another program computes what the plan does.

    For diffusers, write a scheduler.
    """
    if to == "diffusers":
        require(out is not None, "a scheduler for diffusers needs a folder: --out FOLDER")
        kind = None if output is None else parameterisation_named(output)
        typer.echo(Plan.load(file).to_diffusers(out, kind))  # type: ignore[arg-type]
        return
    if to not in PROGRAMS:
        raise InvalidInput(f"plans cannot be exported to {to!r}. {nearest(to, [*PROGRAMS, 'diffusers'])}")
    require(out is None and output is None, f"--out and --output are for diffusers; {to} gets what is printed")
    found = PROGRAMS[to](Plan.load(file))
    facts = asdict(found)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    sigmas = found.text if isinstance(found, ComfyUIExport) else ", ".join(f"{s:.9g}" for s in found.sigmas)
    facts |= {"settings": ", ".join(f"{k}={v:g}" for k, v in found.settings.items()) or "none", "sigmas": sigmas}
    for name, value in facts.items():
        typer.echo(f"{name:<9} {value}")


def _difference(a: Plan, b: Plan) -> str:
    if a.calls != b.calls or a.times.shape != b.times.shape:
        return f"the plans differ: {a.calls} and {b.calls} calls"
    mine, theirs = a.canonical(), b.convert(a.parameterisation).canonical()
    worst = (mine.outputs - theirs.outputs).abs().max()
    nodes = (a.times - b.times).abs().max()
    return f"the plans differ: by up to {worst:.3g} in canonical weights and {nodes:.3g} in times"
