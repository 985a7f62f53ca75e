"""What is predicted: a class, or numbers."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from isocline.timeseries.estimators import sklearn
from isocline.timeseries.estimators.base import SeriesEstimator
from isocline.timeseries.estimators.scaling import Scaling

C = TypeVar("C", bound="SeriesClassifier")
R = TypeVar("R", bound="SeriesRegressor")


class SeriesClassifier(sklearn.ClassifierMixin, SeriesEstimator):
    """Base of the classifiers: cross-entropy, class probabilities."""

    def fit(self: C, X: Any, y: Any, times: Any = None) -> C:
        """Train on series and their classes.

        Args:
            X: (n, T, C) or (n, T), NaN where missing.
            y: (n,) classes of any kind.
            times: (T,) or (n, T), NaN after a series' end; 0, 1, ..., T - 1 by default.

        Raises:
            InvalidInput: times and values do not fit, or there are too few.
            NotFinite: the loss is not finite.
        """
        values, y = self._training_pair(X, y)
        sklearn.check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        target = torch.from_numpy(index.reshape(-1))
        self._fit(values, times, target, target, len(self.classes_))
        return self

    def _loss(self, raw: Tensor, target: Tensor) -> Tensor:
        return nn.functional.nll_loss(_log_mean(raw), target)

    def predict_proba(self, X: Any, times: Any = None) -> np.ndarray:
        """Return the probabilities (n, classes), in the order of ``classes_``; arguments as for `fit`."""
        found: np.ndarray = _log_mean(self._predicted(X, times)).exp().numpy()
        return found

    def predict(self, X: Any, times: Any = None) -> np.ndarray:
        """Return the most probable classes (n,); arguments as for `fit`."""
        best = self.predict_proba(X, times).argmax(1)
        found: np.ndarray = self.classes_[best]
        return found

    def score(self, X: Any, y: Any, sample_weight: Any = None, times: Any = None) -> float:
        """Return the share of series whose class is right; arguments as for `fit`, and weights (n,)."""
        right = self.predict(X, times) == np.asarray(y)
        return float(np.average(right, weights=sample_weight))

    def _about(self) -> dict[str, Any]:
        return {**super()._about(), "classes": self.classes_.tolist(), "kind": self.classes_.dtype.str}

    def _restore(self, tensors: dict[str, Tensor], build: dict[str, Any], fitted: dict[str, Any]) -> None:
        super()._restore(tensors, build, fitted)
        kind = np.dtype(object) if fitted["kind"] == "|O" else np.dtype(fitted["kind"])
        self.classes_ = np.array(fitted["classes"], dtype=kind)


class SeriesRegressor(sklearn.RegressorMixin, SeriesEstimator):
    """Base of the regressors: squared error of standardised targets."""

    def fit(self: R, X: Any, y: Any, times: Any = None) -> R:
        """Train on series and their targets.

        Args:
            X: (n, T, C) or (n, T), NaN where missing.
            y: (n,) or (n, k) numbers.
            times: (T,) or (n, T), NaN after a series' end; 0, 1, ..., T - 1 by default.

        Raises:
            InvalidInput: times and values do not fit, or there are too few.
            NotFinite: the loss is not finite.
        """
        values, y = self._training_pair(X, y, multi_output=True, y_numeric=True)
        table = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        self.flat_, self.target_scaling_ = y.ndim == 1, Scaling.of(table)
        target = self.target_scaling_.values(table, torch.float32)
        self._fit(values, times, target, torch.zeros(len(y), dtype=torch.int64), table.shape[1])
        return self

    def _loss(self, raw: Tensor, target: Tensor) -> Tensor:
        return (raw.mean(0) - target).square().mean()

    def predict(self, X: Any, times: Any = None) -> np.ndarray:
        """Return the predicted targets, (n,) or (n, k) as in training; arguments as for `fit`."""
        raw = self._predicted(X, times).mean(0)
        found = self.target_scaling_.back(raw)
        return found[:, 0] if self.flat_ else found

    def score(self, X: Any, y: Any, sample_weight: Any = None, times: Any = None) -> float:
        """Return the coefficient of determination R^2; arguments as for `fit`, and weights (n,)."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X, times), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _about(self) -> dict[str, Any]:
        scale = self.target_scaling_
        return {**super()._about(), "flat": self.flat_, "mean": scale.mean.tolist(), "std": scale.std.tolist()}

    def _restore(self, tensors: dict[str, Tensor], build: dict[str, Any], fitted: dict[str, Any]) -> None:
        super()._restore(tensors, build, fitted)
        mean, std = (torch.tensor(fitted[name], dtype=torch.float64) for name in ("mean", "std"))
        self.flat_, self.target_scaling_ = fitted["flat"], Scaling(mean, std)


def _log_mean(raw: Tensor) -> Tensor:
    """Return the logarithm (B, classes) of the probabilities' mean over draws."""
    found: Tensor = raw.log_softmax(-1).logsumexp(0) - np.log(len(raw))
    return found
