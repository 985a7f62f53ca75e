r"""A Gaussian on an affine subspace: ``x_0 = b + std U z`` with orthonormal ``U`` (d, m) and ``z ~ N(0, I_m)``.

    D = b + c U U^T (x - alpha b),    c = alpha std^2 / (alpha^2 std^2 + sigma^2),

the linear case of data on a thin set: noise across the subspace is removed entirely, along it in part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.processes.exact.base import ExactDenoiser, normals
from isocline.processes.gaussian import GaussianProcess


class AffineSubspace(ExactDenoiser):
    """The exact denoiser of a Gaussian on an affine subspace; it is linear in the state.

    Args:
        process: any Gaussian process.
        basis: orthonormal columns (d, m).
        offset: a point of the subspace (d,), the mean.
        std: standard deviation along the subspace.
    """

    def __init__(self, process: GaussianProcess, basis: Tensor, offset: Tensor, std: float) -> None:
        require(basis.ndim == 2, f"the basis must have shape (d, m), got {tuple(basis.shape)}")
        require(offset.shape == basis.shape[:1], f"the offset must have shape ({basis.shape[0]},)")
        require(0 < std < math.inf, f"std must be positive, got {std}")
        super().__init__(process, (basis.shape[0],))
        basis = basis.double()
        error = (basis.T @ basis - torch.eye(basis.shape[1], dtype=torch.float64)).abs().max()
        require(float(error) < 1e-6, "the basis must have orthonormal columns; pass torch.linalg.qr(basis).Q")
        self.basis, self.offset, self.std = basis, offset.double(), float(std)

    def sample(self, n: int, rng: Stream | int, *, first: int = 0) -> Tensor:
        """Return `n` data (n, d) in float64."""
        z = normals(as_stream(rng, "subspace"), n, self.basis.shape[1], first)
        return self.offset + self.std * z @ self.basis.T

    def _project(self, x: Tensor) -> Tensor:
        basis = self.basis.to(x)
        return x @ basis @ basis.T

    def _gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        offset = self.offset.to(x)
        return offset + self._gain(alpha, sigma) * self._project(x - alpha * offset)

    def _mean_vjp(self, x: Tensor, alpha: Tensor, sigma: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._mean(x, alpha, sigma), self._gain(alpha, sigma) * self._project(v)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        (d, m), shifted = self.basis.shape, x - alpha * self.offset.to(x)
        along = self._project(shifted)
        var = alpha**2 * self.std**2 + sigma**2
        across = (shifted - along) / sigma
        squared = (along**2 / var).sum(-1, keepdim=True) + (across**2).sum(-1, keepdim=True)
        volume = m * torch.log(var) + (d - m) * torch.log(sigma**2) + d * math.log(2 * math.pi)
        return -0.5 * (squared + volume).squeeze(-1)
