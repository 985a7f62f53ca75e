"""The `isocline` command: one sub-command for each verb.

Errors are one line on standard error. Exit codes: 0 done, 1 the work failed, 2 the input was wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from isocline._core.errors import InvalidInput, IsoclineError, Mismatch
from isocline._version import __version__
from isocline.cli import data, diagnose, forecast, operator, optimizers, plan, registry, solve, train, tune

app = typer.Typer(
    name="isocline",
    help="Learned differential equations, discretised well: budget in, plan out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
app.add_typer(plan.app, name="plan")
app.add_typer(train.app, name="train")
app.add_typer(data.app, name="data")
app.add_typer(operator.app, name="operator")
app.add_typer(optimizers.app, name="optimizers")
app.command("tune")(tune.tune)
app.command("diagnose")(diagnose.diagnose)
app.command("forecast")(forecast.forecast)
app.command("solve")(solve.solve)
app.command("methods")(registry.list_methods)
app.command("cite")(registry.cite)

Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result is written.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers; the same seed gives the same bits.")]
Calls = Annotated[int, typer.Option("--calls", "-n", help="Network calls of one run (the budget).")]
Model = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this form on Python 3.10
    typer.Option(help="A model.safetensors written by `isocline train`; the bundled Fashion-MNIST model by default."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isocline {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(out: Out = Path("runs/quickstart"), seed: Seed = 0, calls: Calls = 6) -> None:
    """Tune a 6-call sampler for a model trained on real images, and show the result (about three minutes).

    Writes `plan.json`, `report.json` and `report.html` to the folder `--out`.
    """
    from isocline.cli.show import quickstart_table
    from isocline.recipes.quickstart import quickstart as run

    console = Console()
    console.print(f"Tuning a {calls}-call sampler for the bundled Fashion-MNIST model.")
    console.print("Teacher, choice of the classical start, gradient steps, held-out report: about three minutes.")
    result = run(out, seed=seed, calls=calls)
    quickstart_table(result, console)
    console.print(f"Report: {out / 'report.html'}   Plan: {out / 'plan.json'}   Figures: {out / 'report.json'}")


@app.command()
def sample(
    out: Out = Path("samples.png"),
    calls: Annotated[Optional[int], typer.Option("--calls", "-n", help="Network calls of one run.")] = None,  # noqa: UP045
    plan_file: Annotated[Optional[Path], typer.Option("--plan", help="A plan file, instead of --calls.")] = None,  # noqa: UP045
    solver: Annotated[str, typer.Option(help="A solver; `isocline methods` lists them.")] = "dpm_solver_pp_2m",
    grid: Annotated[str, typer.Option(help="karras, log_snr, uniform, quadratic or exponential.")] = "karras",
    model: Model = None,
    count: Annotated[int, typer.Option(help="How many samples.", min=1)] = 60,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """Draw samples from a model, with a solver or with a plan file.

    Images are drawn into one picture; a name that ends in .npy or .csv holds the numbers, in the unit of the training data.

    Example: `isocline sample --plan runs/quickstart/plan.json --out samples.png`
    """
    from isocline.recipes.images import sample_images

    sampled = sample_images(
        out,
        calls=calls,
        plan_file=plan_file,
        solver=solver,
        grid=grid,
        model=model,
        count=count,
        guidance=guidance,
        seed=seed,
    )
    typer.echo(f"{out}: {count} samples, {sampled.cost.calls:g} calls, {sampled.cost.seconds:.2f} seconds")


def main() -> None:
    """Run the command; errors of isocline become one line and an exit code."""
    try:
        app()
    except IsoclineError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InvalidInput | Mismatch) else 1)
    except KeyboardInterrupt:
        print("stopped; whatever was saved so far is kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
