r"""Predictions that conserve what they must, with their uncertainty (Hansen, Maddix, Alizadeh, Gupta, Mahoney, arXiv 2302.11002).

A prediction of a field at N points has a mean mu and a covariance Sigma; integrals of the field are known, ``G u = b``, with
quadrature weights in the rows of G and ``b(t)`` the initial mass plus what came in through the boundary. Conditioning on
``G u + noise = b`` gives

    mu'    = mu - K (G mu - b) ,      Sigma' = Sigma - K G Sigma ,      K = Sigma G^T (sigma^2 I + G Sigma G^T)^{-1}

which is exact for ``sigma = 0``. Corrections land where the prediction is uncertain, near a shock for example. With
``Sigma = I`` it is the Euclidean projection, which shifts all points alike. The arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.datasets.fields import Batch
from isocline.operators.models import OperatorModel

METHOD = Method(
    "probconserv",
    "ProbConserv",
    "Learning Physical Models that Can Respect Conservation Laws",
    "Hansen, Maddix, Alizadeh, Gupta, Mahoney",
    2023,
    "2302.11002",
    room="operators",
    when="A prediction with variances whose integral is known: shocks and fronts, after any model, without training it again.",
)


@dataclass(frozen=True)
class Conserved:
    """A prediction that satisfies its constraints.

    Attributes:
        mean: (B, N) float64.
        covariance: (B, N, N) float64; singular along the constraints where they are exact.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def variance(self) -> Tensor:
        """The variance at each point, (B, N), at least 0."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0)


@METHOD.variant()
def conserved(mean: Tensor, variance: Tensor, weights: Tensor, values: Tensor, sigma: float = 0.0) -> Conserved:
    """Return a prediction given that linear functionals of the field are known.

    Args:
        mean: mu, (B, N).
        variance: Sigma, (B, N) for a diagonal or (B, N, N).
        weights: G, (m, N) or (B, m, N): m functionals, in general quadrature weights.
        values: b, (B, m).
        sigma: standard deviation of the noise in `values`; 0 for exact constraints.

    Raises:
        InvalidInput: shapes that do not fit, a negative variance, or constraints that depend on each other.

    Source: arXiv 2302.11002.

    Examples:
        >>> one = torch.ones(1, 4, dtype=torch.float64)
        >>> conserved(one, torch.tensor([[0.0, 1.0, 3.0, 0.0]]), one / 4, torch.tensor([[2.0]])).mean
        tensor([[1., 2., 4., 1.]], dtype=torch.float64)
    """
    n, points = mean.shape
    mu, g, b = mean.double(), weights.double().expand(n, -1, -1), values.double()
    require(g.shape[-1] == points, f"weights are for {g.shape[-1]} points, the prediction has {points}")
    require(b.shape == g.shape[:2], f"{g.shape[1]} functionals of {n} predictions need values {tuple(g.shape[:2])}")
    require(sigma >= 0, f"sigma is at least 0, got {sigma:g}")
    full = torch.diag_embed(variance.double()) if variance.ndim == 2 else variance.double()
    fits = full.shape == (n, points, points)
    require(fits, f"a variance {tuple(variance.shape)} does not fit a mean {tuple(mean.shape)}")
    require(bool((full.diagonal(dim1=-2, dim2=-1) >= 0).all()), "a variance is negative")
    sg = full @ g.mT
    inside = g @ sg + sigma**2 * torch.eye(g.shape[1], dtype=torch.float64, device=g.device)
    factor, failed = torch.linalg.cholesky_ex(inside)
    require(not bool(failed.any()), "constraints depend on each other, or bind only points of zero variance")
    gain = torch.cholesky_solve(sg.mT, factor).mT
    off = (g @ mu[..., None])[..., 0] - b
    return Conserved(mu - (gain @ off[..., None])[..., 0], full - gain @ sg.mT)


def projected(mean: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Return the nearest field, in the Euclidean norm, with the given functionals: (B, N) float64. Arguments as `conserved`."""
    return conserved(mean, torch.ones_like(mean), weights, values).mean


def trapezoid(x: Tensor) -> Tensor:
    """Return the trapezoid rule's weights at increasing points x (N,), (1, N) float64.

    >>> trapezoid(torch.tensor([0.0, 1.0, 3.0]))
    tensor([[0.5000, 1.5000, 1.0000]], dtype=torch.float64)
    """
    increasing = x.ndim == 1 and len(x) >= 2 and bool((x.diff() > 0).all())
    require(increasing, "the trapezoid rule needs increasing points (N,)")
    half = x.double().diff() / 2
    return (torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0)))[None]


Flux = Callable[[Batch, Tensor], Tensor]
Variance = Callable[[Tensor], Tensor]


class Conserving(OperatorModel):
    """A stepper whose predictions keep the integral of one channel.

    The integral is that of the last given frame, by cells of equal size, plus what `flux` says came in.

    Args:
        model: any stepper on grids.
        channel: which channel is conserved.
        variance: how uncertain a prediction ``(B, T, *S)`` is at each point, of the same shape; equal everywhere without it, which
            shifts all points alike.
        flux: of a batch and times t (B, T), what entered between the last given frame and then, as a mean over the domain (B, T);
            nothing without it, as on periodic domains and between walls.
    """

    def __init__(
        self, model: OperatorModel, channel: int = 0, *, variance: Variance | None = None, flux: Flux | None = None
    ) -> None:
        super().__init__()
        require(model.window.past >= 1, "what is conserved is that of a given frame, so the model needs one")
        require(0 <= channel < model.spec.channels, f"there are {model.spec.channels} channels, got channel {channel}")
        self.model, self.channel, self.variance, self.flux = model, channel, variance, flux
        self.spec, self.window = model.spec, model.window

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        """Return the model's frames, corrected."""
        frames: Tensor = self.model(batch) if lead is None else self.model(batch, lead=lead)
        u = frames[..., self.channel].double()
        spread = torch.ones_like(u) if self.variance is None else self.variance(u).double()
        mass = batch.x[:, -1, ..., self.channel].double().flatten(1).mean(1)[:, None].expand(u.shape[:2])
        if self.flux is not None:
            mass = mass + self.flux(batch, batch.t[:, : u.shape[1]])
        flat, wide = u.flatten(2), spread.flatten(2)
        shift = wide / wide.mean(2, keepdim=True) * (mass - flat.mean(2))[..., None]
        channels = list(frames.unbind(-1))
        channels[self.channel] = (flat + shift).reshape(u.shape).to(frames.dtype)
        return torch.stack(channels, -1)
