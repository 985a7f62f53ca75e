r"""The sampler that belongs to AdjointDPM: an explicit Runge-Kutta method in ``rho`` (Pan et al., arXiv 2307.10711).

    e_i = eps(alpha_i (y + h sum_{j<i} a_ij e_j), t(rho + c_i h)) ,      y' = y + h sum_i b_i e_i ,      h = rho' - rho

Euler's method gives DDIM, the trapezoidal rule the `heun` of EDM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.plans.gradients.adjoint_dpm import METHOD
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level
from isocline.plans.solvers.rows import Levels
from isocline.processes import GaussianProcess, Noise


@METHOD.variant()
def rho_runge_kutta(process: GaussianProcess, times: Tensor, method: ExplicitRungeKutta) -> Plan:
    """Return the plan of a Runge-Kutta method in ``rho``: the method's order, one call a stage.

    Args:
        process: any Gaussian process with finite noise levels at both ends.
        times: (n+1,) decreasing times.
        method: an explicit Runge-Kutta method; a last stage that only serves the error estimate is left out.
    """
    levels, table = Levels(process, times), method.tableau
    levels.require_finite("rho_runge_kutta")
    stages = table.stages - table.last_is_solution
    draft = Draft(process, Noise(), levels.n * stages)
    x = draft.start
    for i in range(levels.n):
        here, there = levels.at(i), levels.at(i + 1)
        h, outputs = there.s - here.s, [draft.call(x, here)]
        for c, row in zip(table.abscissae[1:stages], table.a, strict=False):
            level = _between(process, here, there, c)
            outputs.append(draft.call(_combined(x, here, level, h, row, outputs), level))
        x = _combined(x, here, there, h, table.b, outputs)
    return draft.finish(
        x, levels.at(levels.n), levels.times, Provenance("rho_runge_kutta", METHOD.arxiv, {"tableau": table.name})
    )


def _between(process: GaussianProcess, here: Level, there: Level, c: float) -> Level:
    if c in (0.0, 1.0):
        return there if c else here
    return Level.at(process, process.time_of_noise_level(here.s + c * (there.s - here.s)))


def _combined(x: Tensor, here: Level, there: Level, h: Tensor, weights: object, outputs: list[Tensor]) -> Tensor:
    total = sum((w * e for w, e in zip(weights, outputs, strict=False) if w), torch.zeros_like(x))  # type: ignore[call-overload]
    return there.alpha / here.alpha * x + there.alpha * h * total
