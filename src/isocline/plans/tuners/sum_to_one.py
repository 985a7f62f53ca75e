r"""Multistep rows whose weights sum to one, in three sets of coordinates, as unconstrained parameters whose zero is the base plan.

In each set the flow reads ``d(x/c)/dq = m``, so that Euler's step of ``x/c`` is exact where the prediction ``m`` does not change:

    form        c               q                         m
    data        sigma           alpha / sigma             D
    noise       alpha           sigma / alpha             e = (x - alpha D) / sigma
    velocity    alpha + sigma   sigma / (alpha + sigma)   e - D

A row moves along a combination of all predictions so far,

    x_{i+1} = (c_{i+1} / c_i) x_i + c_{i+1} (q_{i+1} - q_i) ( m_i + sum_{j<i} w_ij (m_j - m_i) ) ,

with the free numbers ``w_ij``: the weights sum to one, whatever they are, and the step is of order 1 or more. Data rows hold
DPM-Solver++ and the exponential Adams methods, noise rows DEIS and Adams in the noise level, velocity rows Adams for flows; and as
every such plan is exact for predictions that do not change, each set can write what the others can.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.plans.canonical import Canonical, changed_output
from isocline.plans.plan import Plan
from isocline.plans.tuners.free import FreeTimes, require_one_row_a_step
from isocline.processes import Data, FlowVelocity, GaussianProcess, Noise, Parameterisation

FEW = 6  # steps up to which the last two rows use two predictions only


class SumToOne(FreeTimes):
    """A multistep plan as a function of times and weights; `forward` is differentiable in both.

    With six steps or fewer only the weights that reach back one prediction change in the last two rows, as in the search of Wang
    et al. (arXiv 2505.21114).

    Args:
        base: a deterministic plan with one row a step that is exact where predictions do not change.
        form: which predictions are combined, `Data`, `Noise` or `FlowVelocity`.

    Raises:
        InvalidInput: the base is another kind of plan, or starts without signal where noise predictions are combined.
    """

    def __init__(self, base: Plan, form: Parameterisation) -> None:
        super().__init__(base)
        require_one_row_a_step(base)
        require(
            isinstance(form, Data | Noise | FlowVelocity),
            f"rows combine Data(), Noise() or FlowVelocity() predictions, got {form}",
        )
        n = base.carry.shape[0]
        self.form, self.weights = form, nn.Parameter(torch.zeros(n, n, dtype=torch.float64))
        self.allowed = allowed(n)
        self.start = self._of_base()

    def forward(self) -> Plan:
        """Return the plan, in the data parameterisation."""
        times = self.times()
        scale, moved, cx, cm = coordinates(self.base.process, self.form, times)
        past = self.start + self.allowed * self.weights
        share = past + torch.diag(1 - past.sum(1))
        gain = moved[1:] - scale[1:] * (moved / scale)[:-1]
        carry, weights = in_data(scale[1:] / scale[:-1], gain[:, None] * share, cx, cm)
        return replace(
            self.base,
            times=times,
            nodes=times,
            model_times=times[:-1],
            carry=carry,
            weights=weights,
            parameterisation=Data(),
        )

    def _of_base(self) -> Tensor:
        """Return the weights ``w`` (n, n) of the base plan, strictly lower triangular."""
        base = self.base.convert(Data())
        scale, moved, cx, cm = coordinates(base.process, self.form, base.times)
        require(
            bool(torch.isfinite((moved / scale)[:-1]).all()),
            f"{self.form.name} rows need a start with signal; combine FlowVelocity() or Data() predictions, or start later",
        )
        carry, weights, _ = changed_output(base.carry, base.weights, base.noise, -cx / cm, 1 / cm).rows()
        share = weights / (moved[1:] - scale[1:] * (moved / scale)[:-1])[:, None]
        exact = torch.allclose(carry, scale[1:] / scale[:-1]) and torch.allclose(share.sum(1), torch.ones_like(carry))
        require(
            exact,
            "weights that sum to one start from a plan that is exact where predictions do not change; "
            f"that of {self.base.provenance.method} is not",
        )
        return share.tril(-1)


def allowed(n: int) -> Tensor:
    """Return the (n, n) mask of weights on earlier predictions that may change in a plan of `n` rows.

    >>> allowed(4).int().tolist()
    [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    """
    mask = torch.ones(n, n, dtype=torch.bool).tril(-1)
    if n <= FEW:
        mask[max(n - 2, 0) :] &= torch.ones(n, n, dtype=torch.bool).triu(-1)[max(n - 2, 0) :]
    return mask


def in_data(carry: Tensor, weights: Tensor, dx: Tensor, dm: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows ``a`` (n,), ``b`` (n, n) on data predictions, given rows on ``m = dx x + dm D``, by one triangular solve.

    It is `changed_output`, for a gradient at each step of a search.
    """
    n = len(carry)
    on_states = weights * dx + torch.diag(carry)  # x_{i+1} = sum_j on_states_ij x_j + sum_j weights_ij dm_j D_j
    system = torch.eye(n, dtype=carry.dtype) - torch.cat([on_states[:, 1:], torch.zeros_like(carry)[:, None]], 1)
    given = torch.cat([on_states[:, :1], weights * dm], 1)
    solved = torch.linalg.solve_triangular(system, given, upper=False, unitriangular=True)
    states = torch.cat([torch.eye(1, n + 1, dtype=carry.dtype), solved])
    return Canonical(states[:, 0], states[:, 1:], torch.zeros_like(states[:, 1:])).rows()[:2]


def coordinates(
    process: GaussianProcess, form: Parameterisation, times: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``c`` and ``c q`` (n+1,) at `times` (n+1,), and ``(dx, dm)`` (n,) with ``m = dx x + dm D`` at all but the last."""
    alpha, sigma = process.alpha(times), process.sigma(times)
    if isinstance(form, Data):
        return sigma, alpha, torch.zeros_like(sigma[:-1]), torch.ones_like(sigma[:-1])
    scale = alpha if isinstance(form, Noise) else alpha + sigma
    return scale, sigma, 1 / sigma[:-1], -(scale / sigma)[:-1]
