r"""An imperfect network made from a perfect one, to see what a method does with model error.

    D'(x, t) = D(x, t) + a sin(2 (V W u + c tanh(lam / 4)) + b),      u = x / sqrt(alpha^2 + sigma^2).

``W`` (16, d), ``V`` (d, 16), ``c`` and ``b`` (d,) are fixed random numbers. The error is smooth, at most ``a`` in each
coordinate, finite where ``lam`` is infinite, and a function of ``(y, s)`` alone: the same for every process.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.processes.denoiser import Denoiser, Prediction
from isocline.processes.gaussian import as_time, match
from isocline.processes.wrapper import Wrapper

FEATURES = 16


class PerturbedDenoiser(Wrapper):
    """A denoiser whose data prediction is off by a smooth, bounded, deterministic amount.

    Args:
        denoiser: usually an exact one.
        amplitude: the largest error of the data prediction in a coordinate, in units of the data.
        seed: selects the error.
    """

    def __init__(self, denoiser: Denoiser, amplitude: float, seed: int) -> None:
        require(0 <= amplitude < math.inf, f"the amplitude must be finite and not negative, got {amplitude}")
        super().__init__(denoiser)
        self.amplitude, self.seed = float(amplitude), int(seed)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the native output that belongs to ``D'``, (B, *)."""
        _, slope = self.parameterisation.from_data(self.process, t)
        return self.inner(x, t, cond) + match(slope, x) * self.perturbation(x, t)

    def vjp(self, x: Tensor, t: Tensor | float, v: Tensor, cond: Any = None) -> tuple[Prediction, Tensor]:
        """Return the perturbed prediction and its product; the perturbation's part is closed form."""
        t = as_time(t)
        exact, product = self.inner.vjp(x, t, v, cond)
        phase, scale = self._phase(x, t)
        w, spread, _, _ = _features(self.seed, phase.shape[1])
        back = (v.flatten(1) * torch.cos(phase)) @ spread.to(x) @ w.to(x)
        own = 2 * self.amplitude * scale * back.reshape(x.shape)
        x0 = exact.x0 + self.amplitude * torch.sin(phase).reshape(x.shape)
        return self._complete(x, t, x0), product + own

    def perturbation(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return ``D' - D`` (B, *) at states `x` (B, *) and times `t` (scalar or (B,))."""
        return self.amplitude * torch.sin(self._phase(x, as_time(t))[0]).reshape(x.shape)

    def _phase(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        scale = match(torch.rsqrt(self.process.alpha(t) ** 2 + self.process.sigma(t) ** 2), x)
        clock = torch.tanh(self.process.half_log_snr(t) / 4).to(x).reshape(-1, 1)
        w, spread, c, b = (part.to(x) for part in _features(self.seed, x[0].numel()))
        return 2 * ((scale * x).flatten(1) @ w.T @ spread.T + clock * c) + b, scale


@lru_cache(maxsize=16)
def _features(seed: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``W`` (16, width), ``V`` (width, 16), ``c`` and ``b`` (width,) in float64."""
    stream = Stream(seed, "perturbation")
    normal = [stream.child(name).normal((width, FEATURES), dtype=torch.float64) for name in ("in", "out")]
    shift = stream.child("clock").normal((width,), dtype=torch.float64)
    phase = 2 * math.pi * stream.child("phase").uniform((width,), dtype=torch.float64)
    return normal[0].T / math.sqrt(width), normal[1] / math.sqrt(FEATURES), shift, phase
