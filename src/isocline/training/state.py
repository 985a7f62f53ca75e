"""What a checkpoint holds: weights, their average, the optimiser's moments, the step."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import Mismatch
from isocline.training.settings import Settings

LOG_EVERY = 20


class State:
    """Everything a checkpoint holds."""

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self.network, self.settings = network, settings
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=settings.decay, foreach=True
        )
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []

    def advance(self) -> None:
        """Count one update and move the average towards the weights."""
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)
        self.step += 1

    def save(self, path: Path) -> None:
        """Write the checkpoint, atomically."""
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in state.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        about = {"settings": json.dumps(asdict(self.settings)), "step": str(self.step), "seconds": str(self.seconds)}
        files.write_tensors(path, tensors, about)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; one that was written with other settings is refused.

        How often to write checkpoints and in how many parts to compute a batch may change between runs.
        """
        tensors, about = files.read_tensors(path)
        if _decisive(json.loads(about["settings"])) != _decisive(asdict(self.settings)):
            raise Mismatch(
                f"{path} was written with other settings ({about['settings']}); use the same settings to resume, "
                "or another output folder to start anew"
            )
        self.network.load_state_dict(_part(tensors, "network/"))
        self.average = {k: v.to(self.average[k].device) for k, v in _part(tensors, "average/").items()}
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
        return [(end, sum(part) / len(part)) for end, part in zip(ends, parts, strict=True) if part]


def _decisive(settings: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name not in ("checkpoint_every", "accumulate")}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
