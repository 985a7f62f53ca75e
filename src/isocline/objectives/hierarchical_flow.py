r"""Hierarchical rectified flow: a flow whose velocity is itself sampled by a flow (Zhang et al., arXiv 2502.17436).

Rectified flow follows the mean velocity, so paths cannot cross. Here the whole law of velocities is modelled. With sources
``z_1`` (noise in data space) and ``z_2, ..., z_D ~ N(0, I)`` and independent times ``t_d``,

    x_d = (1 - t_d) z_d + t_d (x - sum_{j<d} z_j) ,      a(x_1..x_D, t_1..t_D)  regresses  x - sum_{d<=D} z_d .

Sampling is nested: at level ``d`` the state starts from fresh ``z_d`` and follows the velocity that level ``d + 1`` samples; the
innermost level asks the network. ``n_d`` Euler steps at each level make ``n_1 n_2 ... n_D`` calls. ``D = 1`` is rectified flow.
In this module, as in the paper, times run from 0 (noise) to 1 (data).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream

HRF = Method(
    "hrf",
    "Hierarchical rectified flow",
    "Towards Hierarchical Rectified Flow",
    "Yichi Zhang, Yici Yan, Alex Schwing, Zhizhen Zhao",
    2025,
    "2502.17436",
    room="objectives",
    when="Low-dimensional data with separate modes, where the mean velocity turns sharply and calls are few.",
)

Network = Callable[[Tensor, Tensor], Tensor]


@HRF.variant()
@dataclass(frozen=True)
class HierarchicalFlow:
    """Loss and sampler for a network ``a(x, t)`` with `x` (B, D, d) and `t` (B, D), which returns (B, d).

    Args:
        depth: ``D``, number of levels.
    """

    depth: int = 2

    def __post_init__(self) -> None:
        require(self.depth >= 1, f"a hierarchical flow needs a depth of at least 1, got {self.depth}")

    def loss(self, network: Network, data: Tensor, rng: Stream, step: int, *, first: int = 0) -> Tensor:
        """Return the mean squared error for one batch of data (B, d)."""
        n, d = data.shape
        z = rng.child("noise").normal((n, self.depth, d), step=step, first=first, dtype=data.dtype, device=data.device)
        t = rng.child("time").uniform((n, self.depth), step=step, first=first, dtype=data.dtype).to(data.device)
        left = data[:, None] - (torch.cumsum(z, dim=1) - z)  # x minus the sources of the levels above
        states = (1 - t)[:, :, None] * z + t[:, :, None] * left
        return (network(states, t) - (data - z.sum(1))).square().mean()

    @torch.no_grad()
    def sample(self, network: Network, shape: tuple[int, int], steps: Sequence[int], rng: Stream | int) -> Tensor:
        """Return samples of `shape` (B, d).

        Args:
            network: the trained network.
            shape: (B, d).
            steps: Euler steps of each level, outermost first; their product is the number of calls.
            rng: stream or seed.
        """
        require(
            len(steps) == self.depth,
            f"a flow of depth {self.depth} needs {self.depth} numbers of steps, got {list(steps)}",
        )
        require(min(steps) >= 1, f"each level needs at least one step, got {list(steps)}")
        start = as_stream(rng, "hierarchical").normal(shape)
        return self._level(network, [], [], start, list(steps), as_stream(rng, "velocities"), 0)

    def _level(
        self,
        network: Network,
        above: list[Tensor],
        times: list[float],
        state: Tensor,
        steps: list[int],
        rng: Stream,
        draw: int,
    ) -> Tensor:
        """Integrate the level below `above` from `state`; `draw` counts the fresh starts, so that none is used twice."""
        level = len(above)
        if level == self.depth:
            t = torch.tensor(times, dtype=state.dtype, device=state.device).expand(state.shape[0], self.depth)
            return network(torch.stack(above, dim=1), t)
        n = steps[level]
        for k in range(n):
            number = draw * n + k
            last = level + 1 == self.depth
            fresh = (
                state
                if last
                else rng.child(level + 1).normal(
                    tuple(state.shape), step=number, dtype=state.dtype, device=state.device
                )
            )
            velocity = self._level(network, [*above, state], [*times, k / n], fresh, steps, rng, number)
            state = state + velocity / n
        return state
