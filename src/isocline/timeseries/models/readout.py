"""The readout that the classifiers share: Linear, BatchNorm, ReLU, Dropout, Linear (Oh, Lim and Kim, arXiv 2402.14989)."""

from __future__ import annotations

from torch import nn


class Readout(nn.Sequential):
    """Maps states (B, hidden) to outputs (B, outputs).

    Args:
        hidden: size of the state.
        outputs: size of the result.
        dropout: probability that a hidden unit is dropped in training.
    """

    def __init__(self, hidden: int, outputs: int, dropout: float = 0.1) -> None:
        first, last = nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)
        super().__init__(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout), last)
