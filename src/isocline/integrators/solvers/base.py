r"""What a solver of implicit stages is.

An implicit stage asks for the increment ``w`` with

    w = s f(b + w) ,        s = h gamma

where ``b`` is what earlier stages give. In increments nothing is lost to cancellation, and ``w / s`` is the slope of
the stage even where ``f`` is so stiff that evaluating it at the solution would amplify the error of the solve.

A solver *prepares* a step once (a Jacobian, its factors) and then solves its stages one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from isocline.integrators.controllers.base import Array, Controller, Flags
from isocline.integrators.controllers.pid import PID
from isocline.integrators.methods.base import Carry
from isocline.integrators.solvers.forward import along

Slope = Callable[[Tensor, Tensor], Tensor]
Measure = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Rows:
    """States as real rows: shape (n,) where the whole state is one unknown, (B, n) where every sample is one.

    Args:
        shape: of a state.
        axes: how many of its last axes belong to one unknown.
        complex: whether states are complex; a complex number is then two entries of a row.
    """

    shape: torch.Size
    axes: int
    complex: bool

    @classmethod
    def of(cls, y: Tensor, terms: Any) -> Rows:
        """Return the rows of a state of bound terms; the whole state is one row of terms that are not bound."""
        packing = terms.binding.packing
        return cls(y.shape, y.ndim if packing is None or not packing.batched else packing.event_dims, y.is_complex())

    @property
    def batch(self) -> torch.Size:
        """() or (B,)."""
        return self.shape[: len(self.shape) - self.axes]

    def rows(self, y: Tensor) -> Tensor:
        """Return a state, or several along leading axes, as rows."""
        front = y.shape[: y.ndim - self.axes]
        return (torch.view_as_real(y) if self.complex else y).reshape(*front, -1)

    def state(self, rows: Tensor) -> Tensor:
        """Return rows as states."""
        front = rows.shape[:-1]
        wide = rows.reshape(*front, *self.shape[len(self.batch) :], *([2] if self.complex else []))
        return torch.view_as_complex(wide) if self.complex else wide

    def factor(self, scale: Tensor, extra: int = 1) -> Tensor:
        """Return a factor of states, shape () or (B, 1, ..., 1), so that it multiplies rows; matrices for ``extra=2``."""
        return scale.reshape(*self.batch, *[1] * extra) if scale.ndim else scale


class Work:
    """A vector field that counts its evaluations, also those that one call makes for several directions at once.

    Args:
        slope: ``f(t, y)``.
        terms: bound terms, whose counter is charged too.
    """

    def __init__(self, slope: Slope, terms: Any) -> None:
        self.slope, self.counter, self.evaluations = slope, terms.binding.counter, 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return ``f(t, y)``; one evaluation."""
        self.evaluations += 1
        return self.slope(t, y)

    def charge(self, evaluations: int) -> None:
        """Count evaluations that were made inside of a call."""
        self.evaluations += evaluations
        if self.counter is not None:
            self.counter.evaluations += evaluations


@dataclass(frozen=True)
class Stage:
    """One implicit equation ``w = scale f(time, base + w)``.

    Args:
        time: of the stage.
        base: what earlier stages give, shape (*).
        scale: ``h gamma``, shape () or (B, 1, ..., 1).
        guess: of ``w``, shape (*).
    """

    time: Tensor
    base: Tensor
    scale: Tensor
    guess: Tensor


@dataclass(frozen=True)
class Solved:
    """The result of a stage.

    Args:
        w: the increment, shape (*); carries the gradients of the implicit function.
        failed: which samples have none, () or (B,).
        theta: the slowest contraction seen, 0 where none was, () or (B,).
        eta: the factor between the last displacement and the error that is left, () or (B,).
    """

    w: Tensor
    failed: Flags
    theta: Array
    eta: Array


class Prepared(Protocol):
    """A step that is ready for its stages."""

    def solve(self, stage: Stage, eta: Array) -> Solved:
        """Return the solution of a stage; `eta` comes from the one before, infinite for the first."""
        ...

    def smoothed(self, v: Tensor) -> Tensor:
        """Return ``(I - s J)^{-1} v``."""
        ...

    def refreshed(self, failed: Flags) -> Prepared | None:
        """Return a better preparation for the samples that failed, or None where there is none."""
        ...

    def memory(self, theta: Array) -> Carry:
        """Return what the next step may use, where the slowest contraction was `theta`."""
        ...

    def again(self) -> Carry:
        """Return what a repetition of this step may use."""
        ...


class StageSolver(Protocol):
    """One way to solve implicit stages."""

    def measured(self, controller: Controller) -> StageSolver:
        """Return the solver with the tolerance of a controller, where none was set by hand."""
        ...

    def prepare(self, work: Work, rows: Rows, t: Tensor, scale: Tensor, y: Tensor, memory: Carry) -> Prepared:
        """Return a step that is ready for its stages."""
        ...


def measure_of(rtol: float | None, atol: float | None, measure: Measure | None, dtype: torch.dtype) -> Measure:
    """Return what measures displacements: own tolerances, else the controller's, else a thousand roundings."""
    default = 1e3 * torch.finfo(dtype).eps
    if measure is not None and rtol is None and atol is None:
        return measure
    return PID(default if rtol is None else rtol, default if atol is None else atol).ratio


def jacobian(work: Work, rows: Rows, t: Tensor, y: Tensor) -> Tensor:
    """Return the Jacobians of ``f(t, .)``, shape (n, n) or (B, n, n), by forward mode in n directions at once: n evaluations."""
    n = rows.rows(y).shape[-1]
    basis = torch.eye(n, dtype=y.real.dtype if rows.complex else y.dtype, device=y.device)
    basis = basis.reshape(n, *[1] * len(rows.batch), n).expand(n, *rows.batch, n)

    columns = torch.func.vmap(lambda v: along(lambda x: work(t, x), y, rows.state(v)))(basis.contiguous())
    work.charge(n - 1)
    return rows.rows(columns).movedim(0, -1)
