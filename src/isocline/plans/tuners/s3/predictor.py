r"""A small network that ranks schedules without running them.

It is fitted to measured schedules by their order alone: for pairs with errors ``E_i < E_j`` it minimises
``log(1 + exp(p_i - p_j))`` of its outputs ``p`` (RankNet, Burges et al., ICML 2005). Only the order of its outputs means anything.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from isocline._core.stream import Stream
from isocline.networks.mlp import MLP


def fitted_predictor(features: Tensor, errors: Tensor, rng: Stream, epochs: int = 200) -> nn.Module:
    """Return a network ``(N, *) -> (N, 1)`` whose output grows with the error.

    Args:
        features: (N, *) encoded schedules, float32.
        errors: (N,) what they led to; infinity for what failed.
        rng: weights at the start, and pairs.
        epochs: gradient steps; each takes every schedule in two pairs.
    """
    mean, spread = features.mean(0), features.std(0) + 1e-3
    network = nn.Sequential(_Standardise(mean, spread), nn.Flatten(), _network(features[0].numel(), rng))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-4)
    for epoch in range(epochs):
        other = rng.permutation(len(errors), step=epoch)
        sign = torch.sign(torch.nan_to_num(errors - errors[other], posinf=1.0, neginf=-1.0))
        optimizer.zero_grad()
        with torch.enable_grad():
            scores = network(features).squeeze(1)
            loss = (sign.abs() * softplus(-sign * (scores - scores[other]))).mean()
            loss.backward()
        optimizer.step()
    return network.eval()


class _Standardise(nn.Module):
    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.spread


def _network(inputs: int, rng: Stream) -> MLP:
    """Return an MLP whose weights come from `rng`, not from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.child("weights").bits((1,))))
        return MLP(inputs, 1, width=64, depth=2)
