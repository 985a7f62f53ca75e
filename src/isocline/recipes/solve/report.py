"""The page about a solution: pictures of the field, its residual and points; error, cost, and a classical solver beside it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isocline._version import __version__
from isocline.objectives import ResidualLoss
from isocline.objectives.residuals import INSIDE
from isocline.points import Domain
from isocline.recipes import pictures
from isocline.recipes.solve.training_points import dtype_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from isocline.recipes.solve.solution import Solution

LINE, SIDE, RANGE, CHUNK = 401, 121, 1e8, 512


def page(solution: Solution) -> str:
    """Return the HTML page; it needs no network."""
    facts = {
        "name": html.escape(solution.problem.name),
        "error": html.escape(str(solution.error)),
        "field": pictures.inline(picture(solution), "the solution, its error or residual, and the training points"),
        "loss": pictures.inline(losses(solution), "training loss against steps"),
        "residuals": _residuals(solution),
        "cost": html.escape(cost_line(solution)),
        "classical": html.escape(classical_line(solution)),
        "parameters": html.escape(parameters_line(solution)),
        "version": __version__,
    }
    return _PAGE.format(**facts)


def picture(solution: Solution) -> Figure:
    """Return a figure of the solution; more than two dimensions are cut through the middle of the others."""
    from matplotlib.figure import Figure

    components = solution.problem.components
    across = 2 if solution.problem.domain.d == 1 else 3
    figure = Figure(figsize=(4.4 * across, 3.4 * components), layout="constrained")
    every = figure.subplots(components, across, squeeze=False)
    for component, row in enumerate(every):
        (_one_dimension if solution.problem.domain.d == 1 else _two_dimensions)(solution, component, list(row))
    return figure


def _one_dimension(solution: Solution, component: int, axes: list[Axes]) -> None:
    problem = solution.problem
    low, high = (float(bound[0]) for bound in problem.domain.bounds)
    x = torch.linspace(low, high, LINE, dtype=torch.float64)[:, None]
    line = x[:, 0].numpy()
    axes[0].plot(line, solution(x)[:, component].numpy(), color=pictures.INK, label="solution")
    if problem.reference is not None:
        axes[0].plot(
            line, problem.reference(x)[:, component].detach().numpy(), "--", color=pictures.ACCENT, label="reference"
        )
    axes[0].set_title(_title("u", component, problem.components))
    axes[0].legend(frameon=False)
    name, values = _wrong(solution, x, component)
    axes[1].semilogy(line, values.clamp_min(1e-18).numpy(), color=pictures.INK)
    points = solution.points[INSIDE]["x"].detach().double()[:, 0]
    axes[1].plot(points.numpy(), [float(values.clamp_min(1e-18).min())] * len(points), "|", color=pictures.GREY)
    axes[1].set_title(f"{name}; ticks are training points")
    for a in axes:
        a.set_xlabel(problem.names[0])


def _two_dimensions(solution: Solution, component: int, axes: list[Axes]) -> None:
    problem, domain = solution.problem, solution.problem.domain
    x, shape = slice_of(domain)
    inside = domain.contains(x)
    field = torch.where(inside, solution(x)[:, component], torch.nan)
    name, wrong = _wrong(solution, x, component)
    floor = max(float(wrong[inside].max()) / RANGE, 1e-18)  # what holds by construction would flatten the colours
    shown = torch.where(inside, wrong.clamp_min(floor).log10(), torch.nan)
    low, high = domain.bounds
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    points = solution.points[INSIDE]["x"].detach().double()
    titles = (_title("u", component, problem.components), f"log10 {name}", f"{len(points)} training points")
    for a, values, title in zip(axes[:2], (field, shown), titles, strict=False):
        drawn = a.imshow(values.reshape(shape).T.numpy(), origin="lower", extent=extent, aspect="auto", cmap="viridis")
        a.figure.colorbar(drawn, ax=a)
        a.set_title(title)
    axes[2].plot(points[:, 0].numpy(), points[:, 1].numpy(), ".", markersize=2, color=pictures.INK)
    axes[2].set_title(titles[2])
    for a in axes:
        a.set_xlabel(problem.names[0])
        a.set_ylabel(problem.names[1])


def slice_of(domain: Domain) -> tuple[Tensor, tuple[int, int]]:
    """Return a grid (N, d) over the first two coordinates, the others in the middle of their range, and its shape."""
    low, high = domain.bounds
    first, second = (torch.linspace(float(low[k]), float(high[k]), SIDE, dtype=torch.float64) for k in (0, 1))
    plane = torch.cartesian_prod(first, second)
    rest = ((low + high) / 2)[2:].expand(len(plane), -1)
    return torch.cat([plane, rest], 1), (SIDE, SIDE)


def _wrong(solution: Solution, x: Tensor, component: int) -> tuple[str, Tensor]:
    """Return the error where there is a reference, else the residual of the first equation, with its name."""
    problem = solution.problem
    if problem.reference is not None:
        return "error", (solution(x) - problem.reference(x))[:, component].abs()
    values = problem.values(solution.parameters)
    loss, parts = ResidualLoss(problem), x.to(dtype_of(solution.field)).split(CHUNK)
    found = [loss.block(solution.field, INSIDE, {"x": part}, values) for part in parts]
    return "residual", torch.cat([r[min(component, len(r) - 1)].detach().abs() for r in found])


def _title(name: str, component: int, components: int) -> str:
    return name if components == 1 else f"{name}, component {component}"


def losses(solution: Solution) -> Figure:
    """Return the training loss against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(*zip(*solution.losses, strict=True), color=pictures.GREY)
    axes.set_xlabel("step")
    axes.set_title("training loss (what was minimised, not an error)", fontsize=10)
    return figure


def cost_line(solution: Solution) -> str:
    """Return what it cost, in a sentence."""
    cost = solution.cost
    return (
        f"{cost.seconds:.1f} seconds of training, {cost.steps} steps of {cost.optimizer} on {cost.points} residuals, "
        f"{cost.parameters} parameters. It ended because: {solution.stopped}."
    )


def classical_line(solution: Solution) -> str:
    """Return what a classical solver does, in a sentence."""
    found, error = solution.classical, solution.error.relative_l2
    if found is None:
        return "No classical solver was run on this problem."
    if not found.converged:
        return f"{found.how} did not converge in {found.seconds:.2g} seconds (its own estimate: {found.error:.1e})."
    line = f"{found.how} reached {found.error:.1e} in {found.seconds:.2g} seconds"
    if error is None or found.error > error.value:
        return line + "."
    ratio = solution.cost.seconds / max(found.seconds, 1e-9)
    return line + (f": {ratio:.0f} times faster than this network, at no larger error." if ratio > 1 else ".")


def parameters_line(solution: Solution) -> str:
    """Return the parameters that were found, in a line."""
    return ", ".join(f"{name} = {value:.6g}" for name, value in solution.parameters.items())


def _residuals(solution: Solution) -> str:
    rows = [
        f"<tr><td>{html.escape(name)}</td><td>{r.value:.3g}</td><td>{r.low:.3g} to {r.high:.3g}</td></tr>"
        for name, r in solution.error.residuals.items()
    ]
    return "\n".join(rows)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: solution</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }}
img {{ max-width: 100%; }} table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem .9rem; text-align: right; border-bottom: 1px solid #eee; }}
td:first-child, th:first-child {{ text-align: left; }}
.lead {{ font-size: 1.1rem; }} footer {{ color: #777; margin-top: 3rem; font-size: .85rem; }}
</style></head><body>
<h1>{name}</h1>
<p class="lead">Error: {error}</p>
<p>{parameters}</p>
{field}
<h2>How well the equations hold</h2>
<p>Root mean square of each residual, in its own unit, on points that were not trained on, with 95 % intervals.</p>
<table><tr><th>equation</th><th>residual</th><th>interval</th></tr>
{residuals}
</table>
<h2>What it cost</h2>
<p>{cost}</p>
<p>{classical}</p>
{loss}
<footer>isocline {version}</footer>
</body></html>
"""
