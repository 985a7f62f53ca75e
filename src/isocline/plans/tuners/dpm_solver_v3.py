r"""DPM-Solver-v3: the parameterisation between noise and data, for each coordinate and time (Zheng et al., arXiv 2310.13268).

With the statistics ``l``, ``s``, ``b`` of a model and ``f = (1 - l) y - D`` (`empirical_statistics`), ``L = int l``, ``S = int s``,
the ODE from ``lam_a`` to ``lam`` has the exact solution

    e^{L - L_a} y = y_a - int e^{L - L_a + S - S_a} (g + B) dlam ,    g = e^{S_a - S} f - B ,    B = int_{lam_a} e^{S_a - S} b ,

where ``g' = e^{S_a - S} (f' - s f - b)`` is what the statistics made small. A step takes ``g`` as the polynomial through the last
``k`` nodes. Everything is measured from ``lam_a``, so that no exponential is larger than what one step needs: over the whole range
``e^{L + S}`` may overflow. The weights are integrals of ``e^{L + S}`` times polynomials, by Simpson's rule on the grid of the
statistics; the nodes of a plan are therefore nodes of that grid, the nearest ones to those of the base plan.

The corrector takes the step to a node again when the output there is known, without a further call, through one node more. The
pseudo-order form takes divided differences for derivatives: ``(lam - lam_a)^k`` in place of Newton's ``prod_m (lam - lam_m)``; the
authors' code has a corrector of one order more in that form only. ``y`` at past nodes is linear in the start, the outputs and
constants, so all of it is a plan, with coefficients for each coordinate and a constant.

With ``l = 1``, ``s = b = 0`` this is DDIM, and for higher orders the multistep DPM-Solver++ with exact weights, which is
`exponential_adams`; ``l = 0``, ``s = -1`` gives `lam_adams`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.plans.canonical import Canonical, beside
from isocline.plans.plan import Plan, plan_of_rows
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.adams import exponential_adams
from isocline.plans.solvers.draft import data_step
from isocline.plans.solvers.rows import Levels, ramp
from isocline.plans.tuners.best import Best
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.empirical_statistics import EmpiricalStatistics, Moments, measure_moments, nearest_nodes
from isocline.plans.tuners.paths import refined
from isocline.plans.tuners.recompile import solver_of
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Data, Denoiser, GaussianProcess

DPM_SOLVER_V3 = Method(
    "dpm-solver-v3",
    "DPM-Solver-v3",
    "DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics",
    "Kaiwen Zheng, Cheng Lu, Jianfei Chen, Jun Zhu",
    2023,
    "2310.13268",
    room="plans.tuners",
    when="Five to ten calls where no gradients through the run are wanted; one measurement serves every number of calls.",
)

ORDERS = {"dpm_solver_pp_2m": 2, "dpm_solver_pp_3m": 3}  # solvers whose order is in the name
LEAD = 20  # steps from a start without signal to the first node of the statistics


@DPM_SOLVER_V3.variant()
def dpm_solver_v3(
    process: GaussianProcess,
    times: Tensor,
    statistics: EmpiricalStatistics,
    *,
    order: int = 2,
    corrector: bool = True,
    pseudo: bool = False,
    final_order: int | None = None,
) -> Plan:
    """Return the DPM-Solver-v3 plan, one call a step.

    A step from no signal or to no noise, outside the statistics, is a DDIM step.

    Args:
        process: the process the statistics were measured with.
        times: (n+1,) decreasing times; those inside move to the nearest node of the statistics.
        statistics: of the model that will be sampled.
        order: number of outputs a step uses, 1 to 3; the first steps have fewer.
        corrector: take each step again with the output at its end, at one order more.
        pseudo: take the pseudo-order form; differs from order 3 on, so with the corrector from order 2 on.
        final_order: order of the last step.

    Raises:
        InvalidInput: the statistics do not cover the grid, or are too coarse for it.
    """
    require(1 <= order <= 3, f"DPM-Solver-v3 has orders 1 to 3, got {order}")
    levels, places = _snapped(process, times, statistics)
    run = _Run(levels, places, statistics)
    for i, k in enumerate(ramp(levels.n, order, final_order)):
        run.call(i)
        if corrector and i > 0:
            run.correct(i, pseudo)
        run.step(i, k, pseudo)
    settings = {"order": order, "corrector": corrector, "pseudo": pseudo, "final_order": final_order}
    return run.plan(Provenance("dpm_solver_v3", DPM_SOLVER_V3.arxiv, settings))


def _snapped(process: GaussianProcess, times: Tensor, statistics: EmpiricalStatistics) -> tuple[Levels, list[int]]:
    """Return the levels of the times moved to nodes, and the node of each; -1 where the half log-SNR is infinite."""
    times = torch.as_tensor(times, dtype=torch.float64)
    lam = Levels(process, times).lam
    inside = torch.isfinite(lam)
    index = torch.full(lam.shape, -1)
    index[inside] = torch.tensor(nearest_nodes(statistics.lam, lam[inside]))
    there = statistics.lam[index]
    moved = inside & ((lam - there).abs() > 1e-9)
    times = torch.where(moved, process.time_of(torch.where(moved, there, 0.0)), times)
    return Levels(process, times), index.tolist()


class _Run:
    """States and outputs of a run as combinations (1 + n + 1, event...) of the start, the outputs and 1."""

    def __init__(self, levels: Levels, places: list[int], statistics: EmpiricalStatistics) -> None:
        self.levels, self.places, self.statistics = levels, places, statistics
        event = statistics.l.shape[1:]
        unit = torch.eye(levels.n + 2, dtype=torch.float64)
        self.units = unit.reshape(*unit.shape, *(1 for _ in event)).expand(*unit.shape, *event)
        self.x = self.units[0]
        self.read: list[Tensor] = []
        self.f: list[Tensor] = []
        self.orders: list[int] = []

    def call(self, i: int) -> None:
        """Read the state at node `i`; its output is one more unknown."""
        self.read.append(self.x)
        inside = self.places[i] >= 0
        gain = 1 - self.statistics.l[self.places[i]]
        self.f.append(gain * self.x / self.levels.alpha[i] - self.units[1 + i] if inside else self.units[1 + i])

    def step(self, i: int, order: int, pseudo: bool) -> None:
        """Go from node `i` to the next, with up to `order` outputs."""
        self.base = self.x
        if self.places[i] < 0 or self.places[i + 1] < 0:
            self.orders.append(0)
            self.x = data_step(self.x, self.levels.at(i), self.levels.at(i + 1), self.units[1 + i])
            return
        first = next(j for j, place in enumerate(self.places) if place >= 0)
        self.orders.append(min(order, i - first + 1))
        self._advance(i, [i - j for j in range(self.orders[i])], pseudo)

    def correct(self, i: int, pseudo: bool) -> None:
        """Go to node `i` again, now that its output is known, at one order more."""
        order = self.orders[i - 1]
        if order:
            self.x = self.base
            self._advance(i - 1, [i - 1, i, *(i - 1 - j for j in range(1, order))], pseudo)

    def _advance(self, i: int, nodes: list[int], pseudo: bool) -> None:
        """Set the state at node ``i + 1`` from that at `i` with ``g`` through `nodes`, of which `i` is the first."""
        a, b = self.places[i], self.places[i + 1]
        step = Step(self.statistics, a, b, [self.places[j] for j in nodes], pseudo)
        y = step.decay * self.x / self.levels.alpha[i] - step.drift * self.units[-1]
        for j, weight, (scale, shift) in zip(nodes, step.weights, step.frames, strict=True):
            y = y - weight * (scale * self.f[j] - shift * self.units[-1])
        self.x = self.levels.alpha[i + 1] * y

    def plan(self, provenance: Provenance) -> Plan:
        """Return the rows."""
        states = torch.stack([*self.read, self.x])
        outputs = states[:, 1:-1]
        form = Canonical(states[:, 0], outputs, torch.zeros_like(outputs), states[:, -1])
        carry, weights, noise = form.rows()
        return plan_of_rows(
            self.levels.process,
            Data(),
            provenance,
            times=self.levels.times,
            carry=carry,
            weights=weights,
            noise=noise,
            constant=form.constant(),
        )


class Step:
    """The coefficients (event...) of a step between nodes `a` and `b` of the statistics, measured from `a`.

    Args:
        statistics: of the model.
        a: node at which the step starts.
        b: node at which it ends.
        nodes: nodes whose ``f`` is used, `a` first.
        pseudo: powers of ``lam - lam_a`` in place of Newton's polynomials.

    Attributes:
        decay: ``e^{L_a - L_b}``, on the state.
        weights: on each ``g_j``.
        drift: what ``B`` adds.
        frames: ``(e^{S_a - S_j}, B_j)`` of each node, so that ``g_j`` is the first times ``f_j`` minus the second.
    """

    def __init__(self, statistics: EmpiricalStatistics, a: int, b: int, nodes: list[int], pseudo: bool) -> None:
        lam, slope, L, S = statistics.halves
        self._lam, self._slope, self._S, self._a = lam, slope, S, 2 * a
        span = slice(2 * a, 2 * b + 1)
        grown = torch.exp(L[span] - L[2 * b] + S[span] - S[2 * a])
        at = [lam[2 * j] for j in nodes]
        basis = [torch.ones_like(lam[span])]
        for k in range(len(nodes) - 1):
            basis.append(basis[-1] * (lam[span] - at[0 if pseudo else k]))
        integrals = [simpson(lam[span], beside(p, grown) * grown) for p in basis]
        self.decay = torch.exp(L[2 * a] - L[2 * b])
        self.weights = [sum(v * c[j] for v, c in zip(integrals, differences(at), strict=True)) for j in range(len(at))]
        self.drift = simpson(lam[span], running_simpson(lam[span], self._pull(span)) * grown)
        self.frames = [(torch.exp(S[2 * a] - S[2 * j]), self._shift(2 * j)) for j in nodes]

    def _pull(self, span: slice) -> Tensor:
        return torch.exp(self._S[self._a] - self._S[span]) * self._slope[span]

    def _shift(self, j: int) -> Tensor:
        """Return ``B`` at a node on either side of `a`."""
        low, high = sorted((self._a, j))
        span = slice(low, high + 1)
        whole = simpson(self._lam[span], self._pull(span))
        return whole if j >= self._a else -whole


def differences(at: list[Tensor]) -> list[list[Tensor | float]]:
    """Return the weights of the values at ``lam_j`` in the divided differences of order 0, 1, ... through the first nodes."""
    rows: list[list[Tensor | float]] = []
    for k in range(len(at)):
        rows.append([0.0] * len(at))
        for j in range(k + 1):
            gaps = [at[j] - at[m] for m in range(k + 1) if m != j]
            rows[k][j] = 1 / torch.stack(gaps).prod() if gaps else 1.0
    return rows


def simpson(lam: Tensor, values: Tensor) -> Tensor:
    """Return the integral (event...) of `values` (2k+1, event...) at `lam` (2k+1,), pairs of equal steps, by Simpson's rule."""
    width = beside(lam[2::2] - lam[:-2:2], values) / 6
    return (width * (values[:-2:2] + 4 * values[1::2] + values[2::2])).sum(0)


def running_simpson(lam: Tensor, values: Tensor) -> Tensor:
    """Return the integrals (2k+1, event...) up to each `lam` of the parabolas that Simpson's rule integrates."""
    width = beside(lam[2::2] - lam[:-2:2], values) / 24
    first, middle, last = values[:-2:2], values[1::2], values[2::2]
    half, whole = width * (5 * first + 8 * middle - last), width * 4 * (first + 4 * middle + last)
    before = whole.cumsum(0) - whole
    inside = torch.stack([before + half, before + whole], dim=1).flatten(0, 1)
    return torch.cat([torch.zeros_like(values[:1]), inside])


@DPM_SOLVER_V3.variant()
@dataclass(frozen=True)
class DPMSolverV3:
    """Tune by measuring statistics along the teacher's paths; the base plan gives times and order. Needs forward derivatives.

    Args:
        order: outputs a step uses, 1 to 3; None takes that of the base plan's solver.
        corrector: see `dpm_solver_v3`.
        pseudo: see `dpm_solver_v3`.
        nodes: intervals of the statistics, equal in half log-SNR; a multiple of the steps of a `log_snr` grid keeps its times.
        probes: random probes of the Jacobian's diagonal for each state.
        batch: noises that walk together.
    """

    order: int | None = None
    corrector: bool = True
    pseudo: bool = False
    nodes: int = 120
    probes: int = 1
    batch: int = 64

    def __post_init__(self) -> None:
        require(self.order is None or 1 <= self.order <= 3, f"DPM-Solver-v3 has orders 1 to 3, got {self.order}")
        least = min(self.nodes, self.probes, self.batch)
        require(least >= 1, f"statistics need nodes, probes and batch of at least 1, got {self}")

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
        """Return the DPM-Solver-v3 plan on the times of `base`, or `base` where that is better on the validation noises.

        Args:
            base: a plan with one call a step; same ends as the teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: probes of the Jacobian.
            seconds: stop measuring after so much wall time; the batches done until then count.
            bar: progress to advance by one for each batch of training noises.
        """
        calibration.check_comparable(base)
        one_row = len(base.nodes) == len(base.times) and bool(base.evaluate.all())
        require(one_row and not base.stochastic, "DPM-Solver-v3 starts from a deterministic plan with one call a step")
        start, calls, vjps = time.monotonic(), denoiser.calls, denoiser.vjps
        best = Best(base, denoiser, calibration.validation)
        settings = self.solver_settings(base)
        late = lambda: seconds is not None and time.monotonic() - start > seconds  # noqa: E731
        statistics = self._measure(base, denoiser, calibration, as_stream(rng, "statistics"), late, bar)
        if statistics is not None:
            plan = dpm_solver_v3(base.process, base.nodes, statistics, **settings)
            best.offer(1, replace(plan, guidance=base.guidance, threshold=base.threshold))
        kept = {"kept": "base"} if best.plan.provenance.method == base.provenance.method else {}
        about = {"base": base.provenance.method, **asdict(self), **settings, **kept}
        plan = replace(best.plan, provenance=Provenance("DPMSolverV3", DPM_SOLVER_V3.arxiv, about))
        cost = Cost(denoiser.calls - calls, denoiser.vjps - vjps, time.monotonic() - start)
        return Tuned(plan, best.history, cost)

    def solver_settings(self, base: Plan) -> dict[str, Any]:
        """Return the settings of `dpm_solver_v3` for a base plan."""
        found = {"corrector": self.corrector, "pseudo": self.pseudo}
        if self.order is not None:
            return {"order": self.order, **found}
        name, settings = solver_of(base)
        order = settings.get("order") or ORDERS.get(name, 1)
        return {"order": min(order, 3), **found, "final_order": settings.get("final_order")}

    def _measure(
        self,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream,
        late: Callable[[], bool],
        bar: Progress | None,
    ) -> EmpiricalStatistics | None:
        """Return the statistics of the batches of training noises that are done in time, None where none is."""
        times = statistics_times(base.process, base.nodes, self.nodes)
        lam = base.process.half_log_snr(base.nodes)
        nearest_nodes(
            base.process.half_log_snr(times), lam[torch.isfinite(lam)]
        )  # refuses too few before they are measured
        found: Moments | None = None
        for first in range(0, len(calibration.train), self.batch):
            noises = calibration.train.take(slice(first, first + self.batch))
            noises = _at_first(denoiser, noises, base.nodes[0], times[0])
            new = measure_moments(denoiser, noises, times, rng, probes=self.probes, first=first, late=late)
            if new is None:
                break
            found = new if found is None else found.with_more(new)
            if bar is not None:
                bar.advance(1)
        return None if found is None else EmpiricalStatistics.of(found)


def statistics_times(process: GaussianProcess, nodes: Tensor, intervals: int) -> Tensor:
    """Return ``intervals + 1`` times over those `nodes` (n+1,) that have signal and noise, equally spaced in half log-SNR."""
    lam = process.half_log_snr(nodes)
    inside = torch.isfinite(lam)
    require(int(inside.sum()) >= 2, "DPM-Solver-v3 needs at least two times with both signal and noise")
    lam, nodes = lam[inside], nodes[inside]
    times = process.time_of(torch.linspace(float(lam[0]), float(lam[-1]), intervals + 1, dtype=torch.float64))
    times[0], times[-1] = nodes[0], nodes[-1]
    return times


def _at_first(denoiser: Denoiser, noises: NoiseSet, start: Tensor, first: Tensor) -> NoiseSet:
    """Return the noises moved along their paths from the start to the first time with signal."""
    if start == first:
        return noises
    process = denoiser.process
    plan = exponential_adams(process, refined(process, float(start), float(first), LEAD), order=3)
    moved = plan.for_guidance(denoiser.guidance).run(denoiser, noises.x, cond=noises.cond).x
    return replace(noises, x=moved)
