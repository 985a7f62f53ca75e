r"""Velocity solvers: Euler, Heun, midpoint and Adams on the straight path (arXiv 2209.03003, 2210.02747).

Every Gaussian process, rescaled, is rectified flow. With ``tau = sigma / (alpha + sigma)`` and ``u = x / (alpha + sigma)``

    u = (1 - tau) D + tau e ,     du/dtau = v = e - D = (x - (alpha + sigma) D) / sigma ,

``D`` and ``e`` the predictions of datum and noise. ``tau`` runs from 1 (no signal) to 0 (no noise) and both ends are regular: pure
noise is an ordinary start, and a step that ends without noise needs nothing special as long as ``v`` is not asked for at its end.
The methods are the textbook ones for this equation, in ``tau``; Adams integrates the Lagrange polynomial in ``tau`` through the
last ``k`` velocities. On `RectifiedFlow` ``tau = t``, ``u = x`` and ``v`` is what a velocity network returns.

Plans for `RectifiedFlow` hold weights of velocities. On other processes ``v`` is no network's output but a combination of state and
data prediction, so earlier states enter, and the plan holds weights of all earlier data predictions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level
from isocline.plans.solvers.lagrange import POINTS, SHARES, lagrange
from isocline.plans.solvers.rows import Levels, ramp
from isocline.processes import Data, FlowVelocity, GaussianProcess, RectifiedFlow

RECTIFIED_FLOW = Method(
    "rectified-flow",
    "Rectified flow (velocity solvers)",
    "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    "Xingchao Liu, Chengyue Gong, Qiang Liu",
    2022,
    "2209.03003",
    room="plans.solvers",
    when="Flow models; flow_adams for any process with few calls and a start at or near pure noise.",
)


@RECTIFIED_FLOW.variant(order=1)
def flow_euler(process: GaussianProcess, times: Tensor) -> Plan:
    """Return Euler's method for the velocity: order 1, one call a step; the same as DDIM.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
    """
    return _adams("flow_euler", process, times, 1, None, {})


@RECTIFIED_FLOW.variant(order=2)
def flow_heun(process: GaussianProcess, times: Tensor) -> Plan:
    """Return Heun's method for the velocity: order 2, two calls a step; a last step to time 0 is an Euler step, one call."""
    levels = Levels(process, times)
    draft = _draft(levels, 2 * levels.n - (1 if levels.ends_clean else 0))
    x = draft.start
    for i in range(levels.n):
        here, there = levels.at(i), levels.at(i + 1)
        v = _velocity(draft, x, here)
        if not (levels.ends_clean and i == levels.n - 1):
            v = (v + _velocity(draft, _move(x, here, there, v), there)) / 2
        x = _move(x, here, there, v)
    return draft.finish(x, levels.at(levels.n), levels.times, Provenance("flow_heun", RECTIFIED_FLOW.arxiv))


@RECTIFIED_FLOW.variant(order=2)
def flow_midpoint(process: GaussianProcess, times: Tensor) -> Plan:
    """Return the midpoint rule for the velocity: order 2, two calls a step, also a last step to time 0."""
    levels = Levels(process, times)
    draft = _draft(levels, 2 * levels.n)
    x = draft.start
    for i in range(levels.n):
        here, there = levels.at(i), levels.at(i + 1)
        tau = (_tau(here) + _tau(there)) / 2
        middle = Level.at(process, process.time_of(torch.log1p(-tau) - torch.log(tau)))
        v = _velocity(draft, _move(x, here, middle, _velocity(draft, x, here)), middle)
        x = _move(x, here, there, v)
    return draft.finish(x, levels.at(levels.n), levels.times, Provenance("flow_midpoint", RECTIFIED_FLOW.arxiv))


@RECTIFIED_FLOW.variant(order=3)
def flow_adams(process: GaussianProcess, times: Tensor, *, order: int = 3, final_order: int | None = None) -> Plan:
    """Return Adams-Bashforth for the velocity: order `order`, one call a step.

    A step to time 0 keeps the order. Equal steps in ``tau`` have the classical weights ``{3, -1} / 2``, ``{23, -16, 5} / 12``, ...
    The first steps use fewer velocities, which caps the limiting order at 2 where the data prediction moves at the start.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        order: number of past velocities.
        final_order: order of the last step.
    """
    settings = {"order": order, "final_order": final_order}
    return _adams("flow_adams", process, times, order, final_order, settings)


def _adams(
    name: str, process: GaussianProcess, times: Tensor, order: int, final_order: int | None, settings: dict[str, Any]
) -> Plan:
    levels = Levels(process, times)
    draft = _draft(levels, levels.n)
    taus = levels.sigma / (levels.alpha + levels.sigma)
    x, velocities = draft.start, []
    for i, k in enumerate(ramp(levels.n, order, final_order)):
        velocities.append(_velocity(draft, x, levels.at(i)))
        means = _means(taus[i - k + 1 : i + 1], taus[i], taus[i + 1])
        x = _move(x, levels.at(i), levels.at(i + 1), means @ torch.stack(velocities[-k:]))
    return draft.finish(x, levels.at(levels.n), levels.times, Provenance(name, RECTIFIED_FLOW.arxiv, settings))


def _draft(levels: Levels, rows: int) -> Draft:
    own = isinstance(levels.process, RectifiedFlow)
    return Draft(levels.process, FlowVelocity() if own else Data(), rows)


def _tau(level: Level) -> Tensor:
    return level.sigma / (level.alpha + level.sigma)


def _velocity(draft: Draft, x: Tensor, level: Level) -> Tensor:
    """Call the network and return ``v``."""
    output = draft.call(x, level)
    if isinstance(draft.parameterisation, FlowVelocity):
        return output
    return (x - (level.alpha + level.sigma) * output) / level.sigma


def _move(x: Tensor, here: Level, there: Level, v: Tensor) -> Tensor:
    """Return ``u' = u + (tau' - tau) v`` in ``x``."""
    total = there.alpha + there.sigma
    return total / (here.alpha + here.sigma) * x + total * (_tau(there) - _tau(here)) * v


def _means(nodes: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the means (k,) over the step of the Lagrange polynomials of `nodes` (k,)."""
    if len(nodes) == 1:
        return torch.ones_like(nodes)
    tau = start + (end - start) * (POINTS + 0.5)
    return torch.stack([(basis * SHARES).sum() for basis in lagrange(nodes, tau)])
