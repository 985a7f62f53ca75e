r"""Latent SDEs: irregular observations explained by a hidden diffusion (Li, Wong, Chen and Duvenaud, arXiv 2001.01328).

    prior      dz = h(t, z) dt + g(z) dW ,        z0 ~ N(0, 1)
    posterior  dz = f(t, z, c(t)) dt + g(z) dW ,  z0 ~ N(mu, diag exp(v))
    x(t) ~ N(decoder(z(t)), s^2)

    ELBO = E sum_observed log N(x | decoder(z), s^2) - beta (KL(z0) + 1/2 int |(f - h) / g|^2 dt)

Both have the same diffusion g, without which the divergence of paths would be infinite; each of its coordinates depends on its own
coordinate of z. The context c(t) is what a recurrent network, reading backwards, knows at the next observation; behind the last one
there is nothing to know and the posterior drifts like the prior. The divergence is integrated beside the state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.integrators import SDE, Gradient, SaveAt, StochasticHeun, integrate
from isocline.networks import MLP
from isocline.timeseries.models.latent_ode import Posterior, gaussian_log_likelihood, observed_times

METHOD = Method(
    "latent-sde",
    "Latent SDE",
    "Scalable Gradients for Stochastic Differential Equations",
    "Li, Wong, Chen, Duvenaud",
    2020,
    "2001.01328",
    room="timeseries.models",
    when="Noisy dynamics with irregular or missing observations, of which a law over whole paths is wanted.",
)
NEAR = 1e-6  # relative: times that are nearer than that are the same
SMALLEST = 1e-2  # of the diffusion: the divergence divides by it


class Context(NamedTuple):
    """What the encoder knows.

    Args:
        times: of the observations, (B, T), NaN where nothing was observed.
        states: at each of them, of what comes from there on, (B, T, w).
        first: law of the first latent state.
    """

    times: Tensor
    states: Tensor
    first: Posterior

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state at the next observation, (B, w), and whether there is one, (B, 1)."""
        ahead = self.times >= t - NEAR * t.abs()
        known = ahead.any(1)
        place = torch.where(known, ahead.int().argmax(1), 0)
        return self.states[torch.arange(len(place)), place], known[:, None]


class Backwards(nn.Module):
    """A gated recurrent unit that reads observations backwards in time and keeps all its states.

    Args:
        channels: C.
        latent: size of the latent state.
        width: size of its hidden state.
    """

    def __init__(self, channels: int, latent: int, width: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2 * channels + 1, width)
        self.head = nn.Linear(width + 1, 2 * latent)

    def forward(self, times: Tensor, values: Tensor, start: float) -> Context:
        """Return the context of times (B, T), NaN where nothing was observed, and values (B, T, C)."""
        seen = ~values.isnan()
        known = torch.cat([torch.where(seen, values, 0.0), seen.to(values)], -1)
        there = ~times.isnan()[..., None]
        hidden = values.new_zeros(len(values), self.cell.hidden_size)
        last, states = torch.full_like(times[:, :1], torch.nan), []
        for k in reversed(range(values.shape[1])):
            gap = (last - times[:, k : k + 1]).nan_to_num(0.0).to(values)
            hidden = torch.where(there[:, k], self.cell(torch.cat([gap, known[:, k]], -1), hidden), hidden)
            last = torch.where(there[:, k], times[:, k : k + 1], last)
            states.append(hidden)
        law = self.head(torch.cat([(last - start).to(values), hidden], -1)).chunk(2, -1)
        return Context(times, torch.stack(states[::-1], 1), Posterior(*law))


class Paths(NamedTuple):
    """Latent paths on the grid of steps.

    Args:
        times: (n,).
        states: (B, n, d).
        divergence: of the path laws up to each time, (B, n).
    """

    times: Tensor
    states: Tensor
    divergence: Tensor

    def at(self, asked: Tensor) -> Tensor:
        """Return the states (B, S, d) at asked times (S,) or (B, S), on straight lines between steps."""
        own = (
            asked.to(self.times).expand(len(self.states), asked.shape[-1]).nan_to_num(float(self.times[0])).contiguous()
        )
        right = torch.searchsorted(self.times, own).clamp(1, len(self.times) - 1)
        left, end = self.times[right - 1], self.times[right]
        share = ((own - left) / (end - left)).clamp(0, 1)[..., None].to(self.states)
        rows = torch.arange(len(self.states))[:, None]
        return torch.lerp(self.states[rows, right - 1], self.states[rows, right], share)


@METHOD.variant()
class LatentSDE(nn.Module):
    """A latent diffusion with a learned prior, an encoder for irregular observations, and a decoder.

    Times are (T,) for the whole batch or (B, T); values (B, T, C) with NaN for what is missing. All samples share the steps of the
    solver; asked times lie on straight lines between them.

    Args:
        channels: C, number of observed quantities.
        latent: size of the latent state.
        width: size of hidden layers.
        noise: standard deviation s of an observation.
        start: time of the first latent state, which no observation precedes.
        step: size of the solver's steps.
        gradient: how gradients are had; `Direct` by default.

    Examples:
        >>> model = LatentSDE(channels=2, latent=3, step=0.1)
        >>> values = torch.zeros(4, 5, 2)
        >>> model(torch.linspace(0, 1, 5), values, torch.tensor([0.5, 2.0]), rng=0).shape
        torch.Size([4, 2, 2])
    """

    def __init__(
        self,
        channels: int,
        *,
        latent: int = 8,
        width: int = 32,
        noise: float = 0.1,
        start: float = 0.0,
        step: float = 0.05,
        gradient: Gradient | None = None,
    ) -> None:
        super().__init__()
        require(noise > 0, f"the noise of observations must be positive, got {noise}")
        require(step > 0, f"the solver's step must be positive, got {step}")
        self.channels, self.latent, self.noise, self.start, self.size, self.gradient = (
            channels,
            latent,
            noise,
            start,
            step,
            gradient,
        )
        self.encoder = Backwards(channels, latent, width)
        self.prior = MLP(latent + 1, latent, width=width, depth=2)
        self.posterior = MLP(latent + 1 + width, latent, width=width, depth=2)
        self.slopes = nn.Parameter(torch.zeros(2, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.Tanh(), nn.Linear(width, channels))

    def encode(self, times: Tensor, values: Tensor) -> Context:
        """Return what the observations say.

        Raises:
            InvalidInput: where shapes do not fit, times do not increase or begin before `start`, or a series has no value at all.
        """
        own = observed_times(times, values, self.channels, self.start)
        return self.encoder(own, values, self.start)

    def diffusion(self, z: Tensor) -> Tensor:
        """Return g(z), each coordinate a function of its own, of the shape of z."""
        slope, shift = self.slopes
        return SMALLEST + torch.sigmoid(slope * z + shift)

    def solve(self, z0: Tensor, end: float, rng: Stream | int, context: Context | None = None) -> Paths:
        """Return paths from first states (B, d) to the time `end`: of the posterior, or of the prior without a context.

        Raises:
            NotFinite: where the integration failed.
        """

        def drift(t: Tensor, y: Tensor, context: Context | None = None) -> Tensor:
            z = y[:, :-1]
            at = torch.cat([t.expand(len(z), 1).to(z), z], -1)
            usual = self.prior(at)
            if context is None:
                return torch.cat([usual, torch.zeros_like(y[:, -1:])], -1)
            state, known = context.at(t)
            excess = torch.where(known, self.posterior(torch.cat([at, state], -1)) - usual, 0.0)
            rate = (excess / self.diffusion(z)).square().sum(-1, keepdim=True) / 2
            return torch.cat([usual + excess, rate], -1)

        def diffusion(t: Tensor, y: Tensor, context: Context | None = None) -> Tensor:
            return torch.cat([self.diffusion(y[:, :-1]), torch.zeros_like(y[:, -1:])], -1)

        steps = max(1, round((end - self.start) / self.size))
        grid = torch.linspace(self.start, end, steps + 1, dtype=torch.float64)
        terms = SDE(drift, diffusion, as_stream(rng, "path"), noise="diagonal", calculus="stratonovich")
        found = integrate(
            terms,
            torch.cat([z0, torch.zeros_like(z0[:, :1])], -1),
            self.start,
            end,
            method=StochasticHeun(),
            args=context,
            dt0=(end - self.start) / steps,
            gradient=self.gradient,
            saveat=SaveAt(ts=grid),
            max_steps=steps + 2,
        )
        path = found.check().ys.movedim(0, 1)
        return Paths(grid.to(z0.device), path[..., :-1], path[..., -1])

    def forward(
        self, times: Tensor, values: Tensor, asked: Tensor | None = None, *, rng: Stream | int, step: int = 0
    ) -> Tensor:
        """Return one draw of the values (B, S, C) at asked times, those of the observations by default."""
        wanted = times if asked is None else asked
        context = self.encode(times, values)
        paths = self.solve(
            context.first.sample(rng, step), self._end(wanted), as_stream(rng, "path").child(step), context
        )
        out: Tensor = self.decoder(paths.at(wanted))
        return out

    def sample(self, count: int, asked: Tensor, *, rng: Stream | int) -> Tensor:
        """Return draws of the prior's values (count, S, C) at asked times (S,)."""
        z0 = as_stream(rng, "prior").normal((count, self.latent), dtype=self.slopes.dtype).to(self.slopes.device)
        out: Tensor = self.decoder(self.solve(z0, self._end(asked), rng).at(asked))
        return out

    def elbo(self, times: Tensor, values: Tensor, *, rng: Stream | int, step: int, beta: float = 1.0) -> Tensor:
        """Return the evidence lower bound of each series from one draw of its path, (B,).

        Args:
            times: of the observations.
            values: the observations.
            rng: source of the draw.
            step: number of the update.
            beta: weight of the divergence, see `kl_weight`.
        """
        context = self.encode(times, values)
        paths = self.solve(
            context.first.sample(rng, step), self._end(times), as_stream(rng, "path").child(step), context
        )
        fit = gaussian_log_likelihood(self.decoder(paths.at(times)), values, self.noise)
        return fit - beta * (context.first.kl() + paths.divergence[:, -1])

    def _end(self, times: Tensor) -> float:
        last = float(times.nan_to_num(self.start).max())
        return last if last > self.start else self.start + self.size
