r"""DPM-Solver: single-step exponential integrators for noise predictions (Lu et al., arXiv 2206.00927).

With ``h = lam_t - lam_s`` the exact step is a mean of the prediction over the step, under the weight ``exp(-lam)``:

    y_t = y_s + (t - s) e~ ,      e~ = int_0^h exp(-u) e(lam_s + u) du / int_0^h exp(-u) du .

On a straight line through ``e_s`` and the value ``e_r`` at ``lam_s + r h`` that mean is

    e~ = e_s + c(h) / r (e_r - e_s) ,      c(h) = 1 / h - 1 / (exp(h) - 1) = 1/2 - h/12 + ... ,

``c`` being the weight's centre as a share of the step. DPM-Solver-1 takes ``e~ = e_s``. DPM-Solver-2 takes one stage, at ``r1``,
and 1/2 for ``c``. DPM-Solver-3 reaches a stage at ``r2`` by the line through ``e_s`` and the stage at ``r1``, and ends by the line
through ``e_s`` and that second stage. To be right for a parabola as well needs ``c r2 = 1/3`` as ``h`` vanishes: ``r2 = 2/3``.

Data predictions obey the same formulas under the weight ``exp(lam)``, hence with ``c(-h)``: see `dpm_solver_pp_single`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.grids.log_snr_blocks import block_sizes
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level, noise_step
from isocline.plans.solvers.rows import Levels
from isocline.processes import GaussianProcess, Noise, Parameterisation

DPM_SOLVER = Method(
    "dpm-solver",
    "DPM-Solver",
    "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
    "Cheng Lu, Yuhao Zhou, Fan Bao, Jianfei Chen, Chongxuan Li, Jun Zhu",
    2022,
    "2206.00927",
    room="plans.solvers",
    when="From 20 calls on; at 10 calls DPM-Solver-2 does worse than DDIM, and dpm_solver_fast needs the grid log_snr_blocks.",
)


class Prediction(NamedTuple):
    """What is averaged over a step: its parameterisation, the step where it is constant, and the weight ``exp(sign lam)``."""

    parameterisation: Parameterisation
    step: Callable[[Tensor, Level, Level, Tensor], Tensor]
    sign: float

    def centre(self, h: Tensor) -> Tensor:
        """Return the mean of ``u / h`` on ``[0, h]`` under the weight ``exp(sign u)``."""
        return -1 / torch.expm1(-self.sign * h) - 1 / (self.sign * h)


NOISE = Prediction(Noise(), noise_step, -1.0)


@DPM_SOLVER.variant(order=1)
def dpm_solver_1(process: GaussianProcess, times: Tensor) -> Plan:
    """Return DPM-Solver-1: order 1, one call a step; DDIM, written with noise predictions.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
    """
    return _dpm_solver("dpm_solver_1", process, times, {})


@DPM_SOLVER.variant(order=2)
def dpm_solver_2(process: GaussianProcess, times: Tensor, *, r1: float = 0.5) -> Plan:
    """Return DPM-Solver-2: order 2, two calls a step, one for a last step to time 0.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
        r1: place of the stage as a share of the step in half log-SNR, in (0, 1].
    """
    return _dpm_solver("dpm_solver_2", process, times, {"r1": r1})


@DPM_SOLVER.variant(order=3)
def dpm_solver_3(process: GaussianProcess, times: Tensor, *, r1: float = 1 / 3, r2: float = 2 / 3) -> Plan:
    """Return DPM-Solver-3: order 3, three calls a step, one for a last step to time 0.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
        r1: place of the first stage as a share of the step in half log-SNR, ``0 < r1 < r2``.
        r2: place of the second stage, at most 1; with another value than 2/3 the order is 2.
    """
    return _dpm_solver("dpm_solver_3", process, times, {"r1": r1, "r2": r2})


@DPM_SOLVER.variant(order=2)
def dpm_solver_fast(process: GaussianProcess, times: Tensor) -> Plan:
    """Return DPM-Solver-fast: one call at each time but the last, in blocks of three.

    A block of three is a DPM-Solver-3 step whose stages are the grid's own times. Of ``n`` intervals ``n mod 3`` are left for a
    last block, DPM-Solver-2 or -1; where none would be left, the last three make a block of two and one of one. The paper's
    blocks are equally long in half log-SNR: the grid `log_snr_blocks` gives such times. On a grid of equal steps the last blocks
    are shorter and the others longer, which costs much accuracy at few calls.

    The order is 3 where ``n mod 3 = 2``; otherwise the last block, of order 1, caps it at 2. A step to time 0 is a block of one.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times; may end at 0.
    """
    levels = Levels(process, times)
    levels.require_finite("dpm_solver_fast")
    edges = [0, *accumulate(block_sizes(levels.n, levels.ends_clean))]
    blocks = [[levels.at(i) for i in range(a, b + 1)] for a, b in pairwise(edges)]
    return single_step(NOISE, levels, blocks, Provenance("dpm_solver_fast", DPM_SOLVER.arxiv))


def _dpm_solver(name: str, process: GaussianProcess, times: Tensor, shares: dict[str, float]) -> Plan:
    levels = Levels(process, times)
    levels.require_finite(name)
    return single_step(NOISE, levels, split(levels, shares), Provenance(name, DPM_SOLVER.arxiv, {**shares}))


def split(levels: Levels, shares: dict[str, float]) -> list[list[Level]]:
    """Return the levels of each step: its start, its stages at `shares` of the step in half log-SNR, its end.

    A step that starts without signal or ends without noise has no stages.
    """
    ladder = [0.0, *shares.values()]
    require(
        all(a < b <= 1 for a, b in pairwise(ladder)),
        f"stages must lie in the step, in order: 0 < {' < '.join(shares)} <= 1, got {', '.join(f'{v:g}' for v in ladder[1:])}",
    )
    stages = [[] if levels.one_sided(i) else [levels.between(i, r) for r in shares.values()] for i in range(levels.n)]
    return [[levels.at(i), *inner, levels.at(i + 1)] for i, inner in enumerate(stages)]


def single_step(prediction: Prediction, levels: Levels, blocks: list[list[Level]], provenance: Provenance) -> Plan:
    """Return the plan of one step over each block of levels, with one call at every level but the block's last."""
    rules = {1: _first, 2: _second, 3: _third}
    draft = Draft(levels.process, prediction.parameterisation, sum(len(block) - 1 for block in blocks))
    x = draft.start
    for block in blocks:
        x = rules[len(block) - 1](draft, prediction, x, block)
    return draft.finish(x, blocks[-1][-1], levels.times, provenance)


def _first(draft: Draft, prediction: Prediction, x: Tensor, block: list[Level]) -> Tensor:
    here, there = block
    return prediction.step(x, here, there, draft.call(x, here))


def _second(draft: Draft, prediction: Prediction, x: Tensor, block: list[Level]) -> Tensor:
    here, stage, there = block
    first = draft.call(x, here)
    second = draft.call(prediction.step(x, here, stage, first), stage)
    return prediction.step(x, here, there, first + _stretch(here, stage, there) / 2 * (second - first))


def _third(draft: Draft, prediction: Prediction, x: Tensor, block: list[Level]) -> Tensor:
    here, stage, later, there = block
    first = draft.call(x, here)
    second = draft.call(prediction.step(x, here, stage, first), stage)
    bend = prediction.centre(later.lam - here.lam) * _stretch(here, stage, later)
    third = draft.call(prediction.step(x, here, later, first + bend * (second - first)), later)
    bend = prediction.centre(there.lam - here.lam) * _stretch(here, later, there)
    return prediction.step(x, here, there, first + bend * (third - first))


def _stretch(here: Level, stage: Level, there: Level) -> Tensor:
    """Return how many times longer the step is than the way to its stage, in half log-SNR."""
    return (there.lam - here.lam) / (stage.lam - here.lam)
