"""What S3 minimises: functions of the samples and the teacher's, (B, *) each. `energy_distance` compares laws instead of pairs."""

from __future__ import annotations

from torch import Tensor

from isocline.metrics.distances import energy_distance, rms

__all__ = ["energy_distance", "median_error", "rms_error"]


def rms_error(x: Tensor, target: Tensor) -> float:
    """Return the root mean square difference over all samples, which large errors dominate.

    >>> rms_error(Tensor([[3.0], [4.0]]), Tensor([[0.0], [0.0]])) == 12.5**0.5
    True
    """
    return rms(x, target).double().square().mean().sqrt().item()


def median_error(x: Tensor, target: Tensor) -> float:
    """Return the median over samples of the root mean square difference."""
    return rms(x, target).double().median().item()
