"""Freezing: the steps a sampler chose, as a plan that takes them again without asking for an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from isocline._core.errors import InvalidInput
from isocline.plans.adaptive.result import AdaptiveRun
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.processes import GaussianProcess


def freeze(run: AdaptiveRun, solver: Callable[[GaussianProcess, Tensor], Plan] | None = None) -> Plan:
    """Return a plan with the accepted steps of `run`, and its last data prediction where it made one.

    A run with one step for the whole batch, frozen with its own solver, is repeated to rounding. Where each sample had its
    own steps, the plan has the batch's average grid; the error control is lost, and with it what the run promised.

    Args:
        run: the result of a sampler that chose its own steps.
        solver: what to compile on the nodes, ``(process, times) -> Plan``; the run's own by default.

    Raises:
        InvalidInput: the run's own steps have no plan, and no solver is given.

    Examples:
        >>> from isocline.plans.adaptive import DPMAdaptive
        >>> from isocline.processes import EDM, GaussianMixture
        >>> model = GaussianMixture(EDM(), torch.zeros(1, 2), torch.ones(1))
        >>> x = EDM().terminal((4, 2), 0, dtype=torch.float64)
        >>> run = DPMAdaptive().run(model, x)
        >>> plan = freeze(run)
        >>> plan.calls == int(3 * run.accepted[0]), torch.allclose(plan.run(model, x).x, run.x, rtol=1e-10, atol=1e-10)
        (True, True)
    """
    solver = solver or run.solver
    if solver is None:
        raise InvalidInput(
            f"the steps of {run.origin.method} have no row form; pass the solver that shall take them: freeze(run, solvers.ddim)"
        )
    plan = solver(run.process, run.nodes)
    base = plan.provenance
    settings = {
        "run": run.origin.method,
        **run.origin.settings,
        "solver": base.method,
        "solver_settings": base.settings,
    }
    found = Provenance("freeze", run.origin.arxiv, settings, cost=run.cost.as_dict())
    plan = replace(plan, provenance=found, guidance=run.guidance)
    return denoised(plan) if run.denoised else plan


def denoised(plan: Plan) -> Plan:
    """Return `plan` with one more call, which replaces its end state by the data prediction there (Tweedie's formula)."""
    cx, cm = plan.parameterisation.to_data(plan.process, plan.times[-1])
    weights = pad(plan.weights, (0, 1, 0, 1))
    weights[-1, -1] = cm
    return replace(
        plan,
        times=torch.cat([plan.times, plan.times[-1:]]),
        model_times=torch.cat([plan.model_times, plan.times[-1:]]),
        carry=torch.cat([plan.carry, cx[None]]),
        weights=weights,
        noise=pad(plan.noise, (0, 1)),
        evaluate=pad(plan.evaluate, (0, 1), value=True),
    )
