"""Plans for people: as text and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isocline.plans.canonical import used
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def text(plan: Plan) -> str:
    """Return one line of facts and one line for each row."""
    origin = plan.provenance
    error = f", held-out error {origin.error}" if origin.error else ""
    threshold = f", {plan.threshold.describe()}" if plan.threshold else ""
    head = (
        f"{_made_by(origin)}: {plan.calls} calls, {plan.parameterisation.name}, {plan.process.describe()}, "
        f"guidance {plan.guidance:g}{threshold}{error}"
    )
    each = [f"a coefficient for each coordinate of shape {plan.event}: mean [least, largest]"] if plan.event else []
    titles = f"{'row':>3} {'time':>10} {'told':>10} {'carry':>10} {'noise':>8}  weights"
    lines = [head, *each, titles]
    for i, (t, terms) in enumerate(zip(plan.times[:-1].tolist(), used(plan.weights.detach()), strict=True)):
        told = f"{plan.model_times[i]:10.4g}" if plan.evaluate[i] else f"{'-':>10}"
        shown = [f"{j}:{_number(plan.weights[i, j], '.4g')}" for j in terms]
        shown += [] if plan.constant is None else [f"+ {_number(plan.constant[i], '.4g')}"]
        carry, noise = _number(plan.carry[i], "10.4g"), _number(plan.noise[i], "8.3g")
        lines.append(f"{i:>3} {t:10.4g} {told} {carry} {noise}  {' '.join(shown)}")
    lines.append(f"end {plan.times[-1]:10.4g}")
    return "\n".join(lines)


def _number(coefficient: Tensor, form: str) -> str:
    """Return a coefficient as text; of one for each coordinate the mean, the least and the largest."""
    mean = f"{coefficient.mean():{form}}"
    least, largest = float(coefficient.min()), float(coefficient.max())
    return mean if least == largest else f"{mean} [{least:.3g}, {largest:.3g}]"


def _made_by(origin: Provenance) -> str:
    """Return the method, and for several solvers in one run which takes how many steps."""
    stretches = origin.settings.get("stretches", [])
    listed = ", ".join(f"{stretch['solver']} x {stretch['steps']}" for stretch in stretches)
    return f"{origin.method} ({listed})" if listed else origin.method


def figure(plan: Plan) -> Figure:
    """Return a figure: noise level at each call with the time the network is told, and the weights on data predictions.

    Weights for each coordinate are shown by their mean over coordinates.
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    _draw_levels(plan, left)
    _draw_weights(plan, right)
    picture.suptitle(f"{_made_by(plan.provenance)}, {plan.calls} calls")
    return picture


def _draw_levels(plan: Plan, axes: Axes) -> None:
    rows = torch.arange(len(plan.times))
    level = plan.process.noise_level(plan.times)
    told = plan.process.noise_level(plan.model_times[plan.evaluate])
    shown = torch.isfinite(level) & (level > 0)
    axes.plot(rows[shown].tolist(), level[shown].tolist(), "o-", color="#1f4e79", label="state")
    axes.plot(rows[:-1][plan.evaluate].tolist(), told.tolist(), "x", color="#c55a11", label="told to the network")
    axes.set(yscale="log", xlabel="row", ylabel="noise level sigma / alpha", xticks=rows.tolist())
    axes.legend(frameon=False)


def _draw_weights(plan: Plan, axes: Axes) -> None:
    weights = plan.weights.flatten(2).mean(2) if plan.event else plan.weights
    share = weights / weights.abs().sum(1, keepdim=True).clamp_min(1e-300)
    image = axes.imshow(share.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set(xlabel=f"output used ({plan.parameterisation.name})", ylabel="row", title="share of the row's weights")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
