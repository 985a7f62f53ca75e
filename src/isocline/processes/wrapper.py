"""What denoisers that wrap another one share: everything is the inner one's, its counters too."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from isocline.processes.denoiser import Denoiser, Prediction


class Wrapper(Denoiser):
    """A denoiser around another one. Calls and products are counted where the network is, once.

    Args:
        inner: the denoiser that does the work.
    """

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner
        self.process, self.parameterisation, self.guidance = inner.process, inner.parameterisation, inner.guidance

    @property
    def calls(self) -> int:
        """Network calls so far, those of the inner denoiser."""
        return self.inner.calls

    @calls.setter
    def calls(self, value: int) -> None:
        self.inner.calls = value

    @property
    def vjps(self) -> int:
        """Vector-Jacobian products so far, those of the inner denoiser."""
        return self.inner.vjps

    @vjps.setter
    def vjps(self, value: int) -> None:
        self.inner.vjps = value

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the native output; the inner denoiser counts."""
        return self.forward(x, t, cond)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the inner denoiser's output."""
        return self.inner(x, t, cond)

    def vjp(self, x: Tensor, t: Tensor | float, v: Tensor, cond: Any = None) -> tuple[Prediction, Tensor]:
        """Return the inner denoiser's prediction and product."""
        return self.inner.vjp(x, t, v, cond)
