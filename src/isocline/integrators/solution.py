"""The result of an integration: states, cost, and how it ended."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.integrators.controllers.base import Array
from isocline.integrators.dense import Interpolant
from isocline.integrators.packing import Packing


class Reason(enum.Enum):
    """How an integration ended. Each value is the way out where it failed."""

    OK = "the end was reached"
    EVENT = "an event ended it"
    MAX_STEPS = (
        "the cap on steps was reached: raise max_steps, loosen the tolerance, or try a stiff method such as Kvaerno5"
    )
    STEP_TOO_SMALL = (
        "the step fell below what the time resolves: the solution blows up or jumps there; end earlier, name the jump in "
        "Clip(jump_times=...), or try a stiff method such as Kvaerno5"
    )
    TOLERANCE_TOO_SMALL = "the tolerance is below what the dtype resolves: loosen rtol and atol, or use y0.double()"
    NOT_FINITE = "the vector field or the state is not finite: check the field at this time, or take smaller steps"
    NOT_SOLVED = "the implicit equation of a step was not solved: loosen the method's solver or take smaller steps"
    EVENT_MISSED = "a required event did not happen: end later, or check the sign of its condition"


@dataclass(frozen=True)
class Stats:
    """What an integration cost.

    Args:
        nfe: evaluations of the vector field; a number, or an array (B,) where samples have steps of their own.
        accepted: accepted steps.
        rejected: rejected attempts.
    """

    nfe: Any
    accepted: Any
    rejected: Any


@dataclass(frozen=True)
class Status:
    """How an integration ended, for the whole state or for each sample.

    Args:
        reasons: one for the whole state, or one for each sample.
        times: where it ended.
    """

    reasons: tuple[Reason, ...]
    times: tuple[float, ...]

    @property
    def ok(self) -> bool:
        """Whether every sample reached its end or its event."""
        return all(reason in (Reason.OK, Reason.EVENT) for reason in self.reasons)

    @property
    def reason(self) -> Reason:
        """The reason of the first sample that failed, or of the first one."""
        return self.reasons[self._first]

    @property
    def time(self) -> float:
        """The time at which that sample ended."""
        return self.times[self._first]

    @property
    def _first(self) -> int:
        bad = [k for k, reason in enumerate(self.reasons) if reason not in (Reason.OK, Reason.EVENT)]
        return bad[0] if bad else 0

    def __str__(self) -> str:
        who = f" (sample {self._first} of {len(self.reasons)})" if len(self.reasons) > 1 else ""
        return f"stopped at t = {self.time:.6g}{who}: {self.reason.value}"


@dataclass(frozen=True)
class StepRecord:
    """What the loop saw, attempt by attempt; kept with ``record=("steps",)``.

    Args:
        t: start of each attempt, shape (n,) or (n, B).
        h: its size, signed.
        ratio: its error in units of what is tolerated, shape (n,) or (n, B); has gradients where the integration has.
        accepted: whether it was taken; False also where a sample had ended.
        stiffness: estimates ``|f(g') - f(g)| / |g' - g|`` of the size of the Jacobian, (n,) or (n, B), where the method has them.
        evaluations: of the vector field, one number an attempt.
    """

    t: Tensor
    h: Tensor
    ratio: Tensor
    accepted: Tensor
    stiffness: Tensor | None
    evaluations: Tensor

    def local_errors(self) -> Tensor:
        """Return ``sum_j ratio_j |h_j|`` over accepted steps, shape () or (B,)."""
        return (torch.where(self.accepted, self.ratio, 0.0) * self.h.abs()).sum(0)


@dataclass(frozen=True)
class Dense:
    """The solution between its ends: for each accepted step its start, its end and its interpolant."""

    starts: list[float]
    ends: list[float]
    pieces: list[Interpolant]
    packing: Packing

    def evaluate(self, t: Any) -> Any:
        """Return the state at a time or at several, shape (m, *) for times (m,)."""
        times = np.atleast_1d(torch.as_tensor(t, dtype=torch.float64).detach().cpu().numpy())
        sign = 1.0 if self.ends[-1] >= self.starts[0] else -1.0
        edges = sign * np.array(self.ends)
        where = np.searchsorted(edges, sign * times - 1e-14)
        if (where >= len(edges)).any() or (sign * times < sign * self.starts[0]).any():
            raise InvalidInput(f"evaluate: the solution covers t from {self.starts[0]:g} to {self.ends[-1]:g}")
        values = [self._inside(int(k), float(time)) for k, time in zip(where, times, strict=True)]
        out = self.packing.unpack(torch.cat(values))
        return out if np.ndim(np.asarray(t)) else _first(out)

    def _inside(self, k: int, time: float) -> Tensor:
        span = self.ends[k] - self.starts[k]
        return self.pieces[k](torch.tensor([(time - self.starts[k]) / span if span else 1.0], dtype=torch.float64))


def _first(out: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda x: x[0], out)


@dataclass(frozen=True)
class Solution:
    """What `integrate` returns.

    Args:
        ts: times of the kept states, float64, shape (T,), or (B, T) where samples have steps of their own.
        ys: the kept states, (T, *) or (B, T, *), in the structure of ``y0``; NaN at times that a failed integration did not reach.
        y1: the state where the integration ended, the structure of ``y0``.
        stats: cost.
        status: how it ended; a failure is a value here, see `check`.
        error_estimate: sum of the estimated local errors (root mean square) of the accepted steps: the global error if the equation
            neither damps nor amplifies; None for methods without an estimate, an array where samples have steps of their own.
        events: names of the events that ended it: one, or one for each sample; empty strings where none did.
        record: the attempts, if they were asked for.
        dense: interpolants, if they were asked for.
        final_carry: what the method carried at the end besides ``y1``.
        t1: time of the event that ended it, float64, with gradients; None without one; (B,), NaN for samples without one,
            where samples have steps of their own.
    """

    ts: Tensor
    ys: Any
    y1: Any
    stats: Stats
    status: Status
    error_estimate: float | Array | None = None
    events: Sequence[str] = ()
    record: StepRecord | None = None
    dense: Dense | None = None
    final_carry: tuple[Tensor, ...] = field(default=(), repr=False)
    t1: Tensor | None = None

    def evaluate(self, t: Any) -> Any:
        """Return the state at a time, or at several; needs ``SaveAt(dense=True)``."""
        if self.dense is None:
            raise InvalidInput("the interpolants were not kept: integrate with saveat=SaveAt(dense=True)")
        return self.dense.evaluate(t)

    def check(self) -> Solution:
        """Return the solution, or raise `NotFinite` that says where and why it failed and the way out."""
        if not self.status.ok:
            raise NotFinite(f"the integration {self.status}")
        return self
