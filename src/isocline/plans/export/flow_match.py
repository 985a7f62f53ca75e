r"""Euler plans for flows on diffusers' own ``FlowMatchEulerDiscreteScheduler``, without a scheduler of ours.

Pipelines of flows take a list ``sigmas``, but the scheduler shifts whatever it is given, as it shifts its own spacing:

    sigma' = k sigma / (1 + (k - 1) sigma) ,      k = shift,  or e^mu or mu with dynamic shifting.

To have it step through the times ``t`` of a plan one passes their pre-image ``sigma = t / (k - (k - 1) t)``, which is the same map
with ``1 / k`` (the shift is that of Esser et al., arXiv 2403.03206).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.plans import solvers
from isocline.plans.export.sampler import check_exportable
from isocline.plans.export.seen import Seen
from isocline.plans.plan import Plan
from isocline.processes import RectifiedFlow


def flow_match_sigmas(plan: Plan, scheduler: Any, mu: float | None = None) -> tuple[float, ...]:
    """Return the ``sigmas`` with which a pipeline's own ``FlowMatchEulerDiscreteScheduler`` computes what `plan` does.

    Args:
        plan: an Euler plan (`flow_euler`, `ddim`) for a `RectifiedFlow`, with nodes from ``t = 1`` to 0 and model times of its own
            states.
        scheduler: the pipeline's scheduler; it is not changed.
        mu: the pipeline's shift for the image size, where the scheduler shifts dynamically.

    Raises:
        InvalidInput: the plan is not Euler's, ``mu`` is missing, or the scheduler does not keep these times (Karras, exponential or
            beta sigmas, inverted sigmas, another terminal time, stochastic sampling).
    """
    check_exportable(plan, "FlowMatchEulerDiscreteScheduler")
    require(
        isinstance(plan.process, RectifiedFlow) and _is_euler(plan),
        "FlowMatchEulerDiscreteScheduler takes Euler steps of a flow to t = 0 only; use plan.to_diffusers(folder) for this plan",
    )
    config = scheduler.config
    require(
        not config.get("stochastic_sampling"),
        "this scheduler adds noise (stochastic_sampling), which the plan does not",
    )
    if config.get("use_dynamic_shifting") and mu is None:
        raise InvalidInput("this scheduler shifts by the image size: pass mu=..., as the pipeline computes it")
    times = plan.nodes.detach()
    sigmas = _pre_image(times[:-1], _factor(config, mu)).tolist()
    _check_kept(scheduler, times, sigmas, mu)
    return tuple(sigmas)


def _is_euler(plan: Plan) -> bool:
    euler = solvers.flow_euler(plan.process, plan.nodes.detach())
    return float(plan.nodes[-1]) == 0 and Seen.as_it_is(plan).same(Seen.as_it_is(euler))


def _factor(config: Any, mu: float | None) -> float:
    if not config.get("use_dynamic_shifting"):
        return float(config["shift"])
    assert mu is not None
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else float(mu)


def _pre_image(t: Tensor, factor: float) -> Tensor:
    return t / (factor - (factor - 1) * t)


def _check_kept(scheduler: Any, times: Tensor, sigmas: list[float], mu: float | None) -> None:
    trial = copy.deepcopy(scheduler)
    trial.set_timesteps(sigmas=np.array(sigmas), mu=mu)
    same = trial.sigmas.shape == times.shape and torch.allclose(trial.sigmas.double(), times, rtol=1e-5, atol=1e-6)
    require(
        same,
        f"{type(scheduler).__name__} changes these times by more than its shift; use plan.to_diffusers(folder) instead",
    )
