r"""What a solver had to do, as a penalty: fields that need fewer steps at prediction (Pal et al., arXiv 2105.03918).

An adaptive solver estimates at every accepted step j, of size h_j, its error E_j in units of what is tolerated, and, where the
method gives it, the size S_j of the Jacobian (Shampine's estimate). The loss of the task is increased by lambda times one of

    R_E  = sum_j E_j |h_j| ,        R_E2 = sum_j E_j^2 ,        R_S = sum_j S_j / s ,

with s the size of the method's stability interval on the negative real axis: an explicit step needs ``S_j |h_j| <= s``. E_j is the
number that decides over acceptance, before it is compared with one, so that lambda keeps its meaning only at the tolerance that it
was chosen for.

Gradients go through E_j and S_j. Step sizes and what is tolerated count as constants. A controller holds E_j near one value
whatever the field: with the step sizes differentiated too, most of the gradient of R_E would cancel. The authors' code
does differentiate them and takes the mean over steps in place of the sum: divide lambda by the number of steps to compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.registry import Method
from isocline.integrators import ExplicitRungeKutta, Solution, StepRecord

METHOD = Method(
    "solver-heuristic-reg",
    "Regularised solver heuristics",
    "Opening the Blackbox: Accelerating Neural Differential Equations by Regularizing Internal Solver Heuristics",
    "Pal, Ma, Shah, Rackauckas",
    2021,
    "2105.03918",
    room="objectives",
    when="Neural differential equations trained with gradient=Direct() that shall need fewer evaluations at prediction.",
)


@METHOD.variant()
def error_cost(steps: Solution | StepRecord) -> Tensor:
    """Return ``R_E``, the sum of error ratio times step size over accepted steps, shape () or (B,).

    Args:
        steps: a solution made with ``record=("steps",)``, or its record.

    Examples:
        >>> import torch
        >>> from isocline.integrators import PID, integrate
        >>> rate = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        >>> y0 = torch.ones(1, dtype=torch.float64)
        >>> solution = integrate(lambda t, y: -rate * y, y0, 0.0, 1.0, controller=PID(1e-4, 1e-4), record=("steps",))
        >>> (slope,) = torch.autograd.grad(error_cost(solution), rate)
        >>> bool(slope > 0)  # a slower decay would have smaller errors on the same steps
        True
    """
    record = _record(steps)
    return _accepted(record, record.ratio * record.h.abs().to(record.ratio))


@METHOD.variant()
def squared_error_cost(steps: Solution | StepRecord) -> Tensor:
    """Return ``R_E2``, the sum of squared error ratios over accepted steps, shape () or (B,); see `error_cost`."""
    record = _record(steps)
    return _accepted(record, record.ratio.square())


@METHOD.variant()
def stiffness_cost(steps: Solution | StepRecord, stability: float = 3.5068) -> Tensor:
    """Return ``R_S``, the sum of stiffness estimates over accepted steps, shape () or (B,).

    Args:
        steps: a solution made with ``record=("steps",)`` by a method that estimates stiffness (`Tsit5`, `Dopri5`), or its record.
        stability: s, by which it is divided; that of `Tsit5`, see `stability_size`.

    Raises:
        InvalidInput: where the method has no such estimate.
    """
    record = _record(steps)
    if record.stiffness is None:
        raise InvalidInput("the record has no stiffness estimates: integrate with method=Tsit5() or Dopri5()")
    return _accepted(record, record.stiffness) / stability


def stability_size(method: ExplicitRungeKutta) -> float:
    """Return the largest x for which the method damps ``y' = -y`` at every step size up to x.

    Examples:
        >>> from isocline.integrators import RK4, Dopri5, Tsit5
        >>> [round(stability_size(method), 4) for method in (RK4(), Dopri5(), Tsit5())]
        [2.7853, 3.3066, 3.5068]
    """
    table = method.tableau
    powers, vector = [1.0], np.ones(table.stages)
    for _ in range(table.stages):
        powers.append(float(np.array(table.b) @ vector))
        vector = table.matrix @ vector
    growth = np.polynomial.Polynomial(np.array(powers) * (-1.0) ** np.arange(len(powers)))
    roots = np.concatenate([(growth - 1).roots(), (growth + 1).roots()])
    return float(min(x.real for x in roots if abs(x.imag) < 1e-9 and x.real > 1e-6))


@dataclass(frozen=True)
class ExponentialDecay:
    """A weight that falls from one value to another: ``first (last / first)^(step / steps)``, and stays there.

    Args:
        first: value at step 0.
        last: value from step `steps` on.
        steps: how many updates the fall takes.

    Examples:
        >>> weight = ExponentialDecay(100.0, 1.0, 10)
        >>> [round(weight(step), 6) for step in (0, 5, 10, 20)]
        [100.0, 10.0, 1.0, 1.0]
    """

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        require(
            self.first > 0 and self.last > 0, f"a decay goes from and to positive values, got {self.first}, {self.last}"
        )
        require(self.steps >= 1, f"a decay takes at least one step, got {self.steps}")

    def __call__(self, step: int) -> float:
        """Return the weight at an update."""
        return float(self.first * (self.last / self.first) ** min(step / self.steps, 1.0))


def _record(steps: Solution | StepRecord) -> StepRecord:
    record = steps.record if isinstance(steps, Solution) else steps
    if record is None:
        raise InvalidInput('the solution holds no steps: integrate with record=("steps",)')
    return record


def _accepted(record: StepRecord, values: Tensor) -> Tensor:
    return torch.where(record.accepted.bool(), values, 0.0).sum(0)
