r"""Latent ODEs: irregular observations explained by a smooth hidden path (Rubanova, Chen and Duvenaud, arXiv 1907.03907).

    z0 ~ q(z0 | observations) = N(mu, diag exp(v)) ,      dz/dt = f(z) ,      x(t) ~ N(g(z(t)), s^2)

    ELBO = E_q sum_observed log N(x | g(z(t)), s^2) - beta KL(q | N(0, 1))

The encoder is a recurrent network that reads the observations from the last to the first, each with its mask and the time to the
one that was read before. A time at which nothing was observed is passed over, and its gap counts towards the next: adding such a
time changes nothing. beta grows from 0 to 1 as ``1 - 0.99^(step - delay)``. The ODE-RNN encoder of that paper
is not here: this is its RNN with time gaps, as Chen et al., arXiv 1806.07366, had it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.integrators import SaveAt, Solution
from isocline.timeseries.models.neural_ode import Solving, VectorField

METHOD = Method(
    "latent-ode",
    "Latent ODE",
    "Latent Ordinary Differential Equations for Irregularly-Sampled Time Series",
    "Rubanova, Chen, Duvenaud",
    2019,
    "1907.03907",
    room="timeseries.models",
    when="Smooth series with few, irregular or missing observations, of which a law over whole paths is wanted.",
)


class Posterior(NamedTuple):
    """A diagonal normal law of the first latent state.

    Args:
        mean: (B, d).
        log_variance: (B, d).
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, rng: Stream | int, step: int, first: int = 0) -> Tensor:
        """Return one draw (B, d); `first` is the index of the first sample."""
        noise = as_stream(rng, "latent").normal(tuple(self.mean.shape), step=step, first=first, dtype=self.mean.dtype)
        return self.mean + torch.exp(self.log_variance / 2) * noise.to(self.mean.device)

    def kl(self) -> Tensor:
        """Return the divergence from the standard normal law, (B,)."""
        return (self.log_variance.exp() + self.mean.square() - 1 - self.log_variance).sum(-1) / 2


class Encoder(nn.Module):
    """A gated recurrent unit that reads observations backwards in time.

    Args:
        channels: C.
        latent: d.
        width: size of its hidden state.
    """

    def __init__(self, channels: int, latent: int, width: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2 * channels + 1, width)
        self.head = nn.Sequential(nn.Linear(width + 1, width), nn.Tanh(), nn.Linear(width, 2 * latent))

    def forward(self, times: Tensor, values: Tensor, start: float) -> Posterior:
        """Return the law of the state at `start` for times (B, T) and values (B, T, C), both with NaN for what is missing."""
        seen = ~values.isnan()
        known = torch.where(seen, values, 0.0)
        there = seen.any(-1, keepdim=True)
        hidden = values.new_zeros(len(values), self.cell.hidden_size)
        last = values.new_full((len(values), 1), torch.nan)
        for k in reversed(range(values.shape[1])):
            now = times[:, k : k + 1]
            gap = (last - now).nan_to_num(0.0)  # nothing was read before the last observation
            moved = self.cell(torch.cat([gap, known[:, k], seen[:, k].to(values)], dim=-1), hidden)
            hidden, last = torch.where(there[:, k], moved, hidden), torch.where(there[:, k], now, last)
        return Posterior(*self.head(torch.cat([last - start, hidden], dim=-1)).chunk(2, dim=-1))


@METHOD.variant()
class LatentODE(nn.Module):
    """A latent path with a normal prior on its first state, an encoder for irregular observations, and a decoder.

    Times are (T,) for the whole batch or (B, T); values (B, T, C) with NaN for what is missing; series of unequal length are padded
    with NaN. The first latent state belongs to the time `start`, which no observation precedes. Where samples have asked times of
    their own, (B, S), each has solver steps of its own.

    Args:
        channels: C, number of observed quantities.
        latent: size of the latent state.
        width: size of hidden layers.
        noise: standard deviation s of an observation.
        start: time of the first latent state.
        field: autonomous vector field of the latent state; a `VectorField` by default.
        solving: how its equation is integrated.

    Examples:
        >>> model = LatentODE(channels=2, latent=3)
        >>> values = torch.zeros(4, 5, 2)
        >>> values[0, 1:] = torch.nan
        >>> model(torch.linspace(0, 1, 5), values, torch.tensor([0.5, 2.0, 3.0])).shape
        torch.Size([4, 3, 2])
    """

    def __init__(
        self,
        channels: int,
        *,
        latent: int = 8,
        width: int = 32,
        noise: float = 0.1,
        start: float = 0.0,
        field: nn.Module | None = None,
        solving: Solving | None = None,
    ) -> None:
        super().__init__()
        require(noise > 0, f"the noise of observations must be positive, got {noise}")
        self.channels, self.noise, self.start = channels, noise, start
        self.encoder = Encoder(channels, latent, width)
        self.field = field or VectorField(latent, width=width, autonomous=True)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.Tanh(), nn.Linear(width, channels))
        self.solving = solving or Solving()

    def encode(self, times: Tensor, values: Tensor) -> Posterior:
        """Return the law of the first latent state given observations.

        Raises:
            InvalidInput: where shapes do not fit, times do not increase or begin before `start`, or a series has no value at all.
        """
        own = observed_times(times, values, self.channels, self.start)
        return self.encoder(own.to(values), values, self.start)

    def solve(
        self, z0: Tensor, times: Tensor, *, saveat: SaveAt | None = None, record: Sequence[Literal["steps"]] = ()
    ) -> Solution:
        """Return the latent solution from first states (B, d) through increasing asked times, (S,) or (B, S).

        Args:
            z0: first states.
            times: not before `start`; with (B, S), NaN at the end where a sample has fewer.
            saveat: which states are kept in place of those at `times`.
            record: ``("steps",)`` keeps the steps, for the penalties of `isocline.objectives`.

        Raises:
            NotFinite: where the integration failed.
        """
        own = times.detach().double()
        end = own.nan_to_num(-math.inf).amax(-1).clamp(min=self.start)
        if own.ndim == 1:
            kept = saveat or SaveAt(ts=own)
            return self.solving.solve(self.field, z0, self.start, float(end), saveat=kept, record=record)
        kept = saveat or SaveAt(ts=own.nan_to_num(self.start), mask=~own.isnan())
        return self.solving.solve(self.field, z0, self.start, end, saveat=kept, record=record, batching="per-sample")

    def decode(self, z0: Tensor, times: Tensor) -> Tensor:
        """Return values (B, S, C) at asked times, (S,) or (B, S), from first states (B, d)."""
        path = self.solve(z0, times).ys
        out: Tensor = self.decoder(path.movedim(0, 1) if times.ndim == 1 else path)
        return out

    def forward(self, times: Tensor, values: Tensor, asked: Tensor | None = None) -> Tensor:
        """Return values (B, S, C) at asked times, those of the observations by default, from the mean of the first state."""
        return self.decode(self.encode(times, values).mean, times if asked is None else asked)

    def log_likelihood(self, predicted: Tensor, values: Tensor) -> Tensor:
        """Return the sum over observed entries of ``log N(value | predicted, s^2)``, (B,)."""
        return gaussian_log_likelihood(predicted, values, self.noise)

    def elbo(
        self,
        times: Tensor,
        values: Tensor,
        *,
        rng: Stream | int,
        step: int,
        beta: float = 1.0,
        target: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the evidence lower bound of each series from one draw of its first state, (B,).

        Args:
            times: of the observations that the encoder reads.
            values: the observations.
            rng: source of the draw.
            step: number of the update.
            beta: weight of the divergence, see `kl_weight`.
            target: times and values whose likelihood is taken in place of those that are read, for extrapolation.
        """
        law = self.encode(times, values)
        at, wanted = (times, values) if target is None else target
        predicted = self.decode(law.sample(rng, step), at)
        return self.log_likelihood(predicted, wanted) - beta * law.kl()


def gaussian_log_likelihood(predicted: Tensor, values: Tensor, noise: float) -> Tensor:
    """Return the sum over observed entries of ``log N(value | predicted, noise^2)``, (B,); both (B, T, C), NaN where missing."""
    seen = ~values.isnan()
    miss = torch.where(seen, predicted - torch.where(seen, values, 0.0), 0.0) / noise
    count = seen.sum((1, 2))
    return -miss.square().sum((1, 2)) / 2 - count * (math.log(noise) + math.log(2 * math.pi) / 2)


def observed_times(times: Tensor, values: Tensor, channels: int, start: float) -> Tensor:
    """Return the times as (B, T), NaN where nothing was observed.

    Raises:
        InvalidInput: where shapes do not fit, times do not increase or begin before `start`, or a series has no value at all.
    """
    fits = values.ndim == 3 and values.shape[-1] == channels
    require(fits, f"values need shape (B, T, {channels}), got {tuple(values.shape)}")
    batch, length = values.shape[:2]
    fits = times.shape in ((length,), (batch, length))
    require(fits, f"times need shape ({length},) or ({batch}, {length}), got {tuple(times.shape)}")
    seen = ~values.isnan()
    empty = ~seen.any(-1).any(-1)
    require(not bool(empty.any()), f"series {int(empty.int().argmax())} has no observed value: leave it out")
    own = times.expand(batch, length)
    require(bool((own.diff() > 0).logical_or(own[:, 1:].isnan()).all()), "times must increase within a series")
    observed = torch.where(seen.any(-1), own, torch.nan)
    late = not bool((observed < start).any())
    require(late, f"an observation lies before the first latent state at {start:g}: pass a smaller start")
    missing = bool((seen.any(-1) & own.isnan()).any())
    require(not missing, "a value was observed at a time that is NaN: give it a time, or make it NaN too")
    return observed


def kl_weight(step: int, *, delay: int = 0, base: float = 0.99) -> float:
    """Return the weight of the divergence at an update, ``max(0, 1 - base^(step - delay))``.

    Examples:
        >>> [round(kl_weight(step, delay=100), 3) for step in (0, 100, 170, 1000)]
        [0.0, 0.0, 0.505, 1.0]
    """
    return max(0.0, 1.0 - base ** (step - delay))
