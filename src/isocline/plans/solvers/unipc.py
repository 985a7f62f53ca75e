r"""UniPC, a predictor and a corrector that share every call (Zhao et al., arXiv 2302.04867).

With ``h = lam' - lam``, past predictions ``m_k`` at ``lam_k = lam + r_k h`` and ``D_k = m_k - m_0``, UniP-p and UniC-p are

    data   y' = r y + (1 - exp(-h)) m_0 - B(-h) sum_k rho_k D_k / r_k
    noise  y' = y - t (exp(h) - 1) m_0 - t B(h) sum_k rho_k D_k / r_k ,

the predictor with ``p - 1`` past outputs, the corrector with the one at the next node, ``r = 1``, besides. ``rho`` solves the order
conditions ``sum_k rho_k r_k^(i-1) = i! B^-1 hh phi_{i+1}(hh)``. Then ``B`` cancels, and the step is the exact integral of the
Lagrange polynomial through the nodes: exponential Adams-Bashforth, corrected by exponential Adams-Moulton. ``B(hh) = hh`` (bh1)
and ``B(hh) = exp(hh) - 1`` (bh2) differ only in rules of two nodes, where the paper sets ``rho = 1 / 2``: the predictor of order
2 and the corrector of order 1. The former with bh2 is DPM-Solver++ 2M.

The network reads the predicted state; its output also corrects the step that led there, and the next step starts from the
corrected state. With ``P`` and ``C`` the weights of predictor and corrector, row ``i`` of the plan is

    y'_{i+1} = a_i y'_i + sum_j (P_ij + a_i (C_{i-1,j} - P_{i-1,j})) m_j ,

so a correction costs neither a call nor a row. The last step is not corrected, as nothing is called at its end.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.lagrange import exponential_weights
from isocline.plans.solvers.rows import Levels, data_plan, noise_plan, ramp
from isocline.processes import GaussianProcess

UNIPC = Method(
    "unipc",
    "UniPC",
    "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
    "Wenliang Zhao, Lujia Bai, Yongming Rao, Jie Zhou, Jiwen Lu",
    2023,
    "2302.04867",
    room="plans.solvers",
    when="Where a multistep solver is used anyway: the corrector raises its order by one at no call.",
)

Variant = Literal["bh1", "bh2"]
Span = tuple[int, int]


@UNIPC.variant(order=3)
def unipc(
    process: GaussianProcess,
    times: Tensor,
    *,
    order: int = 2,
    variant: Variant = "bh2",
    corrector: bool = True,
    final_order: int | None = None,
) -> Plan:
    """Return UniPC on data predictions: order `order` + 1, or `order` without the corrector; one call a step.

    Args:
        process: any Gaussian process; may start without signal, where the first correction by bh1, with infinite ``h``, is
            replaced by the exact one.
        times: (n+1,) decreasing times; may end at 0.
        order: number of past outputs ``p`` of predictor and corrector.
        variant: the function ``B`` in rules of two nodes.
        corrector: whether outputs correct the step before them.
        final_order: order of the last step; 1 is what diffusers calls ``lower_order_final``.
    """
    levels = Levels(process, times)
    gain = 1 - levels.r
    steps = _steps(levels.lam, gain, torch.ones_like(gain), variant)
    weights = _weights(levels, steps, order, final_order, corrector, levels.r)
    return data_plan(levels, weights, _provenance("unipc", order, variant, corrector, final_order))


@UNIPC.variant(order=3)
def unipc_noise(
    process: GaussianProcess,
    times: Tensor,
    *,
    order: int = 2,
    variant: Variant = "bh2",
    corrector: bool = True,
    final_order: int | None = None,
) -> Plan:
    """Return UniPC on noise predictions; arguments as in `unipc`, but it needs a finite first noise level."""
    levels = Levels(process, times)
    levels.require_finite("unipc_noise")
    steps = _steps(-levels.lam, levels.s.diff(), levels.s[1:], variant)
    weights = _weights(levels, steps, order, final_order, corrector, torch.ones_like(levels.r))
    return noise_plan(levels, weights, _provenance("unipc_noise", order, variant, corrector, final_order))


class AdamsStep(NamedTuple):
    """Weights of the outputs over step `i`, in ``mu = lam`` or a multiple of it.

    `mu` (n+1,) holds all nodes, `gain` is the sum of all weights, `scale` the factor on integrals of ``exp(mu - mu')``; where
    `half` is given and finite, rules of two nodes weigh the slope with half of it.
    """

    mu: Tensor
    i: int
    gain: Tensor
    scale: Tensor
    half: Tensor | None = None

    def weights(self, span: Span) -> Tensor:
        """Return the weights (n,) with the outputs at the nodes of `span`, first to last."""
        first, last = span
        halved = last - first == 1 and self.half is not None and bool(torch.isfinite(self.half.detach()))
        found = self._pair(first, last) if halved else self._exact(first, last)
        return pad(torch.stack(found), (first, len(self.mu) - 2 - last))

    def _pair(self, first: int, last: int) -> list[Tensor]:
        assert self.half is not None
        if last > self.i:
            return [self.gain - self.half / 2, self.half / 2]
        back = (self.mu[self.i + 1] - self.mu[self.i]) / (self.mu[first] - self.mu[self.i])
        return [self.half / 2 * back, self.gain - self.half / 2 * back]

    def _exact(self, first: int, last: int) -> list[Tensor]:
        if first == last:
            return [self.gain]
        if not bool(torch.isfinite(self.mu[first].detach())):  # a node without signal is infinitely far from all others
            return [torch.zeros_like(self.gain), *self._exact(first + 1, last)]
        nodes = self.mu[first : last + 1]
        return [self.scale * w for w in exponential_weights(nodes, self.mu[self.i], self.mu[self.i + 1])]


def predict_and_correct(
    steps: list[AdamsStep], predictors: list[Span], correctors: list[Span | None], carry: Tensor
) -> Tensor:
    """Return weights (n, n) of steps that are repeated, corrected, once the output at their end is known.

    Args:
        steps: the ``n`` steps.
        predictors: nodes each step uses.
        correctors: nodes each step uses when it is repeated; None where it is not.
        carry: (n,) factors on the state.
    """
    pairs = list(zip(steps, predictors, correctors, strict=True))
    predicted = torch.stack([step.weights(span) for step, span, _ in pairs])
    repeated = torch.stack([step.weights(again or span) for step, span, again in pairs])
    return predicted + pad(carry[1:, None] * (repeated - predicted)[:-1], (0, 0, 1, 0))


def _steps(mu: Tensor, gain: Tensor, scale: Tensor, variant: Variant) -> list[AdamsStep]:
    require(variant in ("bh1", "bh2"), f"variant must be 'bh1' or 'bh2', got {variant!r}")
    half = gain if variant == "bh2" else scale * mu.diff()
    return [AdamsStep(mu, i, gain[i], scale[i], half[i]) for i in range(len(gain))]


def _weights(
    levels: Levels, steps: list[AdamsStep], order: int, final_order: int | None, corrector: bool, carry: Tensor
) -> Tensor:
    orders = ramp(levels.n, order, final_order)
    if levels.ends_clean:
        orders[-1] = 1
    predictors = [(i - k + 1, i) for i, k in enumerate(orders)]
    correctors = [(first, i + 1) if corrector else None for first, i in predictors]
    return predict_and_correct(steps, predictors, [*correctors[:-1], None], carry)


def _provenance(name: str, order: int, variant: Variant, corrector: bool, final_order: int | None) -> Provenance:
    settings = {"order": order, "variant": variant, "corrector": corrector, "final_order": final_order}
    return Provenance(name, UNIPC.arxiv, settings)
