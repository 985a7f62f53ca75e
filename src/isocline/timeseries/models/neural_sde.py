r"""The plain neural SDE, whose noise is a network of the state.

    dz = g(t, zbar) dt + s(t, z) dW,        zbar = Linear([MLP(z), Linear X(t)])

It differs from the linear-noise class of `isocline.timeseries.models.stable_sde` in ``s`` alone, so that the two can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocline.networks.mlp import MLP
from isocline.timeseries.models.controlled_sde import ControlledSDE


class NeuralSDE(ControlledSDE):
    """The neural SDE ``dz = g(t, zbar) dt + s(t, z) dW`` with networks that are linear at their ends.

    Args:
        channels: channels of the series, C.
        outputs: size of the result, for example the number of classes.
        hidden: size of the state, H.
        dt: step of the Euler-Maruyama method; the smallest gap of a batch by default, see `ControlledSDE`.
        dropout: probability of the readout's dropout.

    Examples:
        >>> model = NeuralSDE(channels=2, outputs=3)
        >>> model(torch.linspace(0, 1, 5), torch.zeros(4, 5, 2), rng=0).shape
        torch.Size([1, 4, 3])
    """

    def __init__(
        self, channels: int, outputs: int, *, hidden: int = 16, dt: float | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__(channels, outputs, hidden=hidden, dt=dt, dropout=dropout)
        self.g = MLP(hidden + 1, hidden, width=hidden, depth=1, activation=nn.Tanh)
        self.s = MLP(hidden + 1, hidden, width=hidden, depth=1, activation=nn.Tanh)

    def drift(self, now: tuple[Tensor, ...], state: Tensor, mixed: Tensor) -> Tensor:
        """Return ``g(t, zbar)``."""
        g: Tensor = self.g(torch.cat([now[0].expand(*mixed.shape[:-1], 1), mixed], dim=-1))
        return g

    def diffusion(self, now: tuple[Tensor, ...], state: Tensor) -> Tensor:
        """Return ``s(t, z)``."""
        s: Tensor = self.s(torch.cat([now[0].expand(*state.shape[:-1], 1), state], dim=-1))
        return s
