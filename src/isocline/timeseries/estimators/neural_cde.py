"""Estimators around neural CDEs."""

from __future__ import annotations

from torch import nn

from isocline.timeseries.estimators.base import SeriesEstimator
from isocline.timeseries.estimators.kinds import SeriesClassifier, SeriesRegressor
from isocline.timeseries.models.neural_cde import MatrixField, NeuralCDE
from isocline.timeseries.models.readout import Readout


class _NeuralCDE(SeriesEstimator):
    def network(self, channels: int, outputs: int, gap: float) -> nn.Module:
        """Return a `NeuralCDE` with the readout of the other estimators and a field as wide as its state."""
        field = MatrixField(self.hidden, channels + 1, width=self.hidden)
        network = NeuralCDE(channels, outputs, hidden=self.hidden, field=field)
        network.readout = Readout(self.hidden, outputs)  # type: ignore[assignment]
        return network


class NeuralCDEClassifier(SeriesClassifier, _NeuralCDE):
    """Classes of irregular series with gaps, by a `NeuralCDE`; parameters as for `SeriesEstimator`.

    Examples:
        >>> import numpy as np
        >>> X = np.linspace(0, 1, 8) * np.repeat([-1.0, 1.0], 10)[:, None]
        >>> NeuralCDEClassifier(hidden=4, epochs=20, rate=0.03).fit(X, np.repeat(["down", "up"], 10)).predict(X[[0, -1]]).tolist()
        ['down', 'up']
    """


class NeuralCDERegressor(SeriesRegressor, _NeuralCDE):
    """Numbers from irregular series with gaps, by a `NeuralCDE`; parameters as for `SeriesEstimator`."""
