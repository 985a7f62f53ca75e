r"""Log-likelihood by the probability-flow ODE (Song et al., arXiv 2011.13456; the change of variables of FFJORD, 1810.01367).

The state ``u = x / q`` with ``q^2 = alpha^2 + sigma^2`` has the same size at all times, and as a function of the angle
``theta = atan2(sigma, alpha)`` it obeys

    du/dtheta = (alpha u - q D) / sigma ,      div = (alpha d - q^2 tr dD/dx) / sigma ,

for every process, also where nothing of the datum is left (``alpha = 0``). From the datum ``x`` at the last time ``t_0`` up to
``x_T`` at the first one,

    log p_{t_0}(x) = log p_T(x_T) + d log(q_T / q_{t_0}) + int div dtheta .

``log p_T`` is the law that sampling starts from, ``N(0, sigma_T^2 I)``: the result is the density of the samples of the ODE. The
noised data have another law at ``t = T``, their mean being ``alpha_T`` times that of the data; a mean ``m`` shifts the result by
about ``m z alpha_T / sigma_T`` with ``z`` of order 1 in each coordinate, which is 1 percent of ``m`` for EDM at ``T = 80``.

The integral is taken by the classical Runge-Kutta method on a given grid, and once more on every second time of it; the
difference divided by 15 estimates the error of the finer one. The trace is exact, from ``d`` vector-Jacobian products, or
Hutchinson's ``v^T (dD/dx) v`` with signs ``v`` that are drawn once and kept for the whole solve.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.processes import Denoiser, GaussianProcess, PoissonFlow
from isocline.processes.gaussian import match

LIKELIHOOD = Method(
    "probability-flow-likelihood",
    "Probability-flow likelihood",
    "Score-Based Generative Modeling through Stochastic Differential Equations",
    "Yang Song, Jascha Sohl-Dickstein, Diederik P. Kingma, Abhishek Kumar, Stefano Ermon, Ben Poole",
    2020,
    "2011.13456",
    room="plans",
    when="The density of single data under a trained model, with the error of the integration; not for comparing samples.",
)


class Trace(Protocol):
    """How the trace of a Jacobian ``J`` is had from products ``v^T J``."""

    def directions(self, x: Tensor) -> Tensor:
        """Return the ``v`` (K, B, *) for states `x` (B, *)."""
        ...

    def pool(self, products: Tensor) -> Tensor:
        """Return estimates of the trace (P, B) from the ``v^T J v`` (K, B)."""
        ...

    def standard_error(self, values: Tensor) -> Tensor:
        """Return the standard error (B,) of the mean of results (P, B)."""
        ...


@dataclass(frozen=True)
class ExactTrace:
    """The trace from one product for each of the ``d`` coordinates: for low dimension."""

    def directions(self, x: Tensor) -> Tensor:
        """Return the unit vectors (d, B, *)."""
        d = x[0].numel()
        return torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:]).expand(d, *x.shape)

    def pool(self, products: Tensor) -> Tensor:
        """Return their sum (1, B)."""
        return products.sum(0, keepdim=True)

    def standard_error(self, values: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros_like(values[0])


@dataclass(frozen=True)
class Hutchinson:
    """Unbiased estimates of the trace, one for each probe of random signs; a probe is kept for the whole solve.

    Args:
        probes: how many; a standard error needs two.
        rng: stream or seed of the signs.
        first: index of the first sample, so that a part of a batch gets the signs it has in the whole.
    """

    probes: int
    rng: Stream | int
    first: int = 0

    def __post_init__(self) -> None:
        require(self.probes >= 1, f"Hutchinson's estimate needs at least one probe, got {self.probes}")

    def directions(self, x: Tensor) -> Tensor:
        """Return the signs (probes, B, *)."""
        rng, shape = as_stream(self.rng, "probes"), tuple(x.shape)
        signs = [rng.rademacher(shape, step=k, first=self.first, dtype=x.dtype) for k in range(self.probes)]
        return torch.stack(signs).to(x.device)

    def pool(self, products: Tensor) -> Tensor:
        """Return them as they are, one estimate a probe."""
        return products

    def standard_error(self, values: Tensor) -> Tensor:
        """Return ``s / sqrt(probes)``, infinite for a single probe."""
        n = len(values)
        return values.std(0) / math.sqrt(n) if n > 1 else torch.full_like(values[0], math.inf)


@dataclass(frozen=True)
class LogLikelihood:
    """The result of `log_likelihood`.

    Attributes:
        value: (B,) ``log p`` in nats, float64.
        error: (B,) estimated error of the integration, for steps small enough that it falls with their fourth power.
        standard_error: (B,) of the mean over probes; 0 for an exact trace, infinite for a single probe.
        latent: (B, *) states at the first time.
        cost: network calls and products for each sample, seconds.
    """

    value: Tensor
    error: Tensor
    standard_error: Tensor
    latent: Tensor
    cost: Cost


@LIKELIHOOD.variant(order=4)
@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    *,
    trace: Trace | None = None,
    cond: Any = None,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> LogLikelihood:
    """Return the log density of data `x` (B, *), taken as states at the last time, with its error. Order 4.

    Costs six evaluations of the trace a step, two of them for the error; an evaluation makes ``d`` products, or one for each
    probe, and each product a call.

    Args:
        denoiser: any denoiser whose data prediction is finite at the first time.
        x: (B, *) data in the model's own scale; float64 for exact work.
        times: (n+1,) decreasing times with even ``n``, from any grid; the last one has noise.
        trace: `ExactTrace` by default, or `Hutchinson`.
        cond: passed to the denoiser.
        prior: log density (B,) of states (B, *) at the first time; that of the process's starts by default.

    Raises:
        InvalidInput: times that do not fall, an odd number of steps, or a last time without noise.
        NotFinite: a result is NaN or infinite.

    Examples:
        >>> from isocline.plans.grids import uniform
        >>> from isocline.processes import GaussianMixture, RectifiedFlow
        >>> model = GaussianMixture(RectifiedFlow(), torch.zeros(1, 2), torch.ones(1))  # N(0, I) in the plane
        >>> found = log_likelihood(model, torch.zeros(1, 2, dtype=torch.float64), uniform(model.process, 16))
        >>> round(float(found.value), 2), bool(found.error < 1e-4)  # -log(2 pi), at a time of almost no noise
        (-1.84, True)
    """
    process, times = denoiser.process, torch.as_tensor(times, dtype=torch.float64)
    _check(process, x, times)
    trace = trace or ExactTrace()
    calls, vjps, start = denoiser.calls, denoiser.vjps, time.perf_counter()
    flow = _Flow(denoiser, cond, trace, trace.directions(x), prior)
    (fine, latent), (coarse, _) = flow.run(x, times), flow.run(x, times[::2])
    if not bool(fine.isfinite().all()):
        raise NotFinite("a log-likelihood is NaN or infinite; check the scale of the data, or use a finer grid")
    cost = Cost(denoiser.calls - calls, denoiser.vjps - vjps, time.perf_counter() - start)
    error = (fine - coarse).mean(0).abs() / 15
    return LogLikelihood(fine.mean(0), error, trace.standard_error(fine), latent, cost)


def start_log_density(process: GaussianProcess, x: Tensor, t: Tensor | float) -> Tensor:
    """Return the log density (B,) of start states `x` (B, *) at time `t`: noise of the process times ``sigma``, float64."""
    sigma, d = process.sigma(t).double(), x[0].numel()
    z = x.flatten(1).double() / sigma
    if isinstance(process, PoissonFlow):
        return process.noise_log_density(z) - d * torch.log(sigma)
    return -0.5 * z.square().sum(1) - d * (0.5 * math.log(2 * math.pi) + torch.log(sigma))


class _Flow(NamedTuple):
    """The equation of ``u`` and of the logarithm of its density, in the angle."""

    denoiser: Denoiser
    cond: Any
    trace: Trace
    directions: Tensor
    prior: Callable[[Tensor], Tensor] | None

    def run(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log densities (P, B) of data `x` at the last time, and the states at the first."""
        process = self.denoiser.process
        size = torch.hypot(process.alpha(times), process.sigma(times))
        d, u, gain = x[0].numel(), x / match(size[-1], x), torch.zeros((), dtype=torch.float64)
        for here, there in zip(times.flip(0)[:-1], times.flip(0)[1:], strict=True):
            u, change = self.step(u, here, there)
            gain = gain + change
        x = u * match(size[0], x)
        start = self.prior(x).double() if self.prior else start_log_density(process, x, times[0])
        return start + d * torch.log(size[0] / size[-1]) + gain, x

    def step(self, u: Tensor, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state after a step of the classical Runge-Kutta method, and the integral of the divergence."""
        process = self.denoiser.process
        low, high = (torch.atan2(process.sigma(t), process.alpha(t)) for t in (here, there))
        h, middle = high - low, process.time_of(-torch.log(torch.tan((low + high) / 2)))
        k = h.to(u)
        slope1, div1 = self.slope(u, here)
        slope2, div2 = self.slope(u + k / 2 * slope1, middle)
        slope3, div3 = self.slope(u + k / 2 * slope2, middle)
        slope4, div4 = self.slope(u + k * slope3, there)
        u = u + k / 6 * (slope1 + 2 * slope2 + 2 * slope3 + slope4)
        return u, h / 6 * (div1 + 2 * div2 + 2 * div3 + div4)

    def slope(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``du/dtheta`` (B, *) and its divergence (P, B), float64."""
        alpha, sigma = self.denoiser.process.alpha(t), self.denoiser.process.sigma(t)
        size = torch.hypot(alpha, sigma)
        x, products = u * match(size, u), []
        for v in self.directions:
            prediction, product = self.denoiser.vjp(x, t, v, self.cond)
            products.append((v * product).flatten(1).double().sum(1))
        slope = match(alpha / sigma, u) * u - match(size / sigma, u) * prediction.x0
        return slope, (alpha * u[0].numel() - size**2 * self.trace.pool(torch.stack(products))) / sigma


def _check(process: GaussianProcess, x: Tensor, times: Tensor) -> None:
    require(
        x.is_floating_point() and x.ndim >= 2, f"data must be floating point (B, *), got {x.dtype} {tuple(x.shape)}"
    )
    falling = times.ndim == 1 and len(times) >= 3 and bool((times.diff() < 0).all())
    require(falling, "a likelihood needs at least three strictly decreasing times, from noise to data")
    require(len(times) % 2 == 1, f"a likelihood needs an even number of steps for its error, got {len(times) - 1}")
    require(
        float(process.sigma(times[-1])) > 0, 'data have no density at a time without noise; end the grid at "t_min"'
    )
