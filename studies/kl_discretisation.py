r"""How many steps the reverse SDE needs: the grid, and which quantity a step may freeze.

    python studies/kl_discretisation.py [--quick] [--json] [--picture FILE]

Ornstein-Uhlenbeck noise as in `submanifold_singularity`, stopped at ``t = delta``. Chen, Lee and Lu (arXiv 2211.01916) bound the
KL divergence of the sampler with steps ``h_k <= kappa min(1, t_k)``, "exponential" below, from data of any law with a second
moment: about ``d log^2(1 / delta) / N`` for ``N`` steps, while equal steps need ``N`` polynomial in ``1 / delta``.

On Gaussian data ``N(0, v I)`` every scheme is linear, so the variance ``V`` of its result follows a recursion and, per coordinate,
``KL = (u - log(1 + u)) / 2`` with ``u = Sigma / V - 1`` is exact. Chains start from the true law at ``T``. The schemes:

    Euler-Maruyama;  frozen score: the linear part exact;  frozen data: the exact posterior step with ``D`` in the datum's place.

The bound goes through the law of the whole path (Girsanov). The score is a martingale backwards in time up to a factor, and so
is ``D``; hence the divergence of the paths needs only ``F(t) = E|score|^2`` or ``mmse(t) = E|x_0 - D|^2`` (derived here):

    frozen score:  (1/2) sum_k int [F(t) - (2 exp(-(t_k - t) / 2) - 1) F(t_k)] dt,
    frozen data:   (1/2) sum_k int [mmse(t_k) - mmse(t)] (-dSNR/dt) dt.

On a thin set of dimension ``m`` in ``R^d``, ``F ~ (d - m) / t`` and ``mmse ~ m t``: on ``N`` steps of ratio ``exp(k)`` these are
``(d - m) N (k - 1 + exp(-k)) / 2`` and ``m N (exp(k) - 1 - k) / 2``. Freezing the score costs the codimension, freezing the data
prediction costs the dimension.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core.stream import Stream
from isocline.plans import Plan, solvers
from isocline.processes import GaussianMixture, Sphere, ornstein_uhlenbeck
from studies.submanifold_singularity import data_loss, score_energy
from studies.verdict import Claim, Panel, Study, above, below, main, near, slope, spread

T = 6.0
THIN = 1e-6  # variance of nearly singular data
OU = ornstein_uhlenbeck(t_min=1e-9, t_max=T)
Rows = Callable[[ndarray, float], tuple[ndarray, ndarray]]


def uniform(delta: float, n: int) -> ndarray:
    """Return ``n + 1`` times from ``T`` to `delta` in equal steps."""
    return np.linspace(T, delta, n + 1)


def exponential(delta: float, n: int) -> ndarray:
    """Return ``n + 1`` times from ``T`` to `delta`: equal steps above 1, equal ratios below."""
    u = np.linspace(T - 1, math.log(delta), n + 1)
    return np.where(u > 0, 1 + u, np.exp(np.minimum(u, 0)))


def marginal(t: ndarray | float, v: float) -> ndarray:
    """Return ``Sigma(t)``, the variance of ``x_t``."""
    return v * np.exp(-t) - np.expm1(-t)


def euler_maruyama(t: ndarray, v: float) -> tuple[ndarray, ndarray]:
    """Return factor and added variance of each step: drift ``x / 2 + score`` at the start of the step."""
    h = t[:-1] - t[1:]
    return 1 + h / 2 - h / marginal(t[:-1], v), h


def frozen_score(t: ndarray, v: float) -> tuple[ndarray, ndarray]:
    """Return factor and added variance of each step: the exponential integrator."""
    h = t[:-1] - t[1:]
    return np.exp(h / 2) - 2 * np.expm1(h / 2) / marginal(t[:-1], v), np.expm1(h)


def frozen_data(t: ndarray, v: float) -> tuple[ndarray, ndarray]:
    """Return factor and added variance of each step: ``q(x_{k+1} | x_k, x_0 = D)``."""
    a, b, h = t[:-1], t[1:], t[:-1] - t[1:]
    qa, qb, qh = -np.expm1(-a), -np.expm1(-b), -np.expm1(-h)
    prediction = np.exp(-a / 2) * v / marginal(a, v)
    return np.exp(-h / 2) * qb / qa + np.exp(-b / 2) * qh / qa * prediction, qh * qb / qa


def end_variance(rows: tuple[ndarray, ndarray], start: float) -> float:
    """Return the variance after all rows ``x' = A x + sqrt(B) z``."""
    variance = start
    for factor, added in zip(rows[0].tolist(), rows[1].tolist(), strict=True):  # plain numbers: ten times faster here
        variance = factor**2 * variance + added
    return variance


def divergence(rows: Rows, times: ndarray, v: float) -> float:
    """Return the KL divergence, in nats per coordinate, of the chain's result from the true law at the last time."""
    u = float(marginal(times[-1], v)) / end_variance(rows(times, v), float(marginal(times[0], v))) - 1
    return 0.5 * (u - math.log1p(u)) if abs(u) > 1e-4 else u * u / 4 - u**3 / 6


def steps_needed(grid: Callable[[float, int], ndarray], delta: float, goal: float) -> int:
    """Return the least number of steps, to half a per cent, with which the frozen score reaches `goal` on a point of data."""
    low, high = 1, 2
    while divergence(frozen_score, grid(delta, high), 0.0) > goal:
        low, high = high, 2 * high
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        reached = divergence(frozen_score, grid(delta, middle), 0.0) <= goal
        low, high = (low, middle) if reached else (middle, high)
    return high


def within_steps(times: ndarray, nodes: int) -> tuple[ndarray, ndarray, ndarray]:
    """Return Gauss points (N, K) inside each step, their weights, and the start (N, 1) of each step."""
    node, weight = np.polynomial.legendre.leggauss(nodes)
    start, length = times[:-1, None], (times[:-1] - times[1:])[:, None]
    return times[1:, None] + length * (node + 1) / 2, length * weight / 2, start


def path_of_score(energy: Callable[[ndarray], ndarray], times: ndarray, nodes: int = 8) -> float:
    """Return the divergence of the paths with a frozen score, given ``F(t)``."""
    t, weight, start = within_steps(times, nodes)
    return 0.5 * float((weight * (energy(t) + (1 - 2 * np.exp((t - start) / 2)) * energy(start))).sum())


def path_of_data(mmse: Callable[[ndarray], ndarray], times: ndarray, nodes: int = 8) -> float:
    """Return the divergence of the paths with a frozen data prediction, given ``mmse(t)``."""
    t, weight, start = within_steps(times, nodes)
    return 0.5 * float((weight * (mmse(start) - mmse(t)) * np.exp(-t) / np.expm1(-t) ** 2).sum())


def gaussian_paths(times: ndarray, v: float) -> tuple[float, float]:
    """Return both path divergences on ``N(0, v)``."""
    return (
        path_of_score(lambda t: 1 / marginal(t, v), times),
        path_of_data(lambda t: -v * np.expm1(-t) / marginal(t, v), times),
    )


def plan_variance(plan: Plan, v: float) -> float:
    """Return the variance after a plan whose rows use their own data prediction only, on ``N(0, v)``."""
    t = plan.times[:-1].numpy()
    prediction = np.exp(-t / 2) * v / marginal(t, v)
    rows = plan.carry.numpy() + torch.diagonal(plan.weights).numpy() * prediction, plan.noise.numpy() ** 2
    return end_variance(rows, float(marginal(t[0], v)))


def library() -> list[Claim]:
    """The recursions here against the library's plans."""
    worst = 0.0
    for solver, rows in ((solvers.euler_maruyama, euler_maruyama), (solvers.ancestral, frozen_data)):
        for grid in (uniform, exponential):
            times = grid(1e-3, 60)
            plan = solver(OU, torch.from_numpy(times))
            here = end_variance(rows(times, 0.5), float(marginal(T, 0.5)))
            worst = max(worst, abs(plan_variance(plan, 0.5) / here - 1))
    return [below("plans of Euler-Maruyama and ancestral sampling are these chains: relative error", worst, 1e-10)]


def grids() -> list[Claim]:
    """Equal steps against exponential ones, on nearly singular data."""

    def kl(grid: Callable[[float, int], ndarray], delta: float, n: int) -> float:
        return divergence(frozen_score, grid(delta, n), THIN)

    deltas = (1e-1, 1e-2, 1e-3)
    counts = [steps_needed(uniform, delta, 0.1) for delta in deltas]
    growth = steps_needed(exponential, 1e-6, 0.1) / steps_needed(exponential, 1e-3, 0.1)
    return [
        below("v = 1e-6, delta = 1e-4, frozen score: KL of 200 exponential steps", kl(exponential, 1e-4, 200), 0.01),
        above("the same with 200 equal steps", kl(uniform, 1e-4, 200), 1.0),
        above("the same with 800 equal steps", kl(uniform, 1e-4, 800), 1.0),
        below(
            "200 exponential steps: growth of KL from delta = 1e-2 to 1e-4",
            kl(exponential, 1e-4, 200) / kl(exponential, 1e-2, 200),
            3.0,
        ),
        near("equal steps: power of 1/delta in the steps needed for KL 0.1", -slope(deltas, counts).value, 1.0, 0.05),
        below("exponential steps: growth of the steps needed from delta = 1e-3 to 1e-6", growth, 2.0),
    ]


def rates() -> list[Claim]:
    """How both divergences fall with the number of steps."""
    counts = (100, 200, 400, 800)
    times = [exponential(1e-4, n) for n in counts]
    ends = [divergence(frozen_score, t, THIN) for t in times]
    paths = [gaussian_paths(t, THIN)[0] for t in times]
    above_end = min(
        path / divergence(rows, exponential(1e-3, n), v)
        for v in (1e-3, 0.5, 4.0)
        for n in (25, 100)
        for path, rows in zip(gaussian_paths(exponential(1e-3, n), v), (frozen_score, frozen_data), strict=True)
    )
    length, n = math.log(1e12) + T - 1, 800
    constant = gaussian_paths(exponential(1e-12, n), 0.0)[0] * 4 * n / length**2
    return [
        near("frozen score: slope of the path's KL in N (the bound: −1)", slope(counts, paths), -1.0, 0.1),
        near(
            "frozen score: slope of the result's KL in N; here the bound is not tight", slope(counts, ends), -2.0, 0.1
        ),
        above("path's KL over the result's KL, the least of twelve", above_end, 1.0),
        near("path's KL over L² / 4N, grid of length L, delta = 1e-12", constant, 1.0, 0.1),
    ]


def what_to_freeze() -> list[Claim]:
    """Score, data prediction, or the whole drift."""
    counts = (25, 50, 100, 200, 400)

    def ratio(top: Rows, bottom: Rows, v: float, grid: Callable[[float, int], ndarray], n: int) -> float:
        return divergence(top, grid(1e-4, n), v) / divergence(bottom, grid(1e-4, n), v)

    thin = divergence(frozen_data, exponential(1e-4, 25), THIN) / divergence(frozen_score, exponential(1e-4, 50), THIN)
    wide = [ratio(frozen_data, frozen_score, 0.5, exponential, n) for n in counts]
    euler = [
        ratio(euler_maruyama, frozen_score, v, grid, n)
        for v in (THIN, 0.1, 0.5)
        for grid in (uniform, exponential)
        for n in counts
    ]
    return [
        below("v = 1e-6: KL of frozen data at 25 steps over frozen score at 50", thin, 1e-3),
        near("v = 0.5, 25 to 400 exponential steps: KL of frozen data over frozen score", spread(wide), 2.25, 0.75),
        above(
            "v = 0.5, 100 equal steps: KL of frozen data over frozen score",
            ratio(frozen_data, frozen_score, 0.5, uniform, 100),
            5.0,
        ),
        below("v ≤ 0.5: KL of Euler-Maruyama over frozen score, the largest of 30", max(euler), 1.001),
        above(
            "v = 4, 100 equal steps: KL of Euler-Maruyama over frozen score",
            ratio(euler_maruyama, frozen_score, 4.0, uniform, 100),
            2.0,
        ),
    ]


def posterior_variance(model: Sphere, t: ndarray) -> ndarray:
    """Return ``E|x_0 - D|^2`` for times (T,)."""
    return data_loss(model, t) * np.expm1(t)


def over(moment: Callable[[Sphere, ndarray], ndarray], model: Sphere) -> Callable[[ndarray], ndarray]:
    """Return `moment` of `model` as a function of times of any shape."""
    return lambda t: moment(model, t.ravel()).reshape(t.shape)


def spheres(n: int) -> list[Claim]:
    """Codimension against dimension, on spheres from ``t = 1e-2`` to ``1e-6``."""
    times, errors = np.geomspace(1e-2, 1e-6, n + 1), {"score": 0.0, "data": 0.0}
    k = math.log(1e4) / n
    for d, m in ((2, 1), (8, 1), (8, 5)):
        model = Sphere(OU, d, m)
        score = path_of_score(over(score_energy, model), times, 3) / (0.5 * (d - m) * n * (k - 1 + math.exp(-k)))
        data = path_of_data(over(posterior_variance, model), times, 3) / (0.5 * m * n * (math.expm1(k) - k))
        errors = {"score": max(errors["score"], abs(score - 1)), "data": max(errors["data"], abs(data - 1))}
    return [
        below("three spheres, frozen score: path's KL follows the codimension, relative error", errors["score"], 0.02),
        below("three spheres, frozen data: path's KL follows the dimension, relative error", errors["data"], 0.02),
    ]


def sampled_path(model: GaussianMixture, n: int, samples: int, stream: Stream) -> float:
    """Return the path's KL with a frozen score down to ``t = 1e-3``, by Monte Carlo over forward paths."""
    x0, total = model.sample(samples, stream.child("data")), 0.0
    for i, (t, weight, start) in enumerate(zip(*within_steps(exponential(1e-3, n), 2), strict=True)):
        for j, (s, w) in enumerate(zip(t, weight, strict=True)):
            x = OU.perturb(x0, float(s), stream.child("there"), step=2 * i + j)[0]
            later = OU.perturb(x, float(start[0] - s), stream.child("back"), step=2 * i + j)[0]  # noise is a semigroup
            gap = model.score(x, float(s)) - model.score(later, float(start[0]))
            total += 0.5 * float(w) * float(gap.square().sum(1).mean())
    return total


def mixture(d: int, stream: Stream) -> GaussianMixture:
    """Return six isotropic Gaussians of random centres and widths in ``R^d``."""
    widths = 0.3 * torch.exp(0.3 * stream.child("stds").normal((6,), dtype=torch.float64))
    return GaussianMixture(OU, 0.6 * stream.child("means").normal((6, d), dtype=torch.float64), widths)


def dimension(quick: bool) -> list[Claim]:
    """Growth with the dimension, by sampling; the sampling is checked where the answer is known."""
    sizes, n, samples = ((4, 16, 64), 10, 128) if quick else ((4, 8, 16, 32, 64), 40, 512)
    streams = [Stream(seed, "isotropic mixture") for seed in range(5)]
    found = [slope(sizes, [sampled_path(mixture(d, s), n, samples, s) for d in sizes]).value for s in streams]
    one = GaussianMixture(OU, torch.zeros(1, 32, dtype=torch.float64), torch.full((1,), 0.5**0.5, dtype=torch.float64))
    known = 32 * gaussian_paths(exponential(1e-3, n), 0.5)[0]
    ratios = [sampled_path(one, n, samples, s) / known for s in streams]
    return [
        near("path's KL by sampling over its closed form, N(0, I/2) in R^32, five seeds", spread(ratios), 1.0, 0.02),
        near("isotropic mixtures, d = 4 to 64, five seeds: power of d in the path's KL", spread(found), 1.0, 0.1),
    ]


def panels() -> list[Panel]:
    """What the picture shows."""
    counts = [25, 50, 100, 200, 400, 800]

    def line(rows: Rows, grid: Callable[[float, int], ndarray], v: float) -> tuple[list[int], list[float]]:
        return counts, [divergence(rows, grid(1e-4, n), v) for n in counts]

    lines = {
        "frozen score, equal steps": line(frozen_score, uniform, THIN),
        "frozen score, exponential": line(frozen_score, exponential, THIN),
        "frozen data, exponential": line(frozen_data, exponential, THIN),
    }
    wide = {
        "frozen score": line(frozen_score, exponential, 0.5),
        "frozen data": line(frozen_data, exponential, 0.5),
        "Euler-Maruyama": line(euler_maruyama, exponential, 0.5),
    }
    return [
        Panel("v = 1e-6", "steps", "KL per coordinate", lines),
        Panel("v = 0.5", "steps", "KL per coordinate", wide),
    ]


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    claims = library() + grids() + rates() + what_to_freeze() + spheres(20 if quick else 60) + dimension(quick)
    return Study(claims, panels)


if __name__ == "__main__":
    sys.exit(main("kl_discretisation", __doc__, study))
