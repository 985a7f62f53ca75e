r"""DC-Solver: compensation of a predictor-corrector's outputs (Zhao et al., arXiv 2409.03755).

A predictor-corrector calls the network at the predicted state, corrects the state, and goes on with an output that belongs to the
state before. Before each step DC-Solver replaces the newest buffered output by the parabola through the last three,

    m~_i = sum_{k=0}^{2} L_k(t') m_{i-k} ,      t' = t_{i-1} + rho_i (t_i - t_{i-1}) ,

in process time; older outputs in it are the replaced ones, as the buffer keeps them. ``rho = 1`` changes nothing. The corrector at
the step's end weighs the replaced outputs and the fresh one as it is. With the predictor's weights ``P``, those of the correction
``K`` (the base plan's less the predictor's), and ``T`` for ``m~ = T m``, all of it is a change of weights,

    b' = (P + tril(K, -1)) T + diag(K) .

Each ``rho`` in turn minimises the mean square distance of the next state, after its correction, to the teacher's; the first two
steps have too few outputs. The authors take 40 steps of Adam through the network; here a search along the line does, in fewer calls
and without gradients.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.plans import solvers
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.lagrange import lagrange
from isocline.plans.tuners.best import Best
from isocline.plans.tuners.calibration import Calibration
from isocline.plans.tuners.least_squares import Student
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.recompile import solver_of
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

DYNAMIC_COMPENSATION = Method(
    "dc-solver",
    "DC-Solver (dynamic compensation)",
    "DC-Solver: Improving Predictor-Corrector Diffusion Sampler via Dynamic Compensation",
    "Wenliang Zhao, Haolin Wang, Jie Zhou, Jiwen Lu",
    2024,
    "2409.03755",
    room="plans.tuners",
    when="UniPC with strong guidance and few calls; its ratios can be predicted for other scales and numbers of calls.",
)
SKIPPED = 2  # steps with too few outputs for a parabola


class Rules:
    """The rules of a predictor-corrector's plan, in its own parameterisation.

    Args:
        base: a plan of `unipc` or `unipc_noise` with its corrector.

    Attributes:
        predictor: (n, n) weights ``P`` of the steps from corrected states.
        correction: (n, n) weights of what the corrector adds to the states that the rows read; ``K`` over the rows' ``a``.
    """

    def __init__(self, base: Plan) -> None:
        name, settings = solver_of(base)
        given = {key: value for key, value in settings.items() if value is not None}
        if name not in ("unipc", "unipc_noise") or not settings["corrector"]:
            raise InvalidInput(
                f"compensation needs a plan of unipc or unipc_noise with its corrector, got one of {name!r}"
            )
        solver, process, times = getattr(solvers, name), base.process, base.nodes
        changed = "the weights of this plan were changed since unipc made it; compensate it first, then tune on"
        require(torch.allclose(solver(process, times, **given).weights, base.weights), changed)
        self.carry, self.times = base.carry, times
        self.predictor = solver(process, times, **given | {"corrector": False}).weights
        # a last step to 0 has a = 0 and hides the correction before it, which does not depend on where that step ends
        shown = times if bool(times[-1] > 0) else torch.cat([times[:-1], times[-2:-1] / 2])
        whole, alone = solver(process, shown, **given), solver(process, shown, **given | {"corrector": False})
        self.correction = (whole.weights - alone.weights) / whole.carry[:, None]

    def weights(self, buffered: Tensor) -> Tensor:
        """Return the weights (n, n) of the plan whose buffered outputs are `buffered` (n, n) of its outputs."""
        before, fresh = self.corrections(buffered)
        return self.predictor @ buffered + self.carry[:, None] * (before + torch.diag(fresh))

    def corrections(self, buffered: Tensor) -> tuple[Tensor, Tensor]:
        """Return the correction's weights (n, n) on outputs before a row, and (n,) on the row's own."""
        return self.correction.tril(-1) @ buffered, self.correction.diagonal()


def blend(times: Tensor, ratios: Sequence[float]) -> Tensor:
    """Return ``T`` (n, n) of the buffered outputs ``m~ = T m`` at `times` (n+1,), for the first `ratios`; the others are 1."""
    rows = list(torch.eye(len(times) - 1, dtype=torch.float64))
    for i, ratio in list(enumerate(ratios))[SKIPPED:]:
        near = slice(i - 2, i + 1)
        shares = lagrange(times[near], times[i - 1] + ratio * (times[i] - times[i - 1]))
        rows[i] = torch.stack(shares) @ torch.stack(rows[near])
    return torch.stack(rows)


def compensated(base: Plan, ratios: Sequence[float]) -> Plan:
    """Return the plan whose step ``i`` uses its newest output compensated by ``ratios[i]``; ratios of 1 change nothing.

    Args:
        base: a plan of `unipc` or `unipc_noise` with its corrector, of ``n`` rows.
        ratios: ``n`` ratios, from `DCSolver` or `Compensation`; the first two must be 1.

    Raises:
        InvalidInput: another base, or another number of ratios.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM
        >>> base = solvers.unipc(EDM(), grids.karras(EDM(), 4))
        >>> compensated(base, [1.0, 1.0, 1.0, 1.0]).equivalent(base)
        True
    """
    ratios = [float(ratio) for ratio in ratios]
    require(len(ratios) == len(base.carry), f"{len(base.carry)} steps need as many ratios, got {len(ratios)}")
    require(all(ratio == 1 for ratio in ratios[:SKIPPED]), f"the first two ratios must be 1, got {ratios[:SKIPPED]}")
    return _labelled(base, Rules(base).weights(blend(base.nodes, ratios)), {"ratios": ratios})


def _labelled(base: Plan, weights: Tensor, settings: dict[str, Any]) -> Plan:
    origin = Provenance("DCSolver", DYNAMIC_COMPENSATION.arxiv, {"base": base.provenance.method, **settings})
    return replace(base, weights=weights, provenance=origin)


@DYNAMIC_COMPENSATION.variant()
@dataclass(frozen=True, kw_only=True)
class DCSolver:
    """Fit one compensation ratio for each step but the first two. Needs no gradient.

    The base must be a plan of `unipc` or `unipc_noise` with its corrector, on times of any tuner.

    Args:
        reach: how far a ratio may lie from 1.
        evaluations: next states tried for each ratio.
        substeps: steps of the teacher between neighbouring nodes.
        batch: noises in each network call.
    """

    reach: float = 2.0
    evaluations: int = 20
    substeps: int = 10
    batch: int = 64

    def __post_init__(self) -> None:
        require(self.reach > 0, f"the reach must be positive, got {self.reach}")
        require(
            self.evaluations >= 2 and self.substeps >= 1 and self.batch >= 1,
            f"DCSolver needs evaluations >= 2, substeps >= 1 and batch >= 1, got {self}",
        )

    @torch.no_grad()
    def fit(
        self,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream | int,
        *,
        seconds: float | None = None,
        bar: Progress | None = None,
    ) -> Tuned:
        """Return the compensated plan, or the base where that is better on the validation noises.

        The ratios stand in the plan's provenance, as `ratios`.

        Args:
            base: a plan of `unipc` or `unipc_noise`; same ends as the teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: not used, as nothing is drawn.
            seconds: after so much wall time the steps that are left are not compensated.
            bar: progress to advance by one for each row.

        Raises:
            InvalidInput: the base is no predictor-corrector's plan, or has other ends than the teacher.
        """
        calibration.check_comparable(base)
        start, calls = time.monotonic(), denoiser.calls
        rules, student = Rules(base), Student(base, denoiser, calibration.train, self.batch)
        best = Best(base, denoiser, calibration.validation)
        paths = TeacherPaths(denoiser, calibration.train, self.substeps, self.batch)
        ratios: list[float] = []
        for row in student.rows():
            if seconds is not None and time.monotonic() - start > seconds:
                break
            here = row >= SKIPPED
            ratios.append(self.ratio(student, rules, ratios, paths.at(base.nodes)[row + 1]) if here else 1.0)
            student.plan = replace(base, weights=rules.weights(blend(rules.times, ratios)))
            if bar is not None:
                bar.advance(1, f"ratio {ratios[-1]:.3f}")
        found = ratios if best.offer(len(ratios), student.plan) else []
        found = found + [1.0] * (len(base.carry) - len(found))
        plan = _labelled(base, best.plan.weights, {**asdict(self), "ratios": found})
        return Tuned(plan, best.history, Cost(denoiser.calls - calls, 0, time.monotonic() - start))

    def ratio(self, student: Student, rules: Rules, before: Sequence[float], target: Tensor) -> float:
        """Return the ratio of the student's row that leads nearest to `target` (N, *), or 1 where none tried is better.

        Args:
            student: at the row.
            rules: the rules of its base.
            before: the ratios of the rows before.
            target: the teacher's states after the row.
        """

        def error(ratio: float) -> float:
            return float((next_state(student, rules, [*before, ratio]) - target).double().square().mean())

        limits, options = (1 - self.reach, 1 + self.reach), {"maxiter": self.evaluations - 1, "xatol": 1e-3}
        found = minimize_scalar(error, bounds=limits, method="bounded", options=options)
        return float(found.x) if found.fun < error(1.0) else 1.0


def next_state(student: Student, rules: Rules, ratios: Sequence[float]) -> Tensor:
    """Return the state (N, *) after the student's row, corrected by a call there unless the run ends.

    Args:
        student: at the row that the last of `ratios` compensates.
        rules: the rules of its base.
        ratios: one for each row so far.
    """
    row, buffered = student.row, blend(rules.times, ratios)
    x = student.combined(float(rules.carry[row]), rules.weights(buffered)[row])
    if row + 1 == len(rules.carry):
        return x
    before, fresh = (part[row + 1] for part in rules.corrections(buffered))
    return x + student.combined(0.0, before) + float(fresh) * student.call(x, row + 1)
