r"""Several solvers in one run: each takes a stretch of the grid.

A plan is linear in its outputs, so rows of different solvers stand one after the other. Let stretch ``k`` cover the nodes
``a..b`` of the grid. A solver with one row a step (multistep or single-step) is compiled on the grid from the first node whose
output is known up to ``b``, and its rows from ``a`` on are taken,

    x_{i+1} = a_i x_i + sum_j b_ij m_j + c_i z_i ,      a <= i < b ,

where ``m_j`` for ``j < a`` are the outputs that earlier stretches found at the nodes, converted through the states read there. So
a multistep solver starts with its full order, whoever took the steps before. A solver with several rows a step needs no past and
is compiled on its stretch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch, require
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level
from isocline.processes import GaussianProcess, Parameterisation
from isocline.processes.naming import same_process


@dataclass(frozen=True)
class Stretch:
    """Some steps of a run and the solver that takes them.

    Args:
        solver: a function of `isocline.plans.solvers`.
        steps: number of steps of the grid; None for those that the other stretches leave.
        settings: keyword arguments of the solver.
    """

    solver: Callable[..., Plan]
    steps: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.solver.__name__} x {'rest' if self.steps is None else self.steps}"

    def compile(self, process: GaussianProcess, times: Tensor) -> Plan:
        """Return the solver's plan on `times`."""
        return self.solver(process, times, **self.settings)


def composite(process: GaussianProcess, times: Tensor, stretches: Sequence[Stretch]) -> Plan:
    """Return the plan in which each stretch of the grid has its own solver; differentiable in `times`.

    The outputs are of the kind in which the joined rows have the fewest terms, among those of the solvers. A solver that should
    start afresh (`dpm_solver_fast`, whose blocks span several steps, where no block begins) is joined with `Plan.then`.

    Args:
        process: any Gaussian process.
        times: (n+1,) decreasing times.
        stretches: from noise to data; their steps add up to ``n``.

    Raises:
        InvalidInput: the steps do not add up, a solver refuses its stretch, or a multistep solver would need outputs that fresh
            noise has separated from it.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM
        >>> stretches = [Stretch(solvers.heun, 2), Stretch(solvers.dpm_solver_pp_2m)]
        >>> plan = composite(EDM(), grids.karras(EDM(), 6), stretches)
        >>> plan.calls, len(plan.nodes)
        (8, 7)
    """
    times = torch.as_tensor(times, dtype=torch.float64)
    pieces: list[_Piece] = []
    first = 0
    for stretch, steps in zip(stretches, _steps(stretches, len(times) - 1), strict=True):
        pieces.append(_piece(stretch, process, times, first, first + steps, _called(pieces)))
        first += steps
    return _joined(pieces, times)


def followed(first: Plan, second: Plan) -> Plan:
    """Return `first` followed by `second`, whose rows stay as they are; see `Plan.then`."""
    if not same_process(first.process, second.process):
        raise Mismatch(
            f"a plan for {first.process.describe()} cannot be followed by one for {second.process.describe()}"
        )
    if (first.guidance, first.threshold) != (second.guidance, second.threshold):
        raise Mismatch("plans that follow each other need one guidance scale and one threshold; set them on both")
    end, start = float(first.times[-1].detach()), float(second.times[0].detach())
    if abs(end - start) > 1e-9 * abs(end):
        raise Mismatch(f"the first plan ends at t = {end:.9g} but the second starts at t = {start:.9g}")
    nodes = torch.cat([first.nodes, second.nodes[1:]])
    plan = _joined([_Piece(first, 0), _Piece(second, 0)], nodes)
    return replace(plan, guidance=first.guidance, threshold=first.threshold)


class _Piece(NamedTuple):
    """A plan of which the rows from `skip` on are used; those before belong to earlier stretches."""

    plan: Plan
    skip: int

    def listed(self) -> list[dict[str, Any]]:
        """Return the stretches of this piece as plain data."""
        origin = self.plan.provenance
        if "stretches" in origin.settings:
            return list(origin.settings["stretches"])
        steps = len(self.plan.nodes) - 1 - self.skip
        return [{"solver": origin.method, "arxiv": origin.arxiv, "steps": steps, "settings": origin.settings}]


def _steps(stretches: Sequence[Stretch], total: int) -> list[int]:
    """Return the steps of each stretch, where one may have been left open."""
    require(len(stretches) >= 1, "a composite plan needs at least one stretch")
    given = [stretch.steps for stretch in stretches]
    require(given.count(None) <= 1, "only one stretch may leave its number of steps open")
    rest = total - sum(steps or 0 for steps in given)
    found = [rest if steps is None else steps for steps in given]
    require(min(found) >= 1 and sum(found) == total, f"{_named(stretches)} do not fit a grid of {total} steps")
    return found


def _named(stretches: Sequence[Stretch]) -> str:
    return "the stretches " + ", ".join(map(str, stretches))


def _called(pieces: list[_Piece]) -> set[float]:
    """Return the times whose last row calls the network: there the output of the state that goes on is known."""
    last: dict[float, bool] = {}
    for piece in pieces:
        last |= zip(piece.plan.times[:-1].tolist(), piece.plan.evaluate.tolist(), strict=True)
    return {t for t, evaluated in last.items() if evaluated}


def _piece(
    stretch: Stretch, process: GaussianProcess, times: Tensor, first: int, last: int, called: set[float]
) -> _Piece:
    """Return the rows of `stretch` between the nodes `first` and `last`, with history where the solver can use it."""
    start = first
    while start > 0 and float(times[start - 1].detach()) in called:
        start -= 1
    try:
        piece = _Piece(stretch.compile(process, times[start : last + 1]), first - start)
    except InvalidInput:
        # a solver that refuses the start without signal of an earlier stretch may still take this one
        if start == first or float(process.alpha(times[start]).detach()) > 0:
            raise
        piece = _Piece(stretch.compile(process, times[start + 1 : last + 1]), first - start - 1)
    if piece.skip == 0 or _one_row_a_step(piece.plan):
        return piece
    return _Piece(stretch.compile(process, times[first : last + 1]), 0)


def _one_row_a_step(plan: Plan) -> bool:
    return plan.times.shape == plan.nodes.shape and bool(plan.evaluate.all())


def _joined(pieces: list[_Piece], nodes: Tensor) -> Plan:
    """Return the plan of all pieces, with the kind of output that needs the fewest terms."""
    found, refused = [], None
    for kind in dict.fromkeys(piece.plan.parameterisation for piece in pieces):
        try:
            found.append(_joined_as(kind, pieces, nodes))
        except InvalidInput as error:
            refused = error
    if not found:
        raise InvalidInput(
            f"these stretches cannot be joined: {refused}. Put a one-step solver such as ddim between them, or use "
            "solvers that work with the same kind of output"
        )
    return min(found, key=lambda plan: int((plan.weights.detach() != 0).sum()))


def _joined_as(kind: Parameterisation, pieces: list[_Piece], nodes: Tensor) -> Plan:
    process = pieces[0].plan.process
    rows = sum(len(piece.plan.carry) - piece.skip for piece in pieces)
    joint = _Joint(Draft(process, kind, rows))
    for piece in pieces:
        joint.play(piece)
    end = Level.at(process, pieces[-1].plan.times[-1])
    listed = [stretch for piece in pieces for stretch in piece.listed()]
    plan = joint.draft.finish(joint.x, end, nodes, Provenance("composite", settings={"stretches": listed}))
    return replace(plan, model_times=torch.stack(joint.told))


class _Joint:
    """A draft into which plans are played one after the other, and what was read at each time."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.x = draft, draft.start
        self.told: list[Tensor] = []
        self.read: dict[float, tuple[Tensor, Tensor]] = {}  # the last state read at a time, and the output there

    def play(self, piece: _Piece) -> None:
        """Append the rows of `piece`."""
        plan, times = piece.plan, piece.plan.times[:-1].tolist()
        cx, cm = plan.conversion(self.draft.parameterisation)
        outputs: list[Tensor] = []
        for i, t in enumerate(times):
            if i >= piece.skip:
                self.read[t] = self._row(plan, i)
            x, m = self.read[t]
            outputs.append(cx[i] * x + cm[i] * m)
            if i >= piece.skip:
                self.x = plan.carry[i] * self.x + plan.weights[i, : i + 1] @ torch.stack(outputs)
                self.x = self.x + plan.noise[i] * self.draft.noise()

    def _row(self, plan: Plan, i: int) -> tuple[Tensor, Tensor]:
        """Add a row that reads the state; return the state and the output, which is 0 without a call."""
        level = Level.at(plan.process, plan.times[i])
        self.told.append(plan.model_times[i])
        if bool(plan.evaluate[i]):
            return self.x, self.draft.call(self.x, level)
        self.draft.stay(self.x, level)
        return self.x, torch.zeros_like(self.x)
