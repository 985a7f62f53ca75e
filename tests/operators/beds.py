"""Travelling waves on a circle: a small source whose frames are known in closed form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, DataSpec, FieldSpec, ParameterSpec, Window
from isocline.training import Part

N = 32


def spec(n: int = N) -> DataSpec:
    return DataSpec(
        "waves",
        (FieldSpec("u"), FieldSpec("k", varies=False)),
        ("x",),
        (0.0,),
        (2 * math.pi,),
        (n,),
        ("periodic",),
        times=40,
        dt=2 * math.pi / 32,
        parameters=(ParameterSpec("a", 0.5, 1.5),),
    )


@dataclass(frozen=True)
class Waves:
    """Four waves of one speed; the first has an amplitude a and a phase. One frame is a shift by 1/32 of the circle."""

    spec: DataSpec

    def batch(self, n: int, window: Window, seed: int = 0, step: int = 0, first: int = 0) -> Batch:
        drawn = Stream(seed, "waves").uniform((n, 3), step=step, first=first, dtype=torch.float64)
        a, phase, start = 0.5 + drawn[:, 0], 2 * math.pi * drawn[:, 1], (10 * drawn[:, 2]).floor() * self.spec.dt
        (size,) = self.spec.resolution
        x = torch.arange(size, dtype=torch.float64) * 2 * math.pi / size
        frames = window.past + window.future
        dt = self.spec.dt * window.stride
        t = start[:, None] + dt * torch.arange(frames, dtype=torch.float64)
        moving = x - t[..., None]
        u = a[:, None, None] * torch.sin(moving + phase[:, None, None])
        u = (u + 0.5 * torch.sin(2 * moving) + 0.5 * torch.sin(6 * moving) + 0.5 * torch.sin(11 * moving)).unsqueeze(-1)
        return Batch(
            self.spec,
            u[:, : window.past].float(),
            u[:, window.past :].float(),
            t[:, window.past :],
            torch.full((n,), dt, dtype=torch.float64),
            a[:, None].float(),
            x[:, None].float(),
            torch.zeros(n, size, 1),
        )

    def draw(
        self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Part | None = None
    ) -> Batch:
        part = part or Part()
        return self.batch(batch_size // part.count, window, rng.seed, step, part.first(batch_size))


def convolution(inputs: int, outputs: int, conditions: int) -> nn.Module:
    """A linear layer over three neighbours, which can shift a field by one point."""
    assert conditions == 0
    return nn.Conv1d(inputs, outputs, 3, padding=1, padding_mode="circular")


class Told(nn.Module):
    """A small network that takes a condition."""

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, 16, 5, padding=2, padding_mode="circular")
        self.condition = nn.Linear(conditions, 16)
        self.last = nn.Conv1d(16, outputs, 5, padding=2, padding_mode="circular")

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) + self.condition(condition)[..., None]))
