r"""A DDIM for non-linear forward processes: what its look-back must be, and how its error grows.

    python studies/restoration_degradation.py [--quick] [--json] [--picture FILE]

Forward ``dx = F(x) dt + g dW`` with any drift. A step of length ``h`` looks back a time ``l > h`` (Chen, Daras and Dimakis,
arXiv 2303.03384; written out here from its description, constants derived here): one gradient step on the likelihood of the state
at ``t - l`` restores, and the forward process, with the noise that points back to ``x``, degrades:

    x^ = x - l F(x) + l g^2 score(x, t),    z = (x - x^ - l F(x^)) / (g sqrt(l)),    x' = x^ + (l - h) F(x^) + g sqrt(l - h) z.

Expanded, ``x' - x = -h (F(x) + F(x^)) / 2 + l (1 - sqrt(1 - h / l)) g^2 score``. With ``l = c h`` this follows, as ``h -> 0``, a
flow whose score is too strong by a factor ``2 c (1 - sqrt(1 - 1 / c))``; with fixed ``l`` half of the drift is that of another
state. Neither converges. With ``l ~ sqrt(h)`` both errors are of order ``sqrt(h)``, and so is their sum.

With linear drift the kernels are exact. In ``y = x / alpha`` at noise level ``s``, looking back to level ``q`` on the way to ``t``,

    y^ = D + (q / s)^2 (y - D),    y' = y^ + sqrt((t^2 - q^2) / (s^2 - q^2)) (y - y^) ;

``q = 0`` is DDIM, any ``q`` below ``t`` by a factor converges, and ``q = t`` (no look-back beyond the step) does not.

In one dimension the exact flow maps quantiles to quantiles, so the reference needs no solver, and the 1-Wasserstein distance is
the mean distance of sorted samples. Scores of non-linear processes come from a Fokker-Planck solve.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy import ndarray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core.stream import Stream
from isocline.plans import grids, solvers
from isocline.processes import EDM, GaussianMixture
from studies.verdict import Claim, Panel, Study, above, below, main, near, slope

STOP = 0.25  # where sampling ends
NOISE = 1.0  # g
Value = TypeVar("Value", ndarray, float)
LookBack = Callable[[float], float]
Field = Callable[[ndarray], ndarray]
LOOK_BACKS: dict[str, LookBack] = {
    "sqrt(h)/2": lambda h: math.sqrt(h) / 2,
    "2h": lambda h: 2 * h,
    "8h": lambda h: 8 * h,
    "0.1": lambda h: 0.1,
}


def step(x: Value, drift: Callable[[Value], Value], score: Value, h: float, l: float) -> Value:
    """Return the state a time `h` earlier, from the `score` at `x` and a look-back `l`."""
    restored = x - l * drift(x) + l * NOISE**2 * score
    z = (x - restored - l * drift(restored)) / (NOISE * math.sqrt(l))
    return restored + (l - h) * drift(restored) + NOISE * math.sqrt(l - h) * z


def linear(x: Value) -> Value:
    """The Ornstein-Uhlenbeck drift."""
    return -x / 2


def double_well(x: ndarray) -> ndarray:
    """A double well with slopes in [-1, 1]: minima at ±1.915."""
    return 2 * np.tanh(x) - x


def cubic(x: ndarray) -> ndarray:
    """The usual double well, whose drift is not Lipschitz."""
    return x - x**3


def two_bumps(x: ndarray) -> ndarray:
    """The data: two Gaussians of standard deviation 0.4, up to a factor."""
    return 0.65 * np.exp(-((x + 1) ** 2) / 0.32) + 0.35 * np.exp(-((x - 1.2) ** 2) / 0.32)


class FokkerPlanck:
    """The law of ``dx = F dt + g dW`` on an interval without flux through its ends.

    Chang-Cooper fluxes (J. Comput. Phys. 6, 1970) in the exponential form of Scharfetter and Gummel keep the stationary law exactly
    and make the generator symmetric after division by its root, so eigenvectors give the law at any time without a time step.

    Args:
        drift: ``F`` on an array.
        start: density of the data, up to a factor.
        width: the interval is ``[-width, width]``.
        cells: their number; the error falls with its square.
        modes: eigenvectors kept; those left out have decayed.
    """

    def __init__(self, drift: Field, start: Field, width: float = 5.0, cells: int = 2000, modes: int = 100) -> None:
        self.drift, self.edges = drift, np.linspace(-width, width, cells + 1)
        self.size = 2 * width / cells
        self.x = self.edges[:-1] + self.size / 2
        rate = NOISE**2 / 2 / self.size**2
        w = drift(self.edges[1:-1]) * self.size / (NOISE**2 / 2)
        forth, back = rate * bernoulli(-w), rate * bernoulli(w)  # jumps to the right and to the left across inner edges
        self.decay, self.vectors = eigh_tridiagonal(
            np.append(forth, 0) + np.append(0, back), -np.sqrt(forth * back), select="i", select_range=(0, modes - 1)
        )
        log_law = np.append(0, np.cumsum(np.log(forth / back)))
        self.root = np.exp((log_law - log_law.max()) / 2)
        self.parts = self.vectors.T @ (start(self.x) / start(self.x).sum() / self.size / self.root)

    def density(self, times: ndarray) -> ndarray:
        """Return the density (T, cells) at times (T,)."""
        return (np.exp(-np.outer(times, self.decay)) * self.parts) @ self.vectors.T * self.root

    def score(self, times: ndarray) -> ndarray:
        """Return the score (T, cells)."""
        return np.gradient(np.log(np.maximum(self.density(times), 1e-300)), self.size, axis=1)

    def quantile(self, u: ndarray, t: float) -> ndarray:
        """Return the quantiles (B,) at levels `u` (B,)."""
        mass = np.append(0, np.cumsum(self.density(np.array([t]))[0]))
        return np.interp(u, mass / mass[-1], self.edges)


def bernoulli(w: ndarray) -> ndarray:
    """Return ``w / (exp(w) - 1)``."""
    small = np.abs(w) < 1e-6
    safe = np.where(small, 1.0, w)
    return np.where(small, 1 - w / 2, safe / np.expm1(safe))


def sample(law: FokkerPlanck, span: float, h: float, l: float, u: ndarray) -> ndarray:
    """Return the states at ``STOP`` (B,) of runs from the quantiles `u` (B,) of the law a time `span` later."""
    times = STOP + span - h * np.arange(round(span / h))
    x = law.quantile(u, STOP + span)
    for part in np.array_split(times, -(-len(times) // 256)):
        for score in law.score(part):
            x = step(x, law.drift, np.interp(x, law.x, score), h, l)
    return x


def error(law: FokkerPlanck, span: float, h: float, look_back: LookBack, particles: int = 200) -> float:
    """Return the 1-Wasserstein distance of the samples from the law at ``STOP``."""
    u = (np.arange(particles) + 0.5) / particles
    return float(np.abs(np.sort(sample(law, span, h, look_back(h), u)) - law.quantile(u, STOP)).mean())


def gaussian_error(v: float, span: float, h: float, look_back: LookBack) -> float:
    """Return the relative error of the standard deviation on data ``N(0, v)`` with linear drift: everything is linear there."""
    x = 1.0
    for t in (STOP + span - h * np.arange(round(span / h))).tolist():
        x = step(x, linear, -x / variance(v, t), h, look_back(h))
    return abs(x / math.sqrt(variance(v, STOP) / variance(v, STOP + span)) - 1)


def variance(v: float, t: float) -> float:
    """Return the variance of ``x_t`` for data ``N(0, v)``."""
    return 1 + (v - 1) * math.exp(-t)


def bias(v: float, span: float, ratio: float | None, l: float = 0.0) -> float:
    """Return the closed form of `gaussian_error` as ``h -> 0``: for ``l = ratio h``, or for fixed `l` where `ratio` is None.

    With ``I = int dt / Sigma`` the former multiplies the state by ``exp((1 - w) I / 2)``, ``w`` the weight of the score, the latter
    by ``exp(l (span / 8 - I / 4))``.
    """
    integral = math.log((math.exp(STOP + span) + v - 1) / (math.exp(STOP) + v - 1))
    if ratio is None:
        return abs(math.expm1(l * (span / 8 - integral / 4)))
    return abs(math.expm1((1 - 2 * ratio * (1 - math.sqrt(1 - 1 / ratio))) * integral / 2))


def finest(h: Sequence[float], errors: Sequence[float]) -> float:
    """Return the order between the two smallest steps."""
    return math.log(errors[-2] / errors[-1]) / math.log(h[-2] / h[-1])


def on_gaussians() -> list[Claim]:
    """Linear drift, one gradient step."""
    v, span, ladder = 0.25, 2.0, [2.0**-k for k in range(5, 13)]
    errors = {name: [gaussian_error(v, span, h, rule) for h in ladder] for name, rule in LOOK_BACKS.items()}
    order = slope(ladder, errors["sqrt(h)/2"])
    stalls = {"2h": bias(v, span, 2.0), "8h": bias(v, span, 8.0), "0.1": bias(v, span, None, 0.1)}
    claims = [near("Gaussian data, l = sqrt(h)/2: order", order, 0.5, 0.15)]
    for name, limit in stalls.items():
        claims.append(
            below(f"Gaussian data, l = {name}: order at the smallest steps", finest(ladder, errors[name]), 0.1)
        )
        closeness = errors[name][-1] / limit
        claims.append(near(f"Gaussian data, l = {name}: error over its closed form {limit:.4f}", closeness, 1.0, 0.05))
    small = "the same for v = 4, T = 8 to 32 (below, two errors cancel in part)"
    return [
        *claims,
        below(
            "Gaussian data, l = sqrt(h)/2, v = 1/4: power of the error in T, T = 1 to 16",
            gaussian_growth(v, (1.0, 2.0, 4.0, 8.0, 16.0)),
            1.1,
        ),
        below(small, gaussian_growth(4.0, (8.0, 16.0, 32.0)), 1.1),
    ]


def gaussian_growth(v: float, spans: tuple[float, ...]) -> float:
    """Return the power of the error in the time span, with ``l = sqrt(h)/2``."""
    return slope(spans, [gaussian_error(v, span, 2.0**-10, LOOK_BACKS["sqrt(h)/2"]) for span in spans]).value


def the_solver() -> list[Claim]:
    """The Fokker-Planck solve against a law that is known, and against itself."""
    law, t = FokkerPlanck(linear, two_bumps, width=8.0, cells=3200), 0.7
    a, width = math.exp(-t / 2), 0.16 * math.exp(-t) - math.expm1(-t)
    bumps = [np.exp(-((law.x - a * m) ** 2) / (2 * width)) / math.sqrt(2 * math.pi * width) for m in (-1.0, 1.2)]
    exact = 0.65 * bumps[0] + 0.35 * bumps[1]
    inside = exact > 1e-6
    known = np.abs(law.density(np.array([t]))[0] / exact - 1)[inside].max()
    u = (np.arange(200) + 0.5) / 200
    coarse, fine = (
        sample(FokkerPlanck(double_well, two_bumps, cells=n), 1.0, 2.0**-6, 1 / 16, u) for n in (1000, 2000)
    )
    return [
        below("score solve, linear drift: relative error of the density where it exceeds 1e-6", float(known), 2e-4),
        below(
            "score solve, double well: W1 between runs with 1000 and 2000 cells", float(abs(coarse - fine).mean()), 2e-4
        ),
    ]


def on_double_wells(quick: bool) -> list[Claim]:
    """Non-linear drift."""
    ladder = [2.0**-k for k in ((5, 7, 9, 11) if quick else (5, 7, 9, 11, 13))]
    law, steep = FokkerPlanck(double_well, two_bumps), FokkerPlanck(cubic, two_bumps, width=3.0)
    errors = {name: [error(law, 1.0, h, rule) for h in ladder] for name, rule in LOOK_BACKS.items()}
    best = errors["sqrt(h)/2"]
    order, rough = slope(ladder, best), [error(steep, 1.0, h, LOOK_BACKS["sqrt(h)/2"]) for h in ladder]
    spans = (1.0, 2.0, 4.0, 8.0, 16.0)
    growth = slope(spans, [error(law, s, 2.0 ** -(7 if quick else 9), LOOK_BACKS["sqrt(h)/2"]) for s in spans]).value
    return [
        near("double well, l = sqrt(h)/2: order in W1", order, 0.5, 0.15),
        below("double well, l = sqrt(h)/2: W1 at the smallest step", best[-1], 0.01),
        *(
            below(f"double well, l = {name}: order at the smallest steps", finest(ladder, errors[name]), 0.15)
            for name in ("2h", "8h", "0.1")
        ),
        below("double well, l = sqrt(h)/2: power of W1 in T, T = 1 to 16", growth, 1.1),
        above("cubic double well, l = sqrt(h)/2: order at the smallest steps", finest(ladder, rough), 0.35),
    ]


def exact_kernel_step(y: Tensor, data: Tensor, s: float, t: float, q: float) -> Tensor:
    """Return the state at level `t` from `y` (B, d) at level `s`, looking back to level `q`, for linear drift."""
    restored = data + (q / s) ** 2 * (y - data)
    return restored + math.sqrt((t**2 - q**2) / (s**2 - q**2)) * (y - restored)


def exact_kernels() -> list[Claim]:
    """Linear drift with exact kernels, on a smooth mixture in eight dimensions."""
    process = EDM(t_min=0.02, t_max=20.0)
    model = GaussianMixture.smooth_bed(process)
    start = process.terminal((64, 8), Stream(0, "restoration"), dtype=torch.float64)
    fine = solvers.exponential_adams(process, grids.log_snr(process, 400), order=4).run(model, start).x

    def run(n: int, share: float) -> Tensor:
        levels, y = grids.log_snr(process, n).tolist(), start
        for s, t in pairwise(levels):
            y = exact_kernel_step(y, model.predict(y, s).x0, s, t, share * t)
        return y

    ddim = solvers.ddim(process, grids.log_snr(process, 20)).run(model, start).x
    counts = (60, 120, 240)

    def order(share: float) -> float:
        return -slope(counts, [float((run(n, share) - fine).square().mean().sqrt()) for n in counts]).value

    return [
        below(
            "exact kernels, look-back to time 0: largest distance from DDIM",
            float((run(20, 0.0) - ddim).abs().max()),
            1e-12,
        ),
        near("exact kernels, look-back to half the next noise level: order", order(0.5), 1.0, 0.15),
        below("exact kernels, look-back to the next level itself: order", order(1.0), 0.1),
    ]


def panels() -> list[Panel]:
    """What the picture shows."""
    ladder = [2.0**-k for k in range(6, 12)]
    law = FokkerPlanck(double_well, two_bumps)
    lines = {
        f"l = {name}": (ladder, [gaussian_error(0.25, 2.0, h, rule) for h in ladder])
        for name, rule in LOOK_BACKS.items()
    }
    wells = {f"l = {name}": (ladder, [error(law, 1.0, h, rule) for h in ladder]) for name, rule in LOOK_BACKS.items()}
    return [Panel("Gaussian data", "h", "relative error", lines), Panel("Double well", "h", "W1", wells)]


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    return Study(on_gaussians() + the_solver() + on_double_wells(quick) + exact_kernels(), panels)


if __name__ == "__main__":
    sys.exit(main("restoration_degradation", __doc__, study))
