"""Simulators with closed solutions, for tests of storage and streaming."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from isocline.datasets.fields import DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.spec import EquationSpec

HEAT = EquationSpec("heat", lambda u, q, p: u.t - p.k * u.xx, ("u",), ("x",), {"k": "conductivity"})


@dataclass(frozen=True)
class Heat(Simulator):
    """Sines that decay, u = sum a_j exp(-k j^2 t) sin(j x) on a circle; the vector w = (u,); a constant field c."""

    points: int = 16
    times: int = 6
    pause: float = 0.0  # seconds a frame
    stop_at: int = -1  # a case that breaks off in the middle, once
    mark: str = ""  # file that says that it did
    bad: int = -1  # a case with a NaN in frame 2
    short: int = 0  # frames that are missing

    equation: ClassVar[EquationSpec] = HEAT

    @property
    def spec(self) -> DataSpec:
        fields = (FieldSpec("w", 1), FieldSpec("u"), FieldSpec("c", varies=False))
        k = ParameterSpec("k", 0.1, 1.0, log=True)
        ends: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,), (2 * math.pi,))
        return DataSpec("heat", fields, ("x",), *ends, (self.points,), ("periodic",), self.times, 0.1, (k,))

    def constants(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> dict[str, Tensor]:
        n = (resolution or self.spec.resolution)[0]
        return {"c": cases.uniform((1,), "c").expand(len(cases), n)}

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        x = self.coordinates(cases, resolution or self.spec.resolution)[..., 0]
        j = torch.arange(1, 4, dtype=torch.float64)
        waves, a = torch.sin(j[:, None] * x), cases.normal((3,), "a")
        for i in range(self.times - self.short):
            if self.pause:
                time.sleep(self.pause)
            if self.stop_at in range(cases.first, cases.first + len(cases)) and i == self.times // 2:
                self._break_off()
            t = 0.1 * i
            u = (a * torch.exp(-cases.parameters["k"][:, None] * j**2 * t)) @ waves
            if self.bad in range(cases.first, cases.first + len(cases)) and i == 2:
                u[self.bad - cases.first] = math.nan
            yield Frame(torch.full((len(cases),), t, dtype=torch.float64), {"u": u, "w": u.unsqueeze(-1)})

    def _break_off(self) -> None:
        if not Path(self.mark).exists():
            Path(self.mark).write_text("stopped")
            os.kill(os.getpid(), 9)
