r"""A denoiser of one process, used as a denoiser of another.

In ``(y, s)``, ``y = x / alpha``, all Gaussian processes are one, and the data prediction is a function of ``(y, s)`` alone. So a
model trained for one process answers for every other: the state is scaled, the time is the one with the same noise level,

    D(x, t) = D'(x sigma'(t') / sigma(t), t') ,      s'(t') = s(t) .

This is how a diffusion model starts the training of a flow (Lee et al., arXiv 2405.20320).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from isocline.processes.denoiser import Denoiser
from isocline.processes.gaussian import GaussianProcess, match
from isocline.processes.parameterisation import Data, Parameterisation


class Transported(Denoiser):
    """`denoiser` as a model of `process`.

    Noise levels outside the denoiser's own range are answered at its nearest end; a flow's start without signal is one.

    Args:
        denoiser: any denoiser.
        process: the process it shall serve.
        parameterisation: what it shall output; data predictions by default.
    """

    def __init__(
        self, denoiser: Denoiser, process: GaussianProcess, parameterisation: Parameterisation | None = None
    ) -> None:
        super().__init__(process, parameterisation or Data())
        self.denoiser, self.guidance = denoiser, denoiser.guidance

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the output (B, *) for states `x` (B, *) of the new process."""
        own = self.denoiser.process
        ends = own.half_log_snr(t.new_tensor([own.t_max, max(own.t_min, 1e-12)]))
        told = own.time_of(self.process.half_log_snr(t).clamp(ends[0], ends[1]))
        inside = match(own.sigma(told) / self.process.sigma(t), x) * x
        x0 = self.denoiser.predict(inside, told, cond).x0
        if isinstance(self.parameterisation, Data):
            return x0
        dx, dm = self.parameterisation.from_data(self.process, t)
        return match(dx, x) * x + match(dm, x) * x0
