"""The short training loop of the estimators: Adam, a held-out part, and the weights of the best epoch.

Small sets give few updates, behind which the running averages of batch normalisation lag. So before a network is judged, and at the
end, they are replaced by the averages over the training part with the weights as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isocline._core.errors import NotFinite
from isocline._core.progress import progress
from isocline._core.stream import Stream

Loss = Callable[[Tensor, Stream, bool], Tensor]  # (positions, noise, training) -> mean loss
CLIP = 1.0  # largest gradient norm


@dataclass(frozen=True)
class Training:
    """How an estimator is trained.

    Args:
        epochs: most passes over the training part.
        batch_size: series in each update.
        rate: learning rate of Adam.
        patience: epochs without a better loss after which training ends.
        seed: seed of order and noise.
    """

    epochs: int
    batch_size: int
    rate: float
    patience: int
    seed: int

    def fit(self, network: nn.Module, loss: Loss, held_out: Tensor, description: str) -> list[float]:
        """Train `network` in place, leave it with the weights of its best epoch, and return the loss of every epoch.

        Args:
            network: what is trained.
            loss: ``(positions, noise, training) -> scalar``.
            held_out: (N,), true for the series whose loss decides; where it is true nowhere, the training loss decides.
            description: shown beside the progress bar.

        Raises:
            NotFinite: the loss became NaN or infinite in the first epoch, so that there are no better weights to return to.
        """
        train, kept_back = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate)
        curve: list[float] = []
        best, weights, stream = float("inf"), {}, Stream(self.seed, "fit")
        with progress(description, self.epochs) as bar:
            for epoch in range(self.epochs):
                now = self._epoch(network, optimizer, loss, train, stream.child(epoch))
                if len(kept_back):
                    self._renormalise(network, loss, train, stream.child("averages"))
                    now = judged(network, loss, kept_back, stream.child("held out"))
                curve.append(now)
                if now < best:
                    best, weights = now, {name: value.clone() for name, value in network.state_dict().items()}
                bar.advance(note=f"loss {now:.4f}")
                if now != now or epoch - curve.index(best if weights else now) >= self.patience:
                    break
        if not weights:
            raise NotFinite(
                f"the loss of {description} is not finite in its first epoch; lower the rate, now {self.rate:g}"
            )
        network.load_state_dict(weights)
        self._renormalise(network, loss, train, stream.child("averages"))
        network.eval()
        return curve

    def _epoch(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, train: Tensor, stream: Stream
    ) -> float:
        network.train()
        total = 0.0
        for step, part in enumerate(parts(train[stream.permutation(len(train))], self.batch_size)):
            optimizer.zero_grad(set_to_none=True)
            value = loss(part, stream.child(step), True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            total += float(value.detach()) * len(part)
        return total / len(train)

    @torch.no_grad()
    def _renormalise(self, network: nn.Module, loss: Loss, train: Tensor, stream: Stream) -> None:
        layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d)]
        momenta = [layer.momentum for layer in layers]
        network.train()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # plain averages
        for step, part in enumerate(parts(train, self.batch_size) if layers else ()):
            loss(part, stream.child(step), True)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@torch.no_grad()
def judged(network: nn.Module, loss: Loss, positions: Tensor, noise: Stream) -> float:
    """Return the loss at `positions` of the network as it predicts."""
    network.eval()
    return float(loss(positions, noise, False))


def parts(positions: Tensor, size: int) -> Iterator[Tensor]:
    """Yield `positions` in parts of about `size`, of which none holds one alone: batch normalisation needs two."""
    whole = list(positions.split(max(size, 2)))
    if len(whole) > 1 and len(whole[-1]) == 1:
        whole[-2:] = [torch.cat(whole[-2:])]
    yield from whole
