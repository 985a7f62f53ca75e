r"""From formulas in ``(y, s)`` to rows in ``x``.

In the unscaled state ``y = x / alpha`` at noise level ``s = sigma / alpha`` a deterministic step from ``s`` to ``t`` with data
predictions ``D_j`` reads ``y' = r y + sum_j w_j D_j``, ``r = t / s``. Multiplied by ``alpha'`` it becomes

    x' = (sigma' / sigma) x + alpha' sum_j w_j D_j ,

which stays finite where ``alpha = 0`` (``s = inf``), as at the start of a flow.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from isocline._core.errors import require
from isocline.plans.plan import Plan, plan_of_rows
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Level
from isocline.processes import Data, GaussianProcess, Noise


class Levels:
    """The noise levels of a grid of ``n + 1`` times: ``lam``, ``s``, ``alpha``, ``sigma`` (n+1,), ``r`` and ``h`` (n,)."""

    def __init__(self, process: GaussianProcess, times: Tensor) -> None:
        times = torch.as_tensor(times, dtype=torch.float64)
        require(
            times.ndim == 1 and len(times) >= 2, f"a solver needs at least two times, got shape {tuple(times.shape)}"
        )
        self.process, self.times, self.n = process, times, len(times) - 1
        self.alpha, self.sigma = process.alpha(times), process.sigma(times)
        self.lam = process.half_log_snr(times)
        self.s = torch.exp(-self.lam)
        self.h = self.lam.diff()
        self.r = self.s[1:] / self.s[:-1]
        require(
            bool((times.detach().diff() < 0).all()),
            f"times must be strictly decreasing from noise to data, got {[round(v, 6) for v in times.tolist()]}",
        )

    def at(self, i: int) -> Level:
        """Return the level of node `i`."""
        return Level(self.times[i], self.alpha[i], self.sigma[i], self.lam[i], self.s[i])

    def between(self, i: int, share: float) -> Level:
        """Return the level a `share` of the way from node `i` to the next, in half log-SNR."""
        return Level.at(self.process, self.process.time_of(self.lam[i] + share * self.h[i]))

    def one_sided(self, i: int) -> bool:
        """Whether step `i` starts without signal or ends without noise: only a step of order 1 can."""
        return not bool(torch.isfinite(self.h[i].detach()))

    @property
    def ends_clean(self) -> bool:
        """Whether the last time has no noise."""
        return float(self.sigma[-1].detach()) == 0.0

    def require_finite(self, solver: str) -> None:
        """Refuse a start at infinite noise level."""
        require(
            float(self.alpha[0].detach()) > 0.0,
            f"{solver} needs a finite noise level at its first time, but {self.process.describe()} has no signal at "
            f"t = {float(self.times[0].detach()):g}; start the grid a little later (t_max=...) or use a data-prediction solver",
        )


def data_plan(
    levels: Levels,
    weights: Tensor,
    provenance: Provenance,
    *,
    shrink: Tensor | None = None,
    noise: Tensor | None = None,
) -> Plan:
    """Return the plan of rows ``x' = shrink (sigma'/sigma) x + alpha' sum_j w_j D_j + sigma' noise z``.

    Args:
        levels: the grid.
        weights: (n, n) weights ``w`` in ``(y, s)``.
        provenance: where the plan comes from.
        shrink: (n,) factor on the state, for stochastic rows.
        noise: (n,) noise in units of the next ``sigma``.
    """
    carry = levels.sigma[1:] / levels.sigma[:-1]
    return plan_of_rows(
        levels.process,
        Data(),
        provenance,
        times=levels.times,
        carry=carry if shrink is None else carry * shrink,
        weights=levels.alpha[1:, None] * weights,
        noise=None if noise is None else levels.sigma[1:] * noise,
    )


def noise_plan(levels: Levels, weights: Tensor, provenance: Provenance) -> Plan:
    """Return the plan of rows ``y' = y + sum_j w_j e_j`` with noise predictions ``e``; `weights` (n, n) in ``(y, s)``."""
    return plan_of_rows(
        levels.process,
        Noise(),
        provenance,
        times=levels.times,
        carry=levels.alpha[1:] / levels.alpha[:-1],
        weights=levels.alpha[1:, None] * weights,
    )


def lower(rows: list[list[Tensor]]) -> Tensor:
    """Return the lower-triangular (n, n) matrix whose row ``i`` ends, at column ``i``, with the entries of ``rows[i]``."""
    n = len(rows)
    return torch.stack([pad(torch.stack(row), (i + 1 - len(row), n - 1 - i)) for i, row in enumerate(rows)])


def ramp(n: int, order: int, final_order: int | None = None) -> list[int]:
    """Return the order of each of `n` multistep steps: it grows from 1, and falls to `final_order` at the end.

    >>> ramp(5, 3)
    [1, 2, 3, 3, 3]
    >>> ramp(5, 3, final_order=1)
    [1, 2, 3, 2, 1]
    """
    require(order >= 1, f"an order must be at least 1, got {order}")
    ceiling = [order if final_order is None else final_order + n - 1 - i for i in range(n)]
    return [min(i + 1, order, cap) for i, cap in enumerate(ceiling)]
