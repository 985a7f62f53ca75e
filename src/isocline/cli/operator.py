"""``isocline operator``: surrogates of solvers, trained on stored data, rolled out and audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from isocline.operators import Audit
    from isocline.recipes.operator import CaseErrors, RolloutReport

app = typer.Typer(help="Train a surrogate on stored simulations, roll it out, audit it.", no_args_is_help=True)
Data = Annotated[
    Path,
    typer.Argument(
        help="A folder written by `isocline data generate` or of The Well's layout, or files of PDEBench or PDEArena."
    ),
]
Boundary = Annotated[
    Optional[str],  # noqa: UP045 - typer reads this form on Python 3.10
    typer.Option(
        help="How all axes end: periodic, wall or open. The Well's files say it, those of PDEBench and PDEArena do not."
    ),
]
Run = Annotated[Path, typer.Argument(help="A folder written by `isocline operator train`.")]
Out = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this form on Python 3.10
    typer.Option("--out", "-o", help="Folder of the results; that of the model by default."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints and result.")] = Path("runs/operator"),
    model: Annotated[
        str,
        typer.Option(help="unet, convnext, fno, tfno (factorised), t1, message-passing, or deepcfd for steady flows."),
    ] = "unet",
    width: Annotated[int, typer.Option(help="Channels inside.", min=1)] = 32,
    strategy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="one-step, pushforward, unrolled, all-to-all, denoise or refine. [default: one-step]"),
    ] = None,
    unroll: Annotated[int, typer.Option(help="Windows that pushforward and unrolled training unroll.", min=1)] = 2,
    past: Annotated[int, typer.Option(help="Frames that the model is given; 0 in a steady problem.", min=0)] = 1,
    future: Annotated[int, typer.Option(help="Frames that it predicts at once.", min=1)] = 1,
    stride: Annotated[int, typer.Option(help="Stored frames between neighbouring ones of a window.", min=1)] = 1,
    refine: Annotated[int, typer.Option(help="Steps of PDE-Refiner; 0 for none.", min=0)] = 0,
    coordinates: Annotated[bool, typer.Option(help="Give the network coordinates.")] = False,
    steps: Annotated[int, typer.Option(help="Number of updates.", min=1)] = 5000,
    batch: Annotated[int, typer.Option(help="Windows in each update.", min=1)] = 16,
    rate: Annotated[float, typer.Option(help="Peak learning rate.", min=0.0)] = 1e-3,
    average: Annotated[float, typer.Option(help="Decay of the averaged weights.", min=0.0, max=1.0)] = 0.995,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Stop after so many seconds; the same command continues.", min=0.0),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Updates between checkpoints.", min=1)] = 200,
    devices: Annotated[int, typer.Option(help="GPUs, or processes where there are none.", min=1)] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    boundary: Boundary = None,
    as_json: AsJSON = False,
) -> None:
    """Train a surrogate. Run it again to resume.

    Writes `operator.safetensors`, `operator.json` and `loss.csv` to the folder `--out`. The errors that it prints are those on
    validation cases, which training never saw.

    Example: `isocline operator train ks/ --model unet --strategy pushforward --out runs/ks`
    """
    from isocline._core.estimate import Budget
    from isocline.datasets import open_data
    from isocline.datasets.fields import Window
    from isocline.recipes.operator import OperatorConfig, strategy_of, train_operator
    from isocline.training import Settings, launched

    source = open_data(data, boundary)
    steady = source.spec.times == 1
    window = Window(0 if steady else past, future, stride)
    how = "state" if window.past == 0 else "difference"
    leads = strategy == "all-to-all"
    config = OperatorConfig(model, width, source.spec, window, how, coordinates, leads, refine)
    chosen = None if strategy is None else strategy_of(strategy, unroll)
    settings = Settings(
        steps,
        batch=batch,
        rate=rate,
        average=average,
        seed=seed,
        checkpoint_every=checkpoint_every,
        warmup=min(100, steps // 10 + 1),
    )
    budget = Budget(seconds=seconds) if seconds else None
    fabric = launched(devices, precision)
    fitted, found = train_operator(source, out, config, settings, strategy=chosen, budget=budget, fabric=fabric)
    if fabric is not None and fabric.global_rank != 0:
        return
    trained = fitted.trained
    if as_json:
        typer.echo(
            json.dumps({"out": str(out), "steps": trained.steps, "seconds": trained.seconds, "valid": found.as_dict()})
        )
        return
    typer.echo(f"{out}: {trained.steps} of {settings.steps} updates, {trained.seconds:.0f} seconds")
    _say(found)
    if not trained.finished:
        typer.echo("The time is used up; the same command continues.")


def _say(found: CaseErrors) -> None:
    typer.echo(f"one window, relative L2 on validation cases: {found.one}")
    if found.far is not None:
        typer.echo(f"after a rollout of {found.frames} frames: {found.far}")
    if found.lost:
        typer.echo(f"{found.lost:.0%} of the rollouts are not finite at their end")


@app.command()
def rollout(
    run: Run,
    data: Data,
    steps: Annotated[Optional[int], typer.Option(help="Frames; all that are stored by default.", min=1)] = None,  # noqa: UP045
    cases: Annotated[int, typer.Option(help="How many cases.", min=2)] = 32,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    boundary: Boundary = None,
    out: Out = None,
    as_json: AsJSON = False,
) -> None:
    """Roll a surrogate out, and compare with the solver.

    Writes `rollout.gif`, `error.png`, `spectrum.png` and `rollout.json`.

    Example: `isocline operator rollout runs/ks ks/`
    """
    from isocline.datasets import open_data
    from isocline.recipes.operator import load_operator, report_rollout

    where = out or run
    found = report_rollout(load_operator(run), open_data(data, boundary), where, steps=steps, cases=cases, split=split)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    _say_rollout(found, where)


def _say_rollout(found: RolloutReport, where: Path) -> None:
    last = len(found.t) - 1
    for k in sorted({0, last // 2, last}):
        alive = int(found.errors[:, k].isfinite().sum())
        model = str(found.at(k)) if alive > 1 else "not finite"
        typer.echo(f"after {float(found.t[k]):.3g}: relative L2 {model}; last given frame kept: {found.at(k, True)}")
    for threshold, estimate in found.correlation_time.items():
        share = found.reached[threshold]
        more = f" ({share:.0%} of the cases stay above it to the end, so this is a lower bound)" if share else ""
        typer.echo(f"correlation above {threshold:g} for {estimate}{more}")
    typer.echo(f"pictures: {where / 'rollout.gif'}, {where / 'error.png'}, {where / 'spectrum.png'}")


@app.command()
def audit(
    run: Run,
    data: Data,
    cases: Annotated[int, typer.Option(help="How many cases.", min=2)] = 16,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    boundary: Boundary = None,
    out: Out = None,
    as_json: AsJSON = False,
) -> None:
    """Run a surrogate on other grids and over time: observed order, where aliasing enters, growth of the error.

    Writes `audit.png` and `audit.json`. Only for periodic grids.

    Example: `isocline operator audit runs/ks ks/`
    """
    from isocline.datasets import open_data
    from isocline.recipes.operator import audit_as_dict, load_operator, report_audit

    where = out or run
    found = report_audit(load_operator(run), open_data(data, boundary), where, cases=cases, split=split)
    if as_json:
        typer.echo(json.dumps(audit_as_dict(found)))
        return
    _say_audit(found, where)


def _say_audit(found: Audit, where: Path) -> None:
    for grid in found.grids:
        size = " x ".join(map(str, grid.sizes))
        differs = f"; differs from the own grid by {grid.aliasing:.2g}" if grid.aliasing else " (the own grid)"
        wave = f", from wave {grid.wave} on" if grid.wave is not None else ""
        typer.echo(f"{size} points: relative L2 {grid.error}{differs}{wave}")
    for sizes, reason in found.refused:
        typer.echo(f"{' x '.join(map(str, sizes))} points: not possible ({reason})")
    typer.echo(f"observed order in the spacing: {found.order:.2f}")
    if found.alias is None:
        typer.echo("no layer differs by more than 1 % between the own grid and twice as many points")
    else:
        typer.echo(f"aliasing enters at {found.alias[0]}: it differs by {found.alias[1]:.2g} from twice as many points")
    for step in found.steps:
        typer.echo(f"{step.calls} calls of {step.frames} frames: relative L2 {step.error}")
    typer.echo(f"the error of a rollout grows like time to the power {found.growth:.2f}")
    typer.echo(f"picture: {where / 'audit.png'}")


@app.command()
def cost(run: Run, data: Data, out: Out = None, as_json: AsJSON = False) -> None:
    """Compare a surrogate's cost with that of its solver at equal error, and say after how many queries it pays.

    Needs data made by `isocline data generate` on periodic axes. Writes `cost.json`.

    Example: `isocline operator cost runs/burgers burgers/`
    """
    from isocline.recipes.operator import load_operator, report_cost

    where = out or run
    ledger = report_cost(load_operator(run), data, where)
    if as_json:
        typer.echo(json.dumps(ledger.as_dict()))
        return
    for solver in ledger.solver:
        typer.echo(f"solver, {solver.label}: relative L2 {solver.error:.3g}, {solver.seconds:.3g} seconds a case")
    typer.echo(f"model: relative L2 {ledger.error:.3g}, {ledger.inference:.3g} seconds a case")
    typer.echo(f"data {ledger.data:.3g} seconds, training {ledger.training:.3g} seconds")
    typer.echo(ledger.text)
