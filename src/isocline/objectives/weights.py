r"""Loss weights ``w(t)`` on the squared error of the data prediction.

An output ``m = dx x + dm x_0`` has the error ``dm`` times that of the data prediction, so unit weight on one output is the weight
``dm^2`` on the data: ``alpha^2 / sigma^2`` (the SNR) for noise, ``alpha^2 / sigma^4`` for the score. Weight and network output are
thus independent choices: every pair is possible, and comparing two outputs at one weight compares only the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from isocline._core.errors import require
from isocline.processes import GaussianProcess, Parameterisation


@dataclass(frozen=True)
class UnitOn:
    """Weight 1 on the squared error of one output, whatever the network predicts.

    Args:
        parameterisation: the output with unit weight; ``UnitOn(Noise())`` is the SNR weight.

    Examples:
        >>> import torch
        >>> from isocline.processes import EDM, Noise
        >>> UnitOn(Noise())(EDM(), torch.tensor([0.5, 2.0], dtype=torch.float64))
        tensor([4.0000, 0.2500], dtype=torch.float64)
    """

    parameterisation: Parameterisation

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return weights of the shape of `t`."""
        return self.parameterisation.from_data(process, t)[1] ** 2


@dataclass(frozen=True)
class EDMWeight:
    """``(s^2 + sd^2) / (s sd)^2``: unit weight on the raw output of an EDM-preconditioned network (arXiv 2206.00364).

    Args:
        sigma_data: standard deviation of the data.
    """

    sigma_data: float

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data must be positive, got {self.sigma_data}")

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return weights of the shape of `t`."""
        s = process.noise_level(t)
        return (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2
