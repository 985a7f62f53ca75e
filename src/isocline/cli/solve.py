"""``isocline solve``: a differential equation by a network, with its error."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from isocline._core.errors import DataMissing, InvalidInput, nearest
from isocline.cli.limited import run_limited

if TYPE_CHECKING:
    from isocline.equations import Problem
    from isocline.recipes.solve import Solution

INSIDE = "ISOCLINE_LIMITED"  # set in the process that a user's file runs in


def solve(
    problem: Annotated[
        str,
        typer.Argument(help="A problem of the library (`isocline solve list`), or a .py file that defines `problem`."),
    ],
    seconds: Annotated[float, typer.Option(help="Time of training.")] = 60.0,
    points: Annotated[Optional[int], typer.Option(help="Training points inside the domain.", min=1)] = None,  # noqa: UP045
    width: Annotated[int, typer.Option(help="Width of the network's three layers.", min=2)] = 24,
    directions: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Estimate the Laplacian from so many random directions, in many dimensions.", min=1),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Folder of the results. [default: runs/solve/NAME]"),
    ] = None,
    classical: Annotated[bool, typer.Option(help="Run a classical solver beside it.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Solve a differential equation with a network, and say how wrong the solution is.

    Writes `solution.safetensors`, `solution.json`, `solution.png` and `report.html` to the folder `--out`. A run that was stopped
    goes on where it was. A file of your own runs in a process with limits.

    Examples: `isocline solve burgers --seconds 30`, `isocline solve my_problem.py --json`
    """
    if problem == "list":
        _list(as_json)
        return
    if problem.endswith(".py") and INSIDE not in os.environ:
        if not Path(problem).is_file():
            raise DataMissing(f"there is no file {problem}")
        os.environ[INSIDE] = "1"
        raise typer.Exit(run_limited(sys.argv[1:], seconds))
    _solve(
        _problem(problem),
        seconds,
        points,
        width,
        directions,
        out or Path("runs/solve") / Path(problem).stem,
        classical,
        seed,
        as_json,
    )


def _problem(name: str) -> Problem:
    if name.endswith(".py"):
        from isocline.recipes.solve.user_file import load_problem

        return load_problem(name)
    from isocline.equations.library import problems

    known = problems()
    if name not in known:
        raise InvalidInput(f"the library has no problem {name!r}. {nearest(name, known)} A file ends in .py")
    return known[name]()


def _solve(
    problem: Problem,
    seconds: float,
    points: int | None,
    width: int,
    directions: int | None,
    out: Path,
    classical: bool,
    seed: int,
    as_json: bool,
) -> None:
    from isocline._core import files
    from isocline._core.estimate import Budget
    from isocline.derivatives import taylor
    from isocline.objectives import EstimatedLaplacian
    from isocline.recipes.pictures import save
    from isocline.recipes.solve import solve as run
    from isocline.recipes.solve.defaults import default_network
    from isocline.recipes.solve.report import picture

    console = Console(stderr=as_json)
    names = problem.names if problem.domain.d <= 8 else (*problem.names[:2], "...", problem.names[-1])
    console.print(f"{problem.name}: {', '.join(names)}; training for {seconds:g} seconds.", markup=False)
    budget = Budget(seconds=seconds, points=points)
    network = default_network(problem, width, seed=seed)
    backend = EstimatedLaplacian(samples=directions) if directions else taylor
    solution = run(problem, network, budget=budget, rng=seed, folder=out / "run", classical=classical, backend=backend)
    solution.save(out)
    save(picture(solution), out / "solution.png")
    solution.report(out / "report.html")
    if as_json:
        typer.echo(json.dumps(files.read_json(out / "solution.json")))
    else:
        _say(solution, console)
    console.print(f"Report: {out / 'report.html'}   Picture: {out / 'solution.png'}", markup=False, soft_wrap=True)


def _say(solution: Solution, console: Console) -> None:
    from isocline.recipes.solve.report import classical_line, cost_line, parameters_line

    lines = [f"Error: {solution.error}"]
    if solution.parameters:
        lines.append(f"Found: {parameters_line(solution)}")
    lines += [f"Residual of {name}: {value} (RMS)" for name, value in solution.error.residuals.items()]
    lines += [f"Cost: {cost_line(solution)}", f"Beside it: {classical_line(solution)}"]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _list(as_json: bool) -> None:
    from isocline.equations.library import problems

    found = {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in problems().items()}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name, line in found.items():
        typer.echo(f"{name:28}{line}")
