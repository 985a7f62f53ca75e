"""One small instance of every exact denoiser, as functions of the process."""

from collections.abc import Callable

import torch

from isocline._core.stream import Stream
from isocline.processes import (
    AffineSubspace,
    Circle,
    Empirical,
    ExactDenoiser,
    FinitePoints,
    GaussianMixture,
    GaussianProcess,
    Sphere,
)


def cloud(n: int, *event: int, name: str = "cloud") -> torch.Tensor:
    """Return standard normal numbers (n, *event) in float64."""
    return Stream(0, name).normal((n, *event), dtype=torch.float64)


def frame(d: int, m: int) -> torch.Tensor:
    """Return an orthonormal basis (d, m)."""
    return torch.linalg.qr(cloud(d, m, name="frame")).Q


EXACT: dict[str, Callable[[GaussianProcess], ExactDenoiser]] = {
    "smooth bed": lambda process: GaussianMixture.smooth_bed(process, 0),
    "circle bed": lambda process: GaussianMixture.circle_bed(process, d=3, components=40, std=0.1),
    "circle": lambda process: Circle(process, 3, 1.5),
    "sphere": lambda process: Sphere(process, 5, 3, 0.7),
    "subspace": lambda process: AffineSubspace(process, frame(4, 2), cloud(1, 4)[0], 0.8),
    "points": lambda process: FinitePoints(process, cloud(7, 2, 3), torch.arange(1, 8) / 28),
    "empirical": lambda process: Empirical(process, cloud(9, 2, 3), 0.3),
}
