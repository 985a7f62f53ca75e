r"""Exact beds for comparing samplers: a mixture with its process, start noises and the ODE's true end states.

The probability-flow ODE is integrated with DOP853 in two parts. With ``y = x / alpha``, ``s = sigma / alpha``, ``lam = -log s``,

    down to t_min    d(y / s)/dlam = D / s        (the data prediction is bounded, nothing cancels)
    from there to 0  dy/d(s^2/2)   = -alpha score (regular at s = 0, as every component has a width)

A second run with a tolerance a hundred times looser says how far the reference can be trusted. References are stored in a folder
that the caller names, under a key made of everything that decides them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from isocline._core import files
from isocline._core.stream import Stream
from isocline.processes import VariancePreserving
from isocline.processes.exact import GaussianMixture

End = Literal["t_min", "zero"]
ENDS: tuple[End, ...] = ("t_min", "zero")
PROCESS = VariancePreserving()
TIGHT, LOOSE = 1e-12, 1e-10
CHUNK = 512  # states a model call is given: their distances to all components stay in the cache


@dataclass(frozen=True)
class Bed:
    """A name, the figure that decides on it, and what makes its exact denoiser."""

    name: str
    figure: str
    build: Callable[[], GaussianMixture]

    @cached_property
    def model(self) -> GaussianMixture:
        """The exact denoiser."""
        return self.build()

    @cached_property
    def std(self) -> float:
        """Root mean square of a coordinate of the data."""
        model = self.model
        second = model.means.double().square().mean(1) + model.stds**2
        return math.sqrt(float(model.weights @ second))


def mixture(d: int, components: int, seed: int) -> GaussianMixture:
    """Return equally likely components at standard normal places, widths log-uniform from 0.05 to 0.3."""
    stream = Stream(seed, f"gmm{d}")
    means = stream.child("means").normal((components, d), dtype=torch.float64)
    share = stream.child("stds").uniform((components,), dtype=torch.float64)
    return GaussianMixture(PROCESS, means, 0.05 * 6.0**share)


class CircleMixture(GaussianMixture):
    """The circle bed with the same denoiser at a third of the cost.

    Its components share weight, width and distance from 0, which drop out of the exponent ``k cos(angle)``. A sum of that over
    evenly spaced angles is the same to rounding for any number ``m`` of them with ``m^2`` well above ``80 k``, so that at high
    noise a few components stand for all.
    """

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        var = alpha**2 * self.stds[0] ** 2 + sigma**2
        plane = x[:, :2]
        means = self.means[:: self._stride(float(alpha / var * plane.norm(dim=1).max())), :2]
        centre = torch.softmax(plane @ (alpha / var * means.T), -1) @ means
        mean = alpha * self.stds[0] ** 2 / var * x
        mean[:, :2] += sigma**2 / var * centre
        return mean

    def _stride(self, k: float) -> int:
        stride, count = 1, len(self.means)
        while count % (2 * stride) == 0 and (count / (2 * stride)) ** 2 > 80 * k + 400:
            stride *= 2
        return stride


def circle() -> GaussianMixture:
    return CircleMixture.circle_bed(PROCESS)


BEDS = (
    Bed("circle16", "rms", circle),
    Bed("gmm2", "median", lambda: mixture(2, 8, seed=0)),
    Bed("gmm64", "median", lambda: mixture(64, 10, seed=0)),
)


@dataclass(frozen=True)
class Problem:
    """Start states (N, d) with the true end states, and how much a looser tolerance moves them."""

    bed: Bed
    start: Tensor
    seeds: int
    targets: dict[End, Tensor]
    doubt: dict[End, float]

    def errors(self, x: Tensor, end: End) -> Tensor:
        """Return the RMS error (N,) of each sample over its coordinates."""
        return (x.double() - self.targets[end]).square().mean(1).sqrt()


def problem(bed: Bed, samples: int, seeds: int, folder: Path) -> Problem:
    """Return `samples` fresh starts for each of `seeds` seeds with their references, from `folder` where they are stored."""
    draws = [Stream(seed, f"starts of {bed.name}") for seed in range(seeds)]
    start = torch.cat([PROCESS.terminal((samples, *bed.model.event), draw, dtype=torch.float64) for draw in draws])
    path = folder / "references" / f"{bed.name}-{seeds}x{samples}-{_key(bed, start)}.json"
    if path.exists():
        stored = files.read_json(path)
        targets = {end: torch.tensor(stored[end], dtype=torch.float64) for end in ENDS}
        return Problem(bed, start, seeds, targets, stored["doubt"])
    tight, loose = (_integrate(bed.model, start, tolerance) for tolerance in (TIGHT, LOOSE))
    doubt = {end: float((tight[end] - loose[end]).abs().max()) for end in ENDS}
    files.write_json(path, {**{end: tight[end].tolist() for end in ENDS}, "doubt": doubt})
    return Problem(bed, start, seeds, tight, doubt)


def _key(bed: Bed, start: Tensor) -> str:
    parts = (bed.model.means, bed.model.stds, bed.model.weights, start)
    text = b"".join(part.double().numpy().tobytes() for part in parts) + f"{PROCESS.describe()} {TIGHT}".encode()
    return hashlib.sha256(text).hexdigest()[:12]


def _integrate(model: GaussianMixture, start: Tensor, tolerance: float) -> dict[End, Tensor]:
    found = [_flow(model, part, tolerance) for part in start.split(CHUNK)]
    return {end: torch.cat([part[i] for part in found]) for i, end in enumerate(ENDS)}


def _flow(model: GaussianMixture, x: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the states at t_min and at 0."""
    first, last = (float(PROCESS.half_log_snr(t)) for t in (PROCESS.t_max, PROCESS.t_min))

    def scaled(lam: float, z: Tensor) -> Tensor:
        t = PROCESS.time_of(lam)
        return model(PROCESS.sigma(t) * z, t) * math.exp(lam)

    def unscaled(q: float, y: Tensor) -> Tensor:
        t = PROCESS.time_of_noise_level(math.sqrt(max(2 * q, 0.0)))
        alpha = PROCESS.alpha(t)
        return -alpha * model.score(alpha * y, t)

    z = _solve(scaled, (first, last), x / PROCESS.sigma(PROCESS.t_max), tolerance)
    s = math.exp(-last)
    return PROCESS.sigma(PROCESS.t_min) * z, _solve(unscaled, (0.5 * s**2, 0.0), s * z, tolerance)


def _solve(slope: Callable[[float, Tensor], Tensor], span: tuple[float, float], y: Tensor, tolerance: float) -> Tensor:
    def flat(t: float, v: np.ndarray) -> np.ndarray:
        return slope(t, torch.from_numpy(v).reshape(y.shape)).numpy().ravel()

    solution = solve_ivp(flat, span, y.numpy().ravel(), method="DOP853", rtol=tolerance, atol=tolerance)
    if not solution.success:
        raise RuntimeError(f"the reference failed: {solution.message}")
    return torch.from_numpy(solution.y[:, -1]).reshape(y.shape)
