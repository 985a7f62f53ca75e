"""Estimators around a GRU that is told gaps and what is missing."""

from __future__ import annotations

from torch import nn

from isocline.timeseries.estimators.base import SeriesEstimator
from isocline.timeseries.estimators.kinds import SeriesClassifier, SeriesRegressor
from isocline.timeseries.models.gru import GRU


class _GRU(SeriesEstimator):
    def network(self, channels: int, outputs: int, gap: float) -> nn.Module:
        """Return a `GRU`."""
        return GRU(channels, outputs, hidden=self.hidden)


class GRUClassifier(SeriesClassifier, _GRU):
    """Classes of irregular series with gaps, by a `GRU`; parameters as for `SeriesEstimator`.

    Examples:
        >>> import numpy as np
        >>> X = np.linspace(0, 1, 8) * np.repeat([-1.0, 1.0], 10)[:, None]
        >>> GRUClassifier(hidden=4, epochs=30).fit(X, np.repeat(["down", "up"], 10)).predict(X[[0, -1]]).tolist()
        ['down', 'up']
    """


class GRURegressor(SeriesRegressor, _GRU):
    """Numbers from irregular series with gaps, by a `GRU`; parameters as for `SeriesEstimator`."""
