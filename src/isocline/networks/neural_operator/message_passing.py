r"""The message passing network for partial differential equations (Brandstetter, Worrall, Welling, arXiv 2202.03376).

    h_i = encoder(u_i^{k-K+1}, ..., u_i^k, x_i, t_k, theta)
    m_ij = phi(h_i, h_j, u_i - u_j, x_i - x_j, theta) ,      h_i <- norm(h_i + psi(h_i, mean_j m_ij, theta))
    (d_i^1, ..., d_i^{K'}) = decoder(h_i) ,      u_i^{k+l} = u_i^k + l dt d_i^l

u_i - u_j holds the differences of all K frames, and the norm is over the nodes of one case. The decoder is a convolution along the
features of a node, so that frames near in time come from features near in number. In a periodic box x_i - x_j is the shortest of
its images. The encoder sees the place of a node itself, so the network does not commute with translations, but its layers do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.neural_operator.neighbours import within_radius

METHOD = Method(
    "mp-pde",
    "message passing PDE solver",
    "Message Passing Neural PDE Solvers",
    "Brandstetter, Worrall, Welling",
    2022,
    "2202.03376",
    room="networks",
    when="Time steps on irregular points, with parameters that vary, several frames at a time.",
)


def _mean(values: Tensor, index: Tensor, groups: int) -> Tensor:
    """Return the mean of the rows of each group; zero for an empty one."""
    total = values.new_zeros(groups, values.shape[1]).index_add(0, index, values)
    return total / torch.bincount(index, minlength=groups).clamp(min=1)[:, None]


def _normalised(h: Tensor, case: Tensor, cases: int) -> Tensor:
    centred = h - _mean(h, case, cases)[case]
    return centred * (_mean(centred**2, case, cases) + 1e-5).rsqrt()[case]


def _two_layers(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())


def _decoder(width: int, channels: int, bundle: int) -> nn.Sequential:
    # two convolutions without padding, whose sizes leave exactly `bundle` places; 128 features and 25 frames give 16 and 14
    stride = min(max(1, round(2 * width / (3 * bundle))), 4)
    first = min(16, 1 + (width - stride * (bundle - 1)) // 2)
    second = (width - first) // stride + 2 - bundle
    return nn.Sequential(nn.Conv1d(1, 8, first, stride=stride), nn.SiLU(), nn.Conv1d(8, channels, second))


class _Layer(nn.Module):
    def __init__(self, width: int, differences: int, parameters: int) -> None:
        super().__init__()
        self.message = _two_layers(2 * width + differences + parameters, width)
        self.update = _two_layers(2 * width + parameters, width)

    def forward(self, h: Tensor, differences: Tensor, theta: Tensor, edges: Tensor) -> Tensor:
        target, source = edges
        messages = self.message(torch.cat([h[target], h[source], differences, theta[target]], dim=1))
        result: Tensor = h + self.update(torch.cat([h, _mean(messages, target, len(h)), theta], dim=1))
        return result


@METHOD.variant()
class MessagePassingSolver(nn.Module):
    """Predicts the next K' frames on scattered points from the last K.

    The instance norm takes out what all nodes of a case share, so a state that is the same everywhere says little.

    Args:
        dimension: D, of space.
        channels: C, of u.
        parameters: P, entries of theta; 0 for none.
        frames: K, frames that come in.
        bundle: K', frames that go out; the paper takes as many as come in.
        radius: of the ball with the neighbours of a node, in units of the coordinates.
        period: side of a periodic box that begins at zero; None for no periodicity.
        width: features of a node.
        depth: number of layers.

    Raises:
        InvalidInput: sizes below one, a bundle larger than the width, or a radius or a period that is not positive.
    """

    def __init__(
        self,
        dimension: int,
        channels: int,
        parameters: int = 0,
        *,
        frames: int,
        bundle: int,
        radius: float,
        period: float | None = None,
        width: int = 128,
        depth: int = 6,
    ) -> None:
        super().__init__()
        require(min(dimension, channels, frames, bundle, depth) >= 1, "all sizes of the network must be at least 1")
        require(bundle <= width, f"a bundle of {bundle} frames needs a width of at least {bundle}, got {width}")
        require(radius > 0, f"radius must be positive, got {radius}")
        require(period is None or period > 0, f"period must be positive, got {period}")
        self.radius, self.period, self.bundle, self.parameter_count = radius, period, bundle, parameters
        known = frames * channels + dimension
        self.encoder = _two_layers(known + 1 + parameters, width)
        self.layers = nn.ModuleList(_Layer(width, known, parameters) for _ in range(depth))
        self.decoder = _decoder(width, channels, bundle)

    def forward(
        self,
        frames: Tensor,
        coordinates: Tensor,
        offsets: Tensor,
        time: Tensor,
        dt: float,
        *,
        parameters: Tensor | None = None,
        edges: Tensor | None = None,
    ) -> Tensor:
        """Return the next frames, ``(sum N, K', C)``.

        Args:
            frames: the last K frames at the points of all cases, the newest at the end, ``(sum N, K, C)``.
            coordinates: those points, ``(sum N, D)``; best divided by the size of the domain.
            offsets: where each case begins, and the end, ``(B + 1,)``.
            time: of the newest frame of each case, (B,).
            dt: time between two frames.
            parameters: theta of each case, ``(B, P)``; best normalised.
            edges: target and source of each edge, ``(2, E)``; None for all other points in the ball.

        Raises:
            InvalidInput: parameters that are missing or have another shape, or times that are not one a case.
        """
        cases = len(offsets) - 1
        theta = frames.new_zeros(cases, 0) if parameters is None else parameters
        expected = (cases, self.parameter_count)
        require(theta.shape == expected, f"parameters must have the shape {expected}, got {tuple(theta.shape)}")
        require(time.shape == (cases,), f"time must have the shape {(cases,)}, got {tuple(time.shape)}")
        case = torch.repeat_interleave(offsets.diff())
        edges = self.neighbours(coordinates, offsets) if edges is None else edges
        theta, history = theta[case], frames.flatten(1)
        differences = torch.cat([_gap(history, edges, None), _gap(coordinates, edges, self.period)], dim=1)
        h = self.encoder(torch.cat([history, coordinates, time[case, None], theta], dim=1))
        for layer in self.layers:
            h = _normalised(layer(h, differences, theta, edges), case, cases)
        steps = dt * torch.arange(1, self.bundle + 1, dtype=h.dtype, device=h.device)[:, None]
        result: Tensor = frames[:, -1:] + steps * self.decoder(h[:, None]).transpose(1, 2)
        return result

    def neighbours(self, coordinates: Tensor, offsets: Tensor) -> Tensor:
        """Return the edges ``(2, E)`` between different points in the ball; they can be kept while the points stay."""
        edges = within_radius(coordinates, offsets, self.radius, period=self.period)
        return edges[:, edges[0] != edges[1]]


def _gap(values: Tensor, edges: Tensor, period: float | None) -> Tensor:
    gap = values[edges[0]] - values[edges[1]]
    return gap if period is None else gap - period * torch.round(gap / period)
