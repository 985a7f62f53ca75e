r"""Classification of time series by a kernel on paths, without training a network.

A series is a path: gaps are filled linearly, channels standardised by training, and time, evenly from 0 to 3.5 so that it has the
same spread, put in front; all of it times `scale`. It starts at 0, from where it jumps to its first value: a kernel on paths sees
increments only, and so it sees levels too. A support vector machine then sees ``K(x, y) / sqrt(K(x, x) K(y, y))``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.timeseries.estimators import sklearn
from isocline.timeseries.kernels.neural_signature import METHOD, NeuralSignatureKernel

_ALLOWED: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}


class PathKernel(Protocol):
    """A kernel on paths (n, T, C)."""

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the Gram matrix (n, m), of `x` with itself where `y` is None."""
        ...

    def diagonal(self, x: Tensor) -> Tensor:
        """Return ``K(x, x)``, (n,)."""
        ...


@METHOD.variant()
class SignatureKernelClassifier(sklearn.ClassifierMixin, sklearn.BaseEstimator):
    """A support vector machine with a kernel on paths; takes series (n, T, C) or (n, T), NaN where missing.

    Cost grows with the square of the number of series and of their length.

    Args:
        kernel: on paths (n, T, C); `NeuralSignatureKernel` with ReLU where it is None.
        scale: standard deviation of each channel of the paths. A large one weighs what is far apart along a path; logarithms of the
            kernel grow with it, and so does the error of the kernel's grid.
        C: how much errors in training cost, as in scikit-learn's SVC.

    Raises:
        InvalidInput: in `fit` and `predict`, series that are too few, too short, of another shape than in training, or too rough
            for the kernel's grid.

    Source: Cirone, Lemercier and Salvi, arXiv 2303.17671.
    """

    def __init__(self, kernel: PathKernel | None = None, *, scale: float = 0.1, C: float = 10.0) -> None:
        self.kernel = kernel
        self.scale = scale
        self.C = C

    def fit(self, X: Any, y: Any) -> SignatureKernelClassifier:
        """Compute the Gram matrix of series and fit the machine to their classes `y` (n,)."""
        from sklearn.svm import SVC

        require(self.scale > 0 and self.C > 0, f"scale and C must be positive, got {self.scale}, {self.C}")
        if _axes(X) == 3:
            values, y = sklearn.check_X_y(X, y, **_ALLOWED, allow_nd=True, estimator=self)
            self.n_features_in_ = values.shape[2]
        else:
            values, y = sklearn.validate_data(self, X, y, **_ALLOWED)
            values = values[..., None]
        sklearn.check_classification_targets(y)
        require(len(values) >= 2, "one series is not enough to train on: got n_samples = 1")
        require(values.shape[1] >= 2, f"a series needs at least 2 times, got n_features = {values.shape[1]}")
        self.channels_ = values.shape[2]
        filled = _filled(values)
        spread = filled.std((0, 1))
        self.mean_, self.std_ = filled.mean((0, 1)), np.where(spread > 0, spread, 1.0)
        self.kernel_ = NeuralSignatureKernel() if self.kernel is None else self.kernel
        self.paths_ = torch.from_numpy(self._paths(values))
        gram = self.kernel_(self.paths_).detach().numpy()
        self.norms_ = _root(np.diagonal(gram))
        self.gram_ = gram / np.outer(self.norms_, self.norms_)  # kept, as it does not depend on C
        self.machine_ = SVC(kernel="precomputed", C=self.C).fit(self.gram_, y)
        self.classes_ = self.machine_.classes_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the classes (n,) of series."""
        features = self._features(X)
        found: np.ndarray = self.machine_.predict(features)
        return found

    def decision_function(self, X: Any) -> np.ndarray:
        """Return what the machine decides by, as scikit-learn's SVC does: (n,) for two classes, else (n, classes)."""
        features = self._features(X)
        found: np.ndarray = self.machine_.decision_function(features)
        return found

    def _features(self, X: Any) -> np.ndarray:
        """Return the normalised kernel (n, training series)."""
        sklearn.check_is_fitted(self)
        if _axes(X) == 3:
            values = sklearn.check_array(X, **_ALLOWED, allow_nd=True)
        else:
            values = sklearn.validate_data(self, X, reset=False, **_ALLOWED)[..., None]
        name = type(self).__name__
        require(
            values.shape[2] == self.channels_,
            f"X has {values.shape[2]} channels, {name} was fitted with {self.channels_}",
        )
        paths = torch.from_numpy(self._paths(values))
        cross = self.kernel_(paths, self.paths_).detach().numpy()
        norms = _root(self.kernel_.diagonal(paths).detach().numpy())
        return np.asarray(cross / np.outer(norms, self.norms_))

    def _paths(self, values: np.ndarray) -> np.ndarray:
        """Return paths (n, 1 + T, 1 + C)."""
        n, length, channels = values.shape
        path = np.zeros((n, 1 + length, 1 + channels))
        path[:, 1:, 0] = np.linspace(0, 12**0.5, length)
        path[:, 1:, 1:] = (_filled(values) - self.mean_) / self.std_
        return path * self.scale

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags


def _axes(X: Any) -> int:
    return int(X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim)


def _root(squares: np.ndarray) -> np.ndarray:
    good = bool((np.isfinite(squares) & (squares > 0)).all())
    require(good, "the kernel's grid is too coarse: K(x, x) is not positive; lower scale, or raise the kernel's refine")
    return np.asarray(np.sqrt(squares))


def _filled(values: np.ndarray) -> np.ndarray:
    """Return series (n, T, C) with gaps filled linearly, ends repeated, and 0 where a channel was never seen."""
    if not np.isnan(values).any():
        return values
    out, places = values.copy(), np.arange(values.shape[1])
    for series in out:
        for channel in series.T:
            known = np.isfinite(channel)
            channel[~known] = np.interp(places[~known], places[known], channel[known]) if known.any() else 0.0
    return out
