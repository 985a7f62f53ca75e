r"""The canonical form of a plan: every state as a combination of the start, the outputs and the noises, and a constant.

Unrolling ``x_{i+1} = a_i x_i + sum_j b_ij m_j + c_i z_i + k_i`` gives

    x_i = A_i x_0 + sum_{j<i} B_ij m_j + sum_{j<i} C_ij z_j + K_i

with ``A_{i+1} = a_i A_i``, ``B_{i+1} = a_i B_i + b_i``, ``C_{i+1} = a_i C_i + c_i e_i`` and ``K_{i+1} = a_i K_i + k_i``. The map
is one-to-one as long as no ``A_i`` but the last vanishes, so two plans do the same exactly when their canonical forms agree;
multi-stage schemes, whose stages start from an earlier state, and changes of the network's output are written here and turned
back into rows. Where each coordinate has coefficients of its own, all of this holds coordinate by coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput

TINY = 1e-9
ROUNDING = 64 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Canonical:
    """Coefficients ``A`` (n+1,), ``B`` (n+1, n) on outputs and ``C`` (n+1, n) on noises; row ``i`` describes state ``x_i``.

    ``K`` (n+1,) is None where no row adds a constant. All may have further axes, the coordinates.
    """

    start: Tensor
    outputs: Tensor
    noises: Tensor
    constants: Tensor | None = None

    @staticmethod
    def of_rows(carry: Tensor, weights: Tensor, noise: Tensor, constant: Tensor | None = None) -> Canonical:
        """Unroll rows given by ``a`` (n,), ``b`` (n, n), ``c`` (n,) and ``k`` (n,), all with further axes or none."""
        n = len(carry)
        return changed_output(carry, weights, noise, carry.new_zeros(n), carry.new_ones(n), constant)

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``a`` (n,), ``b`` (n, n) and ``c`` (n,); `constant` gives ``k``.

        Raises:
            InvalidInput: a state does not depend on the start, or a row needs an earlier noise; no row form exists.
        """
        before, after = self.start[:-1], self.start[1:]
        if bool((before.detach() == 0).any()):
            raise InvalidInput("a plan whose intermediate state forgets the start has no row form")
        carry = after / before
        weights = _difference(self.outputs[1:], carry[:, None] * self.outputs[:-1])
        noise = self.noises[1:] - carry[:, None] * self.noises[:-1]
        own = torch.eye(len(carry), dtype=torch.bool)
        past = torch.ones_like(own).tril()
        if bool((noise[~own].abs() > TINY * (1 + self.noises.abs().max())).any()):
            raise InvalidInput(
                "a stochastic multistep plan would need earlier noises in this parameterisation; "
                "keep it in the parameterisation it was compiled in"
            )
        return carry, torch.where(beside(past, weights), weights, 0.0), noise[own]

    def constant(self) -> Tensor | None:
        """Return ``k`` (n,), or None where no row adds a constant."""
        if self.constants is None:
            return None
        return _difference(self.constants[1:], self.start[1:] / self.start[:-1] * self.constants[:-1])

    def close(self, other: Canonical, tolerance: float) -> bool:
        """Say whether both agree to an absolute and relative `tolerance`, for every coordinate."""
        mine, theirs = self.start.shape[1:], other.start.shape[1:]
        alike = len(mine) == len(theirs) and all(m == n or 1 in (m, n) for m, n in zip(mine, theirs, strict=True))
        if mine and theirs and not alike:
            return False
        axes = max(len(mine), len(theirs))
        pairs = zip(self._columns(axes), other._columns(axes), strict=True)
        return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)

    def _columns(self, axes: int) -> list[Tensor]:
        """Return all coefficients with so many axes for coordinates."""
        constants = torch.zeros_like(self.start) if self.constants is None else self.constants
        more = (1,) * (axes + 1 - self.start.ndim)
        return [column.reshape(column.shape + more) for column in (self.start, self.outputs, self.noises, constants)]


def beside(column: Tensor, like: Tensor) -> Tensor:
    """Return `column` with trailing axes of length 1, so that it broadcasts over the coordinates of `like`."""
    return column.reshape(column.shape + (1,) * (like.ndim - column.ndim))


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a - b`` where what is left is more than rounding, else 0, so that sparse rows come back sparse."""
    difference = a - b
    rounding = difference.detach().abs() <= ROUNDING * (a.detach().abs() + b.detach().abs())
    return difference - torch.where(rounding, difference, 0.0).detach()


def changed_output(
    carry: Tensor, weights: Tensor, noise: Tensor, cx: Tensor, cm: Tensor, constant: Tensor | None = None
) -> Canonical:
    """Unroll rows whose outputs are replaced by ``m_j = cx_j x_j + cm_j m'_j`` (n,), in terms of the new outputs ``m'``."""
    n = carry.shape[0]
    unit, cm = beside(torch.eye(n, dtype=carry.dtype), weights), beside(cm, carry)
    none = torch.zeros_like(weights[0])
    start, outputs, noises, constants = [torch.ones_like(carry[0])], [none], [none], [torch.zeros_like(carry[0])]
    for i, row in enumerate(used(weights)):
        through = [weights[i, j] * cx[j] for j in row]
        for column, fresh in (
            (start, 0.0),
            (outputs, weights[i] * cm),
            (noises, noise[i] * unit[i]),
            (constants, 0.0 if constant is None else constant[i]),
        ):
            column.append(carry[i] * column[i] + sum(t * column[j] for t, j in zip(through, row, strict=True)) + fresh)
    shifts = None if constant is None else torch.stack(constants)
    return Canonical(torch.stack(start), torch.stack(outputs), torch.stack(noises), shifts)


def used(weights: Tensor) -> list[list[int]]:
    """Return the outputs each row uses; all past ones where a zero weight may carry a gradient."""
    if weights.requires_grad:
        return [list(range(i + 1)) for i in range(len(weights))]
    rows = (weights != 0).flatten(2).any(2) if weights.ndim > 2 else weights != 0
    return [[j for j, nonzero in enumerate(row) if nonzero] for row in rows.tolist()]
