r"""PNDM: classical methods with the steps of DDIM (Liu et al., arXiv 2202.09778).

A classical method averages slopes; PNDM averages noise predictions in the same way and moves with DDIM's transfer

    phi(x, e, t, t') = sqrt(a'/a) x - (a' - a) / (sqrt(a) (sqrt((1 - a') a) + sqrt((1 - a) a'))) e ,      a = alpha^2 = 1 - sigma^2,

which is ``y' = y + (s' - s) e`` in the unscaled state. The averages are

    improved Euler   (e_1 + e_2) / 2
    Runge-Kutta      (e_1 + 2 e_2 + 2 e_3 + e_4) / 6 , with e_2, e_3 at the middle of the step in time
    Adams            (3, -1) / 2 ,  (23, -16, 5) / 12 ,  (55, -59, 37, -9) / 24   on e_i, e_{i-1}, ...

Adams' weights belong to equal steps in ``s``. There the methods are the classical ones, and F-PNDM has order 4. Elsewhere they are
"pseudo": the average is off by a share ``h`` of the slope, so the observed order is 2 with any number of past outputs. At few
steps that need not hurt: on smooth exact mixtures, 10 calls of iPNDM with three outputs leave a quarter to a half of the error of
`rho_adams`, whose weights fit the grid.

iPNDM, which starts with lower orders instead of extra calls, is from the DEIS paper (Zhang and Chen, arXiv 2204.13902).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.adams import DEIS
from isocline.plans.solvers.draft import Draft, Level, noise_step
from isocline.plans.solvers.rows import Levels
from isocline.processes import GaussianProcess, Noise

PNDM = Method(
    "pndm",
    "PNDM",
    "Pseudo Numerical Methods for Diffusion Models on Manifolds",
    "Luping Liu, Yi Ren, Zhijie Lin, Zhou Zhao",
    2022,
    "2202.09778",
    room="plans.solvers",
    when="iPNDM at 6 to 12 calls, where it is near the best on images; PLMS and F-PNDM to reproduce what was published with them.",
)

ADAMS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}

# (draft, state, start and end of the step) -> the first output, and the average that moves the state
Average = Callable[[Draft, Tensor, Level, Level], tuple[Tensor, Tensor]]


@PNDM.variant(order=2)
def s_pndm(process: GaussianProcess, times: Tensor) -> Plan:
    """Return S-PNDM: two past outputs after one improved-Euler step, observed order 2, ``n + 1`` calls for ``n`` steps.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
    """
    return _pndm(process, times, [(2, _improved_euler)], 2, Provenance("s_pndm", PNDM.arxiv))


@PNDM.variant(order=2)
def f_pndm(process: GaussianProcess, times: Tensor) -> Plan:
    """Return F-PNDM: four past outputs after three Runge-Kutta steps, observed order 2, ``n + 9`` calls for ``n`` steps.

    Stages lie in the middle of a step in process time. With three steps or fewer all are Runge-Kutta, four calls each, but for
    a last step to time 0.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
    """
    return _pndm(process, times, [(4, _runge_kutta)] * 3, 4, Provenance("f_pndm", PNDM.arxiv))


@PNDM.variant(order=2)
def plms(process: GaussianProcess, times: Tensor) -> Plan:
    """Return PLMS: four past outputs, fewer at the start, after one improved-Euler step; observed order 2, ``n + 1`` calls.

    The sampler that Stable Diffusion was released with; ``skip_prk_steps=True`` in diffusers.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
    """
    return _pndm(process, times, [(2, _improved_euler)], 4, Provenance("plms", PNDM.arxiv))


@DEIS.variant(order=2)
def ipndm(process: GaussianProcess, times: Tensor, *, order: int = 4) -> Plan:
    """Return iPNDM: `order` past outputs, fewer at the start; observed order 2 (1 with one output), one call a step.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
        order: number of past outputs, 1 to 4.
    """
    require(order in ADAMS, f"ipndm knows orders 1 to 4, got {order}")
    return _pndm(process, times, [], order, Provenance("ipndm", DEIS.arxiv, {"order": order}))


def _pndm(
    process: GaussianProcess, times: Tensor, begin: list[tuple[int, Average]], order: int, provenance: Provenance
) -> Plan:
    """Return the plan whose first steps have the calls and averages in `begin`, and the others Adams' average.

    A step to time 0 takes one output.
    """
    levels = Levels(process, times)
    levels.require_finite(provenance.method)
    whole = levels.n - levels.ends_clean
    begin = begin[:whole]
    draft = Draft(process, Noise(), levels.n + sum(calls - 1 for calls, _ in begin))
    x, past = draft.start, list[Tensor]()
    for i in range(levels.n):
        here, there = levels.at(i), levels.at(i + 1)
        if i < len(begin):
            first, mean = begin[i][1](draft, x, here, there)
            past.append(first)
        else:
            past.append(draft.call(x, here))
            mean = _adams(past, order if i < whole else 1)
        x = noise_step(x, here, there, mean)
    return draft.finish(x, levels.at(levels.n), levels.times, provenance)


def _adams(past: list[Tensor], order: int) -> Tensor:
    weights = ADAMS[min(order, len(past))]
    return torch.stack([w * e for w, e in zip(weights, reversed(past), strict=False)]).sum(0)


def _improved_euler(draft: Draft, x: Tensor, here: Level, there: Level) -> tuple[Tensor, Tensor]:
    first = draft.call(x, here)
    second = draft.call(noise_step(x, here, there, first), there)
    return first, (first + second) / 2


def _runge_kutta(draft: Draft, x: Tensor, here: Level, there: Level) -> tuple[Tensor, Tensor]:
    middle = Level.at(draft.process, (here.time + there.time) / 2)
    first = draft.call(x, here)
    second = draft.call(noise_step(x, here, middle, first), middle)
    third = draft.call(noise_step(x, here, middle, second), middle)
    fourth = draft.call(noise_step(x, here, there, third), there)
    return first, (first + 2 * second + 2 * third + fourth) / 6
