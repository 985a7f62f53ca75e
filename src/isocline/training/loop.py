"""The training loop: AdamW, warm-up and cosine decay, averaged weights, atomic checkpoints.

All randomness of a loss comes from streams indexed by the step, so the state of a run is its weights, their average, the two
Adam moments and the step. A run that was killed continues from its last checkpoint to the same bits (same machine, same
number of threads).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import Mismatch, NotFinite, require
from isocline._core.progress import progress

LOG_EVERY = 20


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train.

    Args:
        steps: number of updates.
        batch: samples in each update.
        rate: peak learning rate, reached after `warmup` steps and lowered to zero along a cosine.
        warmup: steps of linear warm-up.
        average: decay of the averaged weights; early steps average over a tenth of the run so far.
        clip: largest gradient norm.
        decay: decoupled weight decay.
        seed: seed of initial weights, order and noise.
        checkpoint_every: steps between checkpoints.
    """

    steps: int
    batch: int = 64
    rate: float = 1e-3
    warmup: int = 200
    average: float = 0.999
    clip: float = 1.0
    decay: float = 0.0
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.batch >= 1, f"training needs steps >= 1 and batch >= 1, got {self}")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of update number `step` (from 0)."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Trained:
    """The result of `train`: averaged weights, the loss curve (step, loss) and wall seconds over all resumed parts."""

    weights: dict[str, Tensor]
    losses: list[tuple[int, float]]
    seconds: float


class _State:
    """Everything a checkpoint holds."""

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self.network, self.settings = network, settings
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=settings.decay, foreach=True
        )
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []

    def update(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
        self.step += 1

    def save(self, path: Path) -> None:
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in state.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        about = {"settings": json.dumps(asdict(self.settings)), "step": str(self.step), "seconds": str(self.seconds)}
        files.write_tensors(path, tensors, about)

    def load(self, path: Path) -> None:
        tensors, about = files.read_tensors(path)
        if json.loads(about["settings"]) != asdict(self.settings):
            raise Mismatch(
                f"{path} was written with other settings ({about['settings']}); use the same settings to resume, "
                "or another output folder to start anew"
            )
        self.network.load_state_dict(_part(tensors, "network/"))
        self.average = _part(tensors, "average/")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer/").items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.seconds = int(about["step"]), float(about["seconds"])
        self.losses = tensors["losses"].tolist()

    def curve(self) -> list[tuple[int, float]]:
        """Return the loss averaged over every twenty steps, with the last step of each."""
        ends = [*range(LOG_EVERY, self.step, LOG_EVERY), self.step]
        parts = [self.losses[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return [(end, sum(part) / len(part)) for end, part in zip(ends, parts, strict=True)]


def train(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    settings: Settings,
    folder: str | Path,
    *,
    description: str = "training",
) -> Trained:
    """Minimise `loss(step)` over the parameters of `network`; continue from `folder` if a checkpoint is there.

    Args:
        network: the module whose parameters are updated in place.
        loss: returns the scalar loss of one batch; must depend on the step alone, not on earlier calls.
        settings: steps, rates, averaging.
        folder: where ``checkpoint.safetensors`` and ``loss.csv`` are kept.
        description: shown beside the progress bar.

    Raises:
        NotFinite: the loss became NaN or infinite; names the step and the last checkpoint.
        Mismatch: the checkpoint in `folder` was written with other settings.
    """
    folder = files.ensure_folder(folder)
    checkpoint = folder / "checkpoint.safetensors"
    state = _State(network, settings)
    if checkpoint.exists():
        state.load(checkpoint)
    before, start = state.seconds, time.monotonic()
    network.train()
    with progress(description, settings.steps) as bar:
        bar.advance(state.step)
        while state.step < settings.steps:
            value = loss(state.step)
            state.losses.append(_checked(value, state.step, checkpoint))
            state.update(value)
            state.seconds = before + time.monotonic() - start
            bar.advance(1, f"loss {state.losses[-1]:.4f}")
            if state.step % settings.checkpoint_every == 0 or state.step == settings.steps:
                state.save(checkpoint)
                _write_curve(folder / "loss.csv", state.curve())
    network.eval()
    return Trained(state.average, state.curve(), state.seconds)


def _checked(loss: Tensor, step: int, checkpoint: Path) -> float:
    value = float(loss.detach())
    if math.isfinite(value):
        return value
    place = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
    raise NotFinite(f"the loss became {value} at step {step}; {place}; lower the learning rate or check the data")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _write_curve(path: Path, losses: list[tuple[int, float]]) -> None:
    files.write_text(path, "step,loss\n" + "".join(f"{step},{value:.6g}\n" for step, value in losses))
