r"""Compensation ratios for guidance scales and numbers of calls that were never searched (Zhao et al., arXiv 2409.03755).

Cascade polynomial regression: the ratio of step ``i = 1, ..., N`` is a parabola in ``i / N``, whose coefficients are parabolas in
the guidance scale ``w``, whose coefficients are parabolas in the number of calls,

    rho_i(N, w) = sum_{a, b, c = 0}^{2} C_abc (N / 50)^a (w / 12)^b (i / N)^c .

The 27 numbers are fitted together by least squares to all searched ratios; where these leave some open, the smallest numbers are
taken. The coefficients that the authors publish are 36, of a cubic in ``i / N``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.tuners.dc_solver import DYNAMIC_COMPENSATION, SKIPPED

POWERS = torch.arange(3, dtype=torch.float64)
CALLS, SCALE = 50.0, 12.0  # units of the numbers of calls and of guidance scales


@DYNAMIC_COMPENSATION.variant()
@dataclass(frozen=True)
class Compensation:
    """Ratios of `DCSolver` as a polynomial in step, guidance scale and number of calls.

    Trust it between the numbers of calls and scales it was fitted on, and measure the plan it gives.

    Args:
        coefficients: (3, 3, 3) numbers ``C_abc``, as nested tuples or lists: plain data, to be stored as JSON.
    """

    coefficients: Sequence[Sequence[Sequence[float]]]

    def __post_init__(self) -> None:
        shape = tuple(torch.tensor(self.coefficients).shape)
        require(shape == (3, 3, 3), f"a compensation has coefficients of shape (3, 3, 3), got {shape}")

    @staticmethod
    def fit(searched: Sequence[tuple[int, float, Sequence[float]]]) -> Compensation:
        """Return the polynomial nearest to searched ratios.

        Args:
            searched: number of calls (rows of the plan), guidance scale, and ratios of each search, one for each call.

        Examples:
            >>> flat = Compensation.fit([(n, w, [1.0] * n) for n in (5, 8, 12) for w in (2.0, 5.0, 8.0)])
            >>> [round(ratio, 6) for ratio in flat.ratios(6, 7.5)]
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        """
        for calls, _, ratios in searched:
            require(len(ratios) == calls, f"{calls} calls have as many ratios, got {len(ratios)}")
        values = [ratio for _, _, ratios in searched for ratio in ratios[SKIPPED:]]
        require(len(values) > 0, "a compensation needs searched ratios of plans with at least 3 calls")
        table = torch.cat([_monomials(calls, guidance)[SKIPPED:] for calls, guidance, _ in searched])
        wanted = torch.tensor(values, dtype=torch.float64)[:, None]
        found = torch.linalg.lstsq(table, wanted, driver="gelsd").solution
        return Compensation(found.reshape(3, 3, 3).tolist())

    def ratios(self, calls: int, guidance: float) -> list[float]:
        """Return the ratios of a plan of `calls` rows at a guidance scale, for `compensated`; the first two are 1."""
        require(calls >= 1, f"a plan has at least 1 call, got {calls}")
        found = _monomials(calls, guidance) @ torch.tensor(self.coefficients, dtype=torch.float64).flatten()
        return ([1.0] * SKIPPED + found[SKIPPED:].tolist())[:calls]


def _monomials(calls: int, guidance: float) -> Tensor:
    """Return all products of powers (calls, 27), one row for each step."""
    step = torch.arange(1, calls + 1, dtype=torch.float64)[:, None] / calls
    fixed = torch.outer((calls / CALLS) ** POWERS, (guidance / SCALE) ** POWERS)
    return torch.einsum("ab,ic->iabc", fixed, step**POWERS).flatten(1)
