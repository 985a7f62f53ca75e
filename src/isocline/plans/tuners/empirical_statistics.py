r"""Empirical model statistics: three functions of the half log-SNR ``lam``, for each coordinate, measured on a model.

In the unscaled state ``y = x / alpha`` the probability-flow ODE is ``dy/dlam = D - y``. DPM-Solver-v3 (arXiv 2310.13268) writes it
with ``f = (1 - l) y - D`` as ``dy/dlam = -l y - f`` and chooses ``l``, ``s``, ``b`` (lam, event...) such that the first-order error
is least: what ``y`` decides of ``D``, and what ``f`` decides of its own derivative along the path, is integrated exactly,

    l = 1 - E diag(dD/dy)     the diagonal by Hutchinson's estimate E[v (dD/dy) v], v = +-1
    s = Cov(f, f') / Var(f) ,   b = E f' - s E f

coordinate by coordinate, over states on the model's own paths. ``f'`` is the total derivative,

    f' = -l' y + (1 - l) (D - y) - D' ,     D' = dD/dx . dx/dlam + dD/dt . dt/dlam ,

so the paths themselves are never differenced: both derivatives of the network are Jacobian-vector products. A path keeps its probes
``v`` at all nodes. Then the estimate of ``l`` is smooth and ``f'`` is the derivative of the ``f`` that is used; with fresh probes
``l'`` is mostly noise. ``l = 1``, ``s = 0`` is data prediction, ``l = 0``, ``s = -1`` noise prediction, both with ``b = 0``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from isocline._core import files
from isocline._core.errors import BadFile, InvalidInput, require
from isocline._core.stream import Stream
from isocline.plans.solvers.draft import Level, noise_step
from isocline.plans.tuners.calibration import NoiseSet
from isocline.processes import Denoiser, GaussianProcess
from isocline.processes.gaussian import match

ROUNDING = 1e-13  # a variance of f below this share of the mean squares that f is made of is rounding


@dataclass(frozen=True)
class Moments:
    """Means over paths of ``v = (y, D, D')``, of the products of its parts, and of ``diag(dD/dy)``, at each node.

    Args:
        lam: (m,) half log-SNR of the nodes, increasing.
        count: number of paths.
        gain: (m, event...) mean of the diagonal.
        first: (m, 3, event...) means of ``v``.
        second: (m, 3, 3, event...) means of ``v v^T``.
    """

    lam: Tensor
    count: int
    gain: Tensor
    first: Tensor
    second: Tensor

    def with_more(self, other: Moments) -> Moments:
        """Return the moments of both sets of paths, at the same nodes."""
        total = self.count + other.count
        share = other.count / total
        parts = ((getattr(self, name), getattr(other, name)) for name in ("gain", "first", "second"))
        return Moments(self.lam, total, *(a + share * (b - a) for a, b in parts))

    def derivative_error(self, statistics: EmpiricalStatistics) -> Tensor:
        """Return ``E (f' - s f - b)^2`` (m, event...) of these paths: the first-order error that the statistics leave."""
        f, slope = statistics.parts()
        rest = slope - statistics.s[:, None] * f
        square, mean = _form(rest, self.second, rest), _dot(rest, self.first)
        return square - 2 * statistics.b * mean + statistics.b**2


@dataclass(frozen=True)
class EmpiricalStatistics:
    """The functions ``l``, ``s``, ``b`` (m, event...) at increasing half log-SNR `lam` (m,); linear in between."""

    lam: Tensor
    l: Tensor
    s: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        m = len(self.lam)
        require(m >= 2 and bool((self.lam.diff() > 0).all()), "statistics need at least two increasing half log-SNRs")
        for name in ("l", "s", "b"):
            column = getattr(self, name)
            require(
                column.shape == self.l.shape and len(column) == m and column.dtype == torch.float64,
                f"statistics at {m} nodes need l, s and b of one shape ({m}, *event) in float64, got {name} of shape "
                f"{tuple(column.shape)} and {column.dtype}",
            )
            require(bool(torch.isfinite(column).all()), f"the statistics' {name} must be finite")

    @staticmethod
    def of(moments: Moments) -> EmpiricalStatistics:
        """Return the statistics that minimise the first-order error on the paths of `moments`."""
        l = 1 - moments.gain
        zero = torch.zeros_like(l)
        raw = EmpiricalStatistics(moments.lam, l, zero, zero)
        f, slope = raw.parts()
        mean_f, mean_slope = _dot(f, moments.first), _dot(slope, moments.first)
        variance = _form(f, moments.second, f) - mean_f**2
        covariance = _form(f, moments.second, slope) - mean_f * mean_slope
        sizes = torch.diagonal(moments.second, dim1=1, dim2=2).movedim(-1, 1)
        varies = variance > ROUNDING * _dot(f**2, sizes)
        s = torch.where(varies, covariance / torch.where(varies, variance, 1.0), 0.0)
        return EmpiricalStatistics(moments.lam, l, s, mean_slope - s * mean_f)

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return ``f`` and ``f'`` as combinations (m, 3, event...) of ``(y, D, D')``."""
        one, gain = torch.ones_like(self.l), 1 - self.l
        slope_of_l = torch.gradient(self.l, spacing=(self.lam,), dim=0)[0]
        f = torch.stack([gain, -one, torch.zeros_like(one)], dim=1)
        return f, torch.stack([-slope_of_l - gain, gain, -one], dim=1)

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``lam`` (2m-1,), ``b``, ``L = int l`` and ``S = int s`` (2m-1, event...) at the nodes and half way between them."""
        lam, l, s, b = (_with_middles(c) for c in (self.lam, self.l, self.s, self.b))
        return lam, b, _running_trapezoid(lam, l), _running_trapezoid(lam, s)

    def save(self, path: str | Path) -> Path:
        """Write the statistics as safetensors, atomically."""
        tables = {"lam": self.lam, "l": self.l, "s": self.s, "b": self.b}
        return files.write_tensors(path, tables, {"format": "isocline-statistics"})

    @staticmethod
    def load(path: str | Path) -> EmpiricalStatistics:
        """Read statistics; a file of another kind is refused."""
        tables, about = files.read_tensors(path)
        if about.get("format") != "isocline-statistics":
            raise BadFile(f"{path} does not say that it holds statistics")
        return EmpiricalStatistics(**tables)


def nearest_nodes(nodes: Tensor, lam: Tensor) -> list[int]:
    """Return the nearest of the `nodes` (m,) to each of the half log-SNRs `lam` (k,); both increase.

    Raises:
        InvalidInput: `lam` leaves the range of the nodes, or two of its entries fall on one node.
    """
    slack = 1e-6 * (nodes[-1] - nodes[0])
    require(
        bool((lam[0] >= nodes[0] - slack) & (lam[-1] <= nodes[-1] + slack)),
        f"the statistics cover half log-SNRs from {nodes[0]:.4g} to {nodes[-1]:.4g}, the grid needs {lam[0]:.4g} to "
        f"{lam[-1]:.4g}; measure them on a wider range",
    )
    index: list[int] = (lam[:, None] - nodes).abs().argmin(1).tolist()
    require(
        all(a < b for a, b in pairwise(index)),
        f"statistics at {len(nodes)} nodes are too coarse for {len(lam) - 1} steps: two times fall on one node; use more",
    )
    return index


def measure_moments(
    denoiser: Denoiser,
    noises: NoiseSet,
    times: Tensor,
    rng: Stream,
    *,
    probes: int = 1,
    first: int = 0,
    late: Callable[[], bool] = lambda: False,
) -> Moments | None:
    """Return moments at `times` (m,) along the paths that start at `noises` and take Heun's steps.

    A node takes ``1 + probes`` calls with a Jacobian-vector product each, and one more for the step to the next.

    Args:
        denoiser: the model; must allow forward differentiation.
        noises: start states at ``times[0]`` and their conditions.
        times: decreasing, with signal at the first and noise at the last.
        rng: source of the probes.
        probes: probes of the diagonal for each state.
        first: index of the first sample, so that probes do not depend on batches.
        late: asked before each node; where it says yes, the result is None.
    """
    rows, x, vs = [], noises.x, _probes(rng, noises.x, probes, first)
    for i, t in enumerate(times):
        if late():
            return None
        data, *row = _moments_at(denoiser, x, t, noises.cond, vs)
        rows.append(row)
        if i + 1 < len(times):
            x = _heun_step(denoiser, x, data, t, times[i + 1], noises.cond)
    means = (torch.stack(column) for column in zip(*rows, strict=True))
    return Moments(denoiser.process.half_log_snr(times), len(noises), *means)


@torch.no_grad()
def _heun_step(denoiser: Denoiser, x: Tensor, data: Tensor, t: Tensor, after: Tensor, cond: Any) -> Tensor:
    here, there = Level.at(denoiser.process, t), Level.at(denoiser.process, after)
    noise = (x - here.alpha * data) / here.sigma
    ahead = denoiser.predict(noise_step(x, here, there, noise), after, cond).eps
    return noise_step(x, here, there, (noise + ahead) / 2)


@torch.no_grad()
def _moments_at(
    denoiser: Denoiser, x: Tensor, t: Tensor, cond: Any, probes: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the data prediction and what `Moments` keeps of a node."""
    alpha, (dt, stretch) = match(denoiser.process.alpha(t), x), clock(denoiser.process, t)
    gain = torch.zeros(x.shape[1:], dtype=torch.float64)
    for v in probes:
        data, turned = jvp(denoiser, x, t, v, torch.zeros_like(t), cond)
        gain += (v * turned).double().mean(0).cpu() * float(alpha) / len(probes)
    y = x / alpha
    slope = jvp(denoiser, x, t, match(stretch, x) * y + alpha * (data - y), dt, cond)[1]
    parts = torch.stack([part.double().cpu() for part in (y, data, slope)])
    return data, gain, parts.mean(1), torch.einsum("ib...,jb...->ij...", parts, parts) / len(x)


def _probes(rng: Stream, x: Tensor, count: int, first: int) -> list[Tensor]:
    return [rng.rademacher(tuple(x.shape), step=k, first=first, dtype=x.dtype).to(x.device) for k in range(count)]


def clock(process: GaussianProcess, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``dt/dlam`` and ``dalpha/dlam`` at time `t`."""
    alpha_rate, sigma_rate = process.rates(t)
    dt = 1 / (alpha_rate / process.alpha(t) - sigma_rate / process.sigma(t))
    return dt, dt * alpha_rate


def jvp(denoiser: Denoiser, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
    """Return the data prediction (B, *) and its change along ``(dx, dt)``, by one forward pass with tangents.

    Raises:
        InvalidInput: the network has an operation without a forward derivative.
    """
    denoiser.vjps += 1
    try:
        with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():  # fused attention has no forward derivative
            dual = denoiser.predict(_dual(x, dx), _dual(t, dt), cond).x0
            data, tangent = forward_ad.unpack_dual(dual)
    except (NotImplementedError, RuntimeError) as error:
        if "forward" not in str(error).lower():
            raise
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"this tuner needs a network that can be differentiated forward: {reason}") from error
    return data, torch.zeros_like(data) if tangent is None else tangent


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    with warnings.catch_warnings():  # the first call loads a module of torch that uses what torch itself deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        dual: Tensor = forward_ad.make_dual(value, tangent)
    return dual


def _dot(a: Tensor, first: Tensor) -> Tensor:
    return (a * first).sum(1)


def _form(a: Tensor, second: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("mi...,mij...,mj...->m...", a, second, b)


def _with_middles(column: Tensor) -> Tensor:
    middles = (column[1:] + column[:-1]) / 2
    paired = torch.stack([column[:-1], middles], dim=1).flatten(0, 1)
    return torch.cat([paired, column[-1:]])


def _running_trapezoid(lam: Tensor, values: Tensor) -> Tensor:
    width = lam.diff().reshape(-1, *([1] * (values.ndim - 1)))
    return torch.cat([torch.zeros_like(values[:1]), ((values[1:] + values[:-1]) / 2 * width).cumsum(0)])
