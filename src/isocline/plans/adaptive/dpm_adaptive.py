r"""DPM-Solver-12 and DPM-Solver-23: embedded pairs that choose their steps (Lu et al., arXiv 2206.00927).

Two solvers of neighbouring order share their calls: DPM-Solver-1 is inside DPM-Solver-2 with its stage at ``r1 = 1/2``, and
DPM-Solver-2 with ``r1 = 1/3`` is inside DPM-Solver-3. A step of ``h`` in half log-SNR gives ``x_low`` and ``x_high``; with ``d``
coordinates in a sample

    delta = max(atol, rtol max(|x_low|, |x_low of the last accepted step|)),      E = max_b |(x_high - x_low) / delta|_b / sqrt(d),

the step is accepted, with ``x_high``, where ``E <= 1``, and in any case

    h <- min(theta h E^(-1/q), lam_end - lam) ,      q the higher order.

One ``h`` serves the whole batch, set by its worst sample, as in the authors' code: a sample's result depends on its batch mates.
A rejected step's first call is at a state that does not change, so it is kept: ``q`` calls an accepted step, ``q - 1`` a
rejected one (the authors' code makes ``q`` in both). Each step is compiled as two plans of one step, so that a frozen run has the
same coefficients; that costs milliseconds, whatever the network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Cost
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.plans.adaptive.result import AdaptiveRun, StepLimit, check_ends, check_start, not_finite
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.dpm_solver import dpm_solver_1, dpm_solver_2, dpm_solver_3
from isocline.processes import Denoiser, GaussianProcess

DPM_ADAPTIVE = Method(
    "dpm-solver-adaptive",
    "DPM-Solver-12 and -23 (adaptive)",
    "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
    "Cheng Lu, Yuhao Zhou, Fan Bao, Jianfei Chen, Chongxuan Li, Jun Zhu",
    2022,
    "2206.00927",
    room="plans.adaptive",
    when="A tolerance is given, not a number of calls; freeze the run to repeat its steps as a plan.",
)

SHORTEST = 1e-9  # in half log-SNR; the error of such a step is rounding

Solver = Callable[[GaussianProcess, Tensor], Plan]
PAIRS: dict[int, tuple[Solver, Solver]] = {
    2: (dpm_solver_1, partial(dpm_solver_2, r1=1 / 2)),
    3: (partial(dpm_solver_2, r1=1 / 3), partial(dpm_solver_3, r1=1 / 3, r2=2 / 3)),
}


@DPM_ADAPTIVE.variant(order=3)
@dataclass(frozen=True)
class DPMAdaptive:
    """DPM-Solver-12 (`order` 2) or DPM-Solver-23 (`order` 3), from ``t_max`` to ``t_min`` of the denoiser's process.

    Args:
        order: the higher order of the pair, 2 or 3.
        rtol: tolerance relative to the state's coordinates.
        atol: absolute tolerance in units of the state; the default is one grey level of images in [-1, 1].
        safety: ``theta``, the share of the predicted step that is taken.
        first_step: first step tried, in half log-SNR.
        max_steps: largest number of steps tried.

    Examples:
        >>> from isocline.processes import EDM, GaussianMixture
        >>> model = GaussianMixture(EDM(), torch.zeros(1, 2), torch.ones(1))
        >>> run = DPMAdaptive().run(model, EDM().terminal((4, 2), 0, dtype=torch.float64))
        >>> run.calls.tolist() == (3 * run.accepted + 2 * run.rejected).tolist()
        True
    """

    order: int = 3
    rtol: float = 0.05
    atol: float = 0.0078
    safety: float = 0.9
    first_step: float = 0.05
    max_steps: int = 1000

    def __post_init__(self) -> None:
        require(self.order in PAIRS, f"the order of an adaptive DPM-Solver is 2 or 3, got {self.order}")
        for name in ("rtol", "atol", "first_step", "max_steps"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(0 < self.safety <= 1, f"safety must lie in (0, 1], got {self.safety}")

    @torch.no_grad()
    def run(self, denoiser: Denoiser, x: Tensor, *, rng: Stream | int | None = None, cond: Any = None) -> AdaptiveRun:
        """Sample; nothing is drawn, so `rng` is not used.

        Args:
            denoiser: a denoiser whose process has a finite noise level at both ends.
            x: start states (B, *) at the process's ``t_max``; not changed.
            rng: for the same call as of stochastic samplers.
            cond: passed to the denoiser.

        Raises:
            NotFinite: a step gave NaN or infinity; its place is named.
            StepLimit: `max_steps` were not enough.
        """
        process, calls, began = denoiser.process, denoiser.calls, time.perf_counter()
        check_start(x)
        check_ends(process, "DPMAdaptive")
        lower, higher = PAIRS[self.order]
        lam_end = float(process.half_log_snr(process.t_min))
        nodes, low, first, h = [process.t_max], x, None, self.first_step
        for step in range(self.max_steps):
            lam = float(process.half_log_snr(nodes[-1]))
            last = h >= lam_end - lam
            there = process.t_min if last else float(process.time_of(lam + h))
            times = torch.tensor([nodes[-1], there], dtype=torch.float64)
            first = denoiser.predict(x, times[0], cond).eps if first is None else first
            high, outputs = _take(higher(process, times), denoiser, x, first, cond)
            new_low = _combine(lower(process, times), x, outputs)
            error = self._error(high, new_low, low)
            if not math.isfinite(error):
                raise not_finite(f"in step {step} (from t = {float(times[0]):.4g} to {float(times[1]):.4g})")
            if error <= 1:
                x, low, first = high, new_low, None
                nodes.append(float(times[1]))
                if last:
                    return self._result(denoiser, x, nodes, step + 1, calls, began)
            h = (lam_end - lam if last else h) * self.safety * max(error, 1e-12) ** (-1 / self.order)
            if h < SHORTEST:
                break
        raise StepLimit(
            f"DPMAdaptive tried {step + 1} steps, the last of {h:.2g} in half log-SNR, and reached t = {nodes[-1]:.4g} on its "
            f"way to {process.t_min:g}; raise max_steps, rtol or atol"
        )

    def _error(self, high: Tensor, low: Tensor, last_low: Tensor) -> float:
        delta = (self.rtol * torch.maximum(low.abs(), last_low.abs())).clamp_min(self.atol)
        return float(((high - low) / delta).flatten(1).square().mean(1).sqrt().max())

    def _result(
        self, denoiser: Denoiser, x: Tensor, nodes: list[float], steps: int, calls: int, began: float
    ) -> AdaptiveRun:
        every, accepted = torch.ones(len(x), dtype=torch.int64), len(nodes) - 1
        spent = denoiser.calls - calls
        return AdaptiveRun(
            x=x,
            cost=Cost(calls=spent, seconds=time.perf_counter() - began),
            process=denoiser.process,
            nodes=torch.tensor(nodes, dtype=torch.float64),
            calls=spent * every,
            accepted=accepted * every,
            rejected=(steps - accepted) * every,
            origin=Provenance("DPMAdaptive", DPM_ADAPTIVE.arxiv, asdict(self)),
            solver=PAIRS[self.order][1],
            guidance=denoiser.guidance,
        )


def _take(plan: Plan, denoiser: Denoiser, x: Tensor, first: Tensor, cond: Any) -> tuple[Tensor, list[Tensor]]:
    """Take a one-step plan whose first output is known; return the end state and all outputs."""
    outputs = [first]
    for t in plan.times[1:-1]:
        outputs.append(denoiser.predict(_combine(plan, x, outputs), t, cond).eps)
    return _combine(plan, x, outputs), outputs


def _combine(plan: Plan, x: Tensor, outputs: list[Tensor]) -> Tensor:
    """Return the state of a plan that follows from the outputs so far, or its end state."""
    row = min(len(outputs), plan.calls)
    form = plan.canonical()
    state = float(form.start[row]) * x
    for weight, output in zip(form.outputs[row, :row].tolist(), outputs, strict=False):
        state = state + weight * output
    return state
