"""Estimators around neural SDEs.

A prediction averages over a few paths of the noise. They are the same paths for every series and every call, so that a prediction
is a function of the series alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from isocline._core.errors import InvalidInput, nearest, require
from isocline._core.stream import Stream
from isocline.timeseries.estimators.base import SeriesEstimator
from isocline.timeseries.estimators.kinds import SeriesClassifier, SeriesRegressor
from isocline.timeseries.models.controlled_sde import ControlledSDE, Shared
from isocline.timeseries.models.neural_sde import NeuralSDE
from isocline.timeseries.models.stable_sde import GeometricSDE, LangevinSDE, LinearNoiseSDE

VARIANTS: dict[str, type[ControlledSDE]] = {
    "langevin": LangevinSDE,
    "linear-noise": LinearNoiseSDE,
    "geometric": GeometricSDE,
    "plain": NeuralSDE,
}


class _NeuralSDE(SeriesEstimator):
    """Chooses the neural SDE.

    Args:
        variant: ``langevin``, ``linear-noise``, ``geometric`` (the stable classes) or ``plain`` (noise net of the state).
        hidden: size of the state.
        strict: whether a stable class is taken as it stands in the paper instead of bounded by tanh.
        draws: paths of the noise that a prediction averages over.
        epochs: most passes over the training part.
        batch_size: series in each update.
        rate: learning rate of Adam.
        validation: share of the series that is held out and decides when to stop.
        patience: epochs without a better loss after which training ends.
        random_state: seed.
    """

    def __init__(
        self,
        variant: str = "linear-noise",
        *,
        hidden: int = 16,
        strict: bool = False,
        draws: int = 4,
        epochs: int = 100,
        batch_size: int = 64,
        rate: float = 0.01,
        validation: float = 0.2,
        patience: int = 20,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            hidden,
            epochs=epochs,
            batch_size=batch_size,
            rate=rate,
            validation=validation,
            patience=patience,
            random_state=random_state,
        )
        self.variant = variant
        self.strict = strict
        self.draws = draws

    def network(self, channels: int, outputs: int, gap: float) -> nn.Module:
        """Return the neural SDE; its step is `gap`."""
        return self._kind()(channels, outputs, hidden=self.hidden, dt=gap, **self._mode())

    def raw(self, network: nn.Module, times: Tensor, values: Tensor, noise: Stream) -> Tensor:
        """Return the outputs for one path of the noise of each series."""
        return network(times, values, noise)

    def raw_prediction(self, network: nn.Module, times: Tensor, values: Tensor) -> Tensor:
        """Return the outputs for the paths that all predictions share."""
        paths = Shared(Stream(self.seed_, "prediction"))
        return network(times, values, paths, draws=self.draws)

    def _kind(self) -> type[ControlledSDE]:
        if self.variant not in VARIANTS:
            raise InvalidInput(f"there is no neural SDE {self.variant!r}. {nearest(self.variant, VARIANTS)}")
        return VARIANTS[self.variant]

    def _mode(self) -> dict[str, bool]:
        return {} if self.variant == "plain" else {"strict": self.strict}

    def _check_settings(self) -> None:
        super()._check_settings()
        require(self.draws >= 1, f"draws must be at least 1, got {self.draws}")


class NeuralSDEClassifier(SeriesClassifier, _NeuralSDE):
    """Classes of irregular series with gaps, by a neural SDE.

    Args:
        variant: ``langevin``, ``linear-noise``, ``geometric`` (the stable classes) or ``plain`` (noise net of the state).
        hidden: size of the state.
        strict: whether a stable class is taken as it stands in the paper instead of bounded by tanh.
        draws: paths of the noise that a prediction averages over.
        epochs: most passes over the training part.
        batch_size: series in each update.
        rate: learning rate of Adam.
        validation: share of the series that is held out and decides when to stop.
        patience: epochs without a better loss after which training ends.
        random_state: seed.

    Examples:
        >>> import numpy as np
        >>> X = np.linspace(0, 1, 8) * np.repeat([-1.0, 1.0], 10)[:, None]
        >>> model = NeuralSDEClassifier("geometric", hidden=4, epochs=30).fit(X, np.repeat(["down", "up"], 10))
        >>> model.predict(X[[0, -1]]).tolist()
        ['down', 'up']
    """


class NeuralSDERegressor(SeriesRegressor, _NeuralSDE):
    """Numbers from irregular series with gaps, by a neural SDE; parameters as for `NeuralSDEClassifier`."""
