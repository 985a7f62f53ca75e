r"""Exact Gaussian process regression with a Matern kernel of smoothness 5/2 and one length for each input.

    k(x, x') = s^2 (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r) + n [x = x'] ,        r^2 = sum_d (x_d - x'_d)^2 / l_d^2

The logarithms of (s^2, l_1 ... l_D, n) maximise the marginal likelihood ``-1/2 y^T K^-1 y - 1/2 log det K - N/2 log 2 pi`` of
standardised targets, whose gradient is ``1/2 tr((K^-1 y y^T K^-1 - K^-1) dK)``, by L-BFGS from several starts.
Source: Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2, 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.stream import Stream, as_stream

VARIANCE, LENGTH, NOISE = (1e-3, 1e3), (1e-2, 1e3), (1e-8, 1.0)  # ranges of standardised data
ROOT5 = math.sqrt(5)
ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """Several independent outputs of the same inputs, each with hyperparameters of its own.

    Attributes:
        x: inputs, standardised, (N, D).
        y: targets, standardised, (N, K).
        theta: logarithms of variance, lengths and noise, (K, D + 2).
        x_scale: mean and spread of inputs, (2, D).
        y_scale: mean and spread of targets, (2, K).

    Examples:
        >>> x = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(1)
        >>> model = GaussianProcess.fit(x, torch.sin(6 * x), rng=0)
        >>> mean, std = model.predict(torch.tensor([[0.5]], dtype=torch.float64))
        >>> abs(float(mean) - math.sin(3)) < 1e-3, float(std) < 1e-2
        (True, True)
    """

    x: Tensor
    y: Tensor
    theta: Tensor
    x_scale: Tensor
    y_scale: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, *, restarts: int = 3, rng: Stream | int = 0) -> GaussianProcess:
        """Return the process with the greatest marginal likelihood found.

        Args:
            x: inputs, (N, D).
            y: targets, (N, K).
            restarts: starts of the maximisation; the first is at unit lengths and little noise, the others are random.
            rng: of the random starts.

        Raises:
            InvalidInput: fewer than three rows, or numbers of rows that differ.
            NotFinite: a number is NaN or infinite.
        """
        require(x.ndim == y.ndim == 2 and len(x) == len(y) >= 3, "a Gaussian process needs x (N, D), y (N, K), N >= 3")
        require(restarts >= 1, f"restarts must be at least 1, got {restarts}")
        if not bool(x.isfinite().all() and y.isfinite().all()):
            raise NotFinite("inputs or targets of the Gaussian process are NaN or infinite")
        x, y = x.detach().double(), y.detach().double()
        x_scale, y_scale = _scale(x), _scale(y)
        x, y = (x - x_scale[0]) / x_scale[1], (y - y_scale[0]) / y_scale[1]
        stream = as_stream(rng, "gaussian process")
        theta = [_best(x, y[:, k], restarts, stream.child(k)) for k in range(y.shape[1])]
        return cls(x, y, torch.stack(theta), x_scale, y_scale)

    def predict(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, (M, K) each, at inputs (M, D).

        Args:
            x: inputs.
            noise: whether the noise of a new observation counts.

        Raises:
            InvalidInput: inputs of another dimension.
        """
        require(
            x.ndim == 2 and x.shape[1] == self.x.shape[1],
            f"inputs have {self.x.shape[1]} columns, got {tuple(x.shape)}",
        )
        x = (x.detach().double() - self.x_scale[0]) / self.x_scale[1]
        found = [self._one(x, k, noise) for k in range(len(self.theta))]
        mean, std = (torch.stack(part, 1) for part in zip(*found, strict=True))
        return mean * self.y_scale[1] + self.y_scale[0], std * self.y_scale[1]

    def _one(self, x: Tensor, k: int, noise: bool) -> tuple[Tensor, Tensor]:
        theta = self.theta[k]
        factor = torch.linalg.cholesky(covariance(self.x, theta))
        cross = kernel(x, self.x, theta)
        mean = cross @ torch.cholesky_solve(self.y[:, k : k + 1], factor)[:, 0]
        explained = torch.linalg.solve_triangular(factor, cross.T, upper=False).square().sum(0)
        left = theta[0].exp() - explained + (theta[-1].exp() if noise else 0.0)
        return mean, left.clamp(min=0).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Return what it consists of, by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> GaussianProcess:
        """Return the process that `tensors` were taken from."""
        return cls(**{name: tensors[name] for name in cls.__dataclass_fields__})


def kernel(a: Tensor, b: Tensor, theta: Tensor) -> Tensor:
    """Return the Matern covariance without noise, (N, M), of inputs (N, D) and (M, D)."""
    r = torch.cdist(a / theta[1:-1].exp(), b / theta[1:-1].exp(), compute_mode="donot_use_mm_for_euclid_dist")
    return theta[0].exp() * (1 + ROOT5 * r + 5 / 3 * r.square()) * torch.exp(-ROOT5 * r)


def covariance(x: Tensor, theta: Tensor) -> Tensor:
    """Return the covariance of observations, (N, N)."""
    return kernel(x, x, theta) + theta[-1].exp() * torch.eye(len(x), dtype=x.dtype)


def marginal_likelihood(x: Tensor, y: Tensor, theta: Tensor) -> tuple[float, Tensor]:
    """Return the logarithm of the marginal likelihood and its gradient (D + 2,); minus infinity where K is singular.

    Args:
        x: inputs, (N, D) float64.
        y: targets, (N,).
        theta: logarithms of variance, lengths and noise, (D + 2,).
    """
    scaled = x / theta[1:-1].exp()
    r = torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist")
    decay, noise = theta[0].exp() * torch.exp(-ROOT5 * r), theta[-1].exp()
    matern = decay * (1 + ROOT5 * r + 5 / 3 * r.square())
    factor, failed = torch.linalg.cholesky_ex(matern + noise * torch.eye(len(x), dtype=x.dtype))
    if int(failed):
        return -math.inf, torch.zeros_like(theta)
    inverse = torch.cholesky_inverse(factor)
    solved = inverse @ y
    value = -0.5 * float(y @ solved) - float(factor.diagonal().log().sum()) - 0.5 * len(y) * math.log(2 * math.pi)
    outer = torch.outer(solved, solved) - inverse
    slope = outer * decay * (5 / 3) * (1 + ROOT5 * r)
    lengths = slope.sum(1) @ scaled.square() - (scaled * (slope @ scaled)).sum(0)
    ends = torch.stack([0.5 * (outer * matern).sum(), 0.5 * noise * outer.diagonal().sum()])
    return value, torch.cat([ends[:1], lengths, ends[1:]])


def _best(x: Tensor, y: Tensor, restarts: int, rng: Stream) -> Tensor:
    d = x.shape[1]
    bounds = np.log([VARIANCE, *[LENGTH] * d, NOISE])
    first = np.log([1.0, *[math.sqrt(d)] * d, 1e-3])
    u = rng.uniform((max(restarts - 1, 1), d + 2), dtype=torch.float64).numpy()[: restarts - 1]
    low, high = np.log([0.1, *[0.3] * d, 1e-6]), np.log([10.0, *[30.0] * d, 0.1])

    def lost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = marginal_likelihood(x, y, torch.from_numpy(theta))
        return (-value, -gradient.numpy()) if math.isfinite(value) else (1e12, np.zeros(d + 2))

    options = {"maxiter": ITERATIONS}
    tries = [
        minimize(lost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in [first, *low + u * (high - low)]
    ]
    return torch.from_numpy(min(tries, key=lambda t: float(t.fun)).x.copy())


def _scale(values: Tensor) -> Tensor:
    """Return mean and spread by column, (2, D); spread 1 where nothing varies."""
    mean, std = values.mean(0), values.std(0)
    least = 1e-12 * values.abs().amax(0).clamp(min=1e-300)
    return torch.stack([mean, torch.where(std > least, std, torch.ones_like(std))])
