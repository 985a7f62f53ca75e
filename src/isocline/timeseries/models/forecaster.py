r"""A neural SDE that starts where a history ends, trained by a proper score of its paths.

    h   = recurrent network over the history, (value, observed or not, time, gap) relative to its end
    dz  = f(z, h, tau) dtau + g(h, tau) dW ,      z(0) = z0(h) ,      tau = time since the end / horizon in [0, 1]
    y   = last + scale (readout(z) + s e) ,        e ~ N(0, 1)

The loss is the continuous ranked probability score at every target, estimated without bias from m paths y_i (Gneiting and Raftery,
JASA 102, 2007):

    CRPS = mean_i |y_i - y| - 1 / (2 m (m - 1)) sum_{i,j} |y_i - y_j|

It is smallest, on average, for the true law, so that no likelihood of paths and no discriminator is needed. The noise is additive,
so that Euler-Maruyama has strong order one and the calculus does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.integrators import SDE, EulerMaruyama, SaveAt, integrate
from isocline.networks import MLP

METHOD = Method(
    "crps-neural-sde",
    "Neural SDE forecaster",
    "Strictly Proper Scoring Rules, Prediction, and Estimation",
    "Gneiting, Raftery",
    2007,
    "",
    room="timeseries.models",
    when="Forecasts with intervals from irregular histories, by paths that are trained on a proper score.",
)
STEPS = 20


@dataclass(frozen=True)
class Window:
    """Histories and what followed them, relative to the end of each history and in units of the horizon and of `scale`.

    Args:
        times: of the histories, (B, L), at most 0; any number where nothing was observed.
        values: relative to the last ones, (B, L, C), NaN where missing or before the beginning.
        phases: sine and cosine of the seasons at the end of the history, (B, 2 P).
        asked: times of the targets, (B, S), in [0, 1]; NaN at the end where a window has fewer.
        targets: (B, S, C), NaN where missing.
    """

    times: Tensor
    values: Tensor
    phases: Tensor
    asked: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        same = len({len(x) for x in (self.times, self.values, self.phases, self.asked, self.targets)}) == 1
        require(same, "the parts of a window differ in their number of samples")

    def __len__(self) -> int:
        return len(self.times)

    def take(self, index: Tensor) -> Window:
        """Return some of the windows."""
        return Window(*(x[index] for x in (self.times, self.values, self.phases, self.asked, self.targets)))


@METHOD.variant()
class NeuralForecaster(nn.Module):
    """Paths after a history, from a neural SDE.

    Args:
        channels: C, number of quantities.
        periods: P lengths of seasons in units of the horizon; none by default.
        latent: size of the state.
        width: size of hidden layers.

    Examples:
        >>> model = NeuralForecaster(1)
        >>> past, asked = torch.tensor([[-0.2, -0.1, 0.0]]), torch.tensor([[0.5, 1.0]])
        >>> window = Window(past, torch.zeros(1, 3, 1), torch.zeros(1, 0), asked, torch.zeros(1, 2, 1))
        >>> model(window, paths=5, rng=0).shape
        torch.Size([5, 1, 2, 1])
    """

    def __init__(self, channels: int, *, periods: tuple[float, ...] = (), latent: int = 8, width: int = 48) -> None:
        super().__init__()
        require(all(p > 0 for p in periods), f"seasons have positive lengths, got {periods}")
        self.channels, self.periods, self.latent = channels, tuple(periods), latent
        seasons = 2 * len(periods)
        self.reader = nn.GRUCell(2 * channels + 2 + seasons, width)
        self.first = nn.Linear(width, latent)
        self.drift = MLP(latent + width + 1 + seasons, latent, width=width, depth=2)
        self.diffusion = MLP(width + 1 + seasons, latent, width=width, depth=1)
        self.readout = nn.Linear(latent, channels)
        self.spread = nn.Parameter(torch.full((channels,), -2.0))

    def season(self, phases: Tensor, tau: Tensor) -> Tensor:
        """Return sine and cosine of the seasons (B, *, 2 P) at times tau (B, *) after the end, given those at the end (B, 2 P)."""
        turn = 2 * torch.pi * tau[..., None] / torch.tensor(self.periods, dtype=phases.dtype, device=phases.device)
        sine, cosine = phases.reshape(len(phases), *[1] * (tau.ndim - 1), -1).chunk(2, -1)
        return torch.cat([sine * turn.cos() + cosine * turn.sin(), cosine * turn.cos() - sine * turn.sin()], -1)

    def read(self, window: Window) -> Tensor:
        """Return what the histories say, (B, w); a row where nothing was observed changes nothing."""
        seen = ~window.values.isnan()
        there = seen.any(-1, keepdim=True)
        season = self.season(window.phases, window.times)
        known = torch.cat([window.values.nan_to_num(0.0), seen.to(season), season], -1)
        state = known.new_zeros(len(known), self.reader.hidden_size)
        last = torch.full_like(state[:, :1], torch.nan)
        for k in range(known.shape[1]):
            now = window.times[:, k : k + 1]
            moved = self.reader(torch.cat([known[:, k], now, (now - last).nan_to_num(0.0)], -1), state)
            state, last = torch.where(there[:, k], moved, state), torch.where(there[:, k], now, last)
        return state

    def forward(self, window: Window, *, paths: int, rng: Stream | int) -> Tensor:
        """Return paths at the asked times, (m, B, S, C); 0 is the last value of the history.

        Raises:
            NotFinite: where the integration failed.
        """
        known = self.read(window)
        beside = torch.cat([known, window.phases], -1)
        states = self._paths(beside.repeat(paths, 1), known.shape[1], as_stream(rng, "paths"))
        at = window.asked.nan_to_num(0.0).clamp(0, 1) * STEPS
        left = at.floor().clamp(max=STEPS - 1).long()
        share = (at - left)[None, ..., None]
        whole = states.unflatten(1, (paths, len(known)))  # (steps + 1, m, B, d)
        rows = torch.arange(len(known), device=at.device)[:, None]
        by_row = whole.permute(1, 2, 0, 3)
        mean = self.readout(torch.lerp(by_row[:, rows, left], by_row[:, rows, left + 1], share.to(known)))
        noise = as_stream(rng, "observed").normal((paths, *mean.shape[1:]), dtype=mean.dtype).to(mean.device)
        out: Tensor = mean + nn.functional.softplus(self.spread) * noise
        return out

    def _paths(self, beside: Tensor, width: int, rng: Stream) -> Tensor:
        """Return states on the grid of steps, (steps + 1, m B, d)."""
        known, phases = beside[:, :width], beside[:, width:]

        def context(t: Tensor) -> Tensor:
            now = t.expand(len(known)).to(known)
            return torch.cat([known, now[:, None], self.season(phases, now)], -1)

        terms = SDE(
            lambda t, z: self.drift(torch.cat([z, context(t)], -1)),
            lambda t, z: nn.functional.softplus(self.diffusion(context(t))),
            rng,
            noise="additive",
        )
        grid = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
        z0 = self.first(known)
        return integrate(terms, z0, 0.0, 1.0, method=EulerMaruyama(), dt0=1 / STEPS, saveat=SaveAt(ts=grid)).check().ys


def crps(paths: Tensor, targets: Tensor) -> Tensor:
    """Return the mean score of paths (m, B, S, C) at observed targets (B, S, C), without bias in m.

    Examples:
        >>> float(crps(torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1), torch.zeros(1, 1, 1)))  # 1 - 2 / 2
        0.0
    """
    seen = ~targets.isnan()
    m = len(paths)
    require(m >= 2, f"the score needs at least two paths, got {m}")
    miss = (paths - targets.nan_to_num(0.0)).abs().mean(0)
    order = torch.arange(m, device=paths.device, dtype=paths.dtype).reshape(-1, 1, 1, 1)
    apart = (paths.sort(0).values * (2 * order + 1 - m)).sum(0) / (m * (m - 1))  # half the mean distance of two paths
    return torch.where(seen, miss - apart, 0.0).sum() / seen.sum().clamp(min=1)
