r"""The canonical form of a plan: every state as a combination of the start, the outputs and the noises.

Unrolling ``x_{i+1} = a_i x_i + sum_j b_ij m_j + c_i z_i`` gives

    x_i = A_i x_0 + sum_{j<i} B_ij m_j + sum_{j<i} C_ij z_j

with ``A_{i+1} = a_i A_i``, ``B_{i+1} = a_i B_i + b_i`` and ``C_{i+1} = a_i C_i + c_i e_i``. The map is one-to-one as long as no
``A_i`` but the last vanishes, so two plans do the same exactly when their canonical forms agree; multi-stage schemes, whose
stages start from an earlier state, and changes of the network's output are written here and turned back into rows.
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
    """Coefficients ``A`` (n+1,), ``B`` (n+1, n) on outputs and ``C`` (n+1, n) on noises; row ``i`` describes state ``x_i``."""

    start: Tensor
    outputs: Tensor
    noises: Tensor

    @staticmethod
    def of_rows(carry: Tensor, weights: Tensor, noise: Tensor) -> Canonical:
        """Unroll rows given by ``a`` (n,), ``b`` (n, n) and ``c`` (n,)."""
        return changed_output(carry, weights, noise, torch.zeros_like(carry), torch.ones_like(carry))

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``a`` (n,), ``b`` (n, n) and ``c`` (n,).

        Raises:
            InvalidInput: a state does not depend on the start, or a row needs an earlier noise; no row form exists.
        """
        before, after = self.start[:-1], self.start[1:]
        if bool((before.detach() == 0).any()):
            raise InvalidInput("a plan whose intermediate state forgets the start has no row form")
        carry = after / before
        weights = _difference(self.outputs[1:], carry[:, None] * self.outputs[:-1])
        noise = self.noises[1:] - carry[:, None] * self.noises[:-1]
        diagonal = torch.diagonal(noise)
        if bool(((noise - torch.diag(diagonal)).abs() > TINY * (1 + self.noises.abs().max())).any()):
            raise InvalidInput(
                "a stochastic multistep plan would need earlier noises in this parameterisation; "
                "keep it in the parameterisation it was compiled in"
            )
        return carry, torch.tril(weights), diagonal


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a - b`` where what is left is more than rounding, else 0, so that sparse rows come back sparse."""
    difference = a - b
    rounding = difference.detach().abs() <= ROUNDING * (a.detach().abs() + b.detach().abs())
    return difference - torch.where(rounding, difference, 0.0).detach()


def changed_output(carry: Tensor, weights: Tensor, noise: Tensor, cx: Tensor, cm: Tensor) -> Canonical:
    """Unroll rows whose outputs are replaced by ``m_j = cx_j x_j + cm_j m'_j``, in terms of the new outputs ``m'``."""
    n = carry.shape[0]
    unit = torch.eye(n, dtype=carry.dtype)
    start, outputs, noises = [torch.ones_like(carry[0])], [torch.zeros_like(unit[0])], [torch.zeros_like(unit[0])]
    for i, used in enumerate(_used(weights)):
        through = [weights[i, j] * cx[j] for j in used]
        start.append(carry[i] * start[i] + sum(t * start[j] for t, j in zip(through, used, strict=True)))
        outputs.append(
            carry[i] * outputs[i] + sum(t * outputs[j] for t, j in zip(through, used, strict=True)) + weights[i] * cm
        )
        noises.append(
            carry[i] * noises[i] + sum(t * noises[j] for t, j in zip(through, used, strict=True)) + noise[i] * unit[i]
        )
    return Canonical(torch.stack(start), torch.stack(outputs), torch.stack(noises))


def _used(weights: Tensor) -> list[list[int]]:
    """Return the outputs each row uses; all past ones where a zero weight may carry a gradient."""
    if weights.requires_grad:
        return [list(range(i + 1)) for i in range(len(weights))]
    return [[j for j, b in enumerate(row) if b != 0.0] for row in weights.tolist()]
