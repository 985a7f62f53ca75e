"""What all estimators share: reading series, scaling, training, storing.

Series are arrays (n, T, C), or (n, T) for a single channel, with NaN where a value is missing. Times are (T,) or (n, T), NaN after
the end of a series that is shorter than the others; by default 0, 1, ..., T - 1. Networks see values that are standardised by what
was observed in training, and times scaled to [0, 4]. Predictions are computed in float64 and do not depend on what else is
predicted.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import BadFile, InvalidInput, Mismatch, require
from isocline._core.stream import Stream
from isocline.datasets.series import check_times, held_out
from isocline.timeseries.estimators import sklearn
from isocline.timeseries.estimators.scaling import Scaling
from isocline.timeseries.estimators.training import Training
from isocline.timeseries.models.controlled_sde import smallest_gap

AT_ONCE = 512  # series that are predicted together
S = TypeVar("S", bound="SeriesEstimator")


class SeriesEstimator(sklearn.BaseEstimator):
    """Base of the estimators; subclasses say which network they train and for which loss.

    Args:
        hidden: size of the network's state.
        epochs: most passes over the training part.
        batch_size: series in each update.
        rate: learning rate of Adam.
        validation: share of the series that is held out and decides when to stop; with fewer than ten series, or 0, the training
            loss decides.
        patience: epochs without a better loss after which training ends.
        random_state: seed of weights, order, noise and the held-out part: the same seed gives the same bits.
    """

    def __init__(
        self,
        hidden: int = 16,
        *,
        epochs: int = 100,
        batch_size: int = 64,
        rate: float = 0.01,
        validation: float = 0.2,
        patience: int = 20,
        random_state: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.rate = rate
        self.validation = validation
        self.patience = patience
        self.random_state = random_state

    def network(self, channels: int, outputs: int, gap: float) -> nn.Module:
        """Return a new network for series of `channels`; `gap` is the smallest between the scaled times of training."""
        raise NotImplementedError

    def raw(self, network: nn.Module, times: Tensor, values: Tensor, noise: Stream) -> Tensor:
        """Return the outputs (draws, B, outputs) of a network that is being trained."""
        return network(times, values)[None]

    def raw_prediction(self, network: nn.Module, times: Tensor, values: Tensor) -> Tensor:
        """Return the outputs (draws, B, outputs) of a trained network, the same for a series whatever its batch."""
        return network(times, values)[None]

    def _loss(self, raw: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def _fit(self, X: Any, times: Any, target: Tensor, groups: Tensor, outputs: int) -> None:
        """Train a network on `target` (n, *); the held-out part is drawn from each of `groups` (n,)."""
        self._check_settings()
        values, clock = X, self._times(X, times)
        self.shared_times_ = clock if clock.ndim == 1 else None
        self.scaling_ = Scaling.of(values, clock)
        require(self.scaling_.span > 0, f"a series needs at least 2 times, got n_features = {values.shape[1]}")
        state = self.random_state
        seed = state if isinstance(state, int) else int(sklearn.check_random_state(state).randint(2**31))
        x, t = self.scaling_.values(values, torch.float32), self.scaling_.times(clock, torch.float32)
        shape = {"channels": values.shape[2], "outputs": outputs, "gap": smallest_gap(t)}
        self.build_, self.seed_ = shape, int(seed)
        enough = len(x) >= 10 and self.validation > 0
        aside = held_out(groups, self.validation, Stream(seed)) if enough else torch.zeros(len(x), dtype=torch.bool)
        training = Training(self.epochs, self.batch_size, self.rate, self.patience, seed)
        with torch.random.fork_rng(devices=[]):  # weights and dropout
            torch.manual_seed(seed)
            network = self.network(**shape)

            def loss(index: Tensor, noise: Stream, training: bool) -> Tensor:
                times, wanted = t if t.ndim == 1 else t[index], target[index]
                if training:
                    return self._loss(self.raw(network, times, x[index], noise), wanted)
                return self._loss(self.raw_prediction(network, times, x[index]), wanted)

            self.loss_curve_ = training.fit(network, loss, aside, type(self).__name__)
        self.module_ = network
        self.n_iter_ = len(self.loss_curve_)

    def _predicted(self, X: Any, times: Any) -> Tensor:
        """Return the outputs (draws, n, outputs), float64."""
        sklearn.check_is_fitted(self)
        values = self._values(X)
        clock = self.scaling_.times(self._times(values, times), torch.float64)
        network = copy.deepcopy(self.module_).double().eval()
        x, parts = self.scaling_.values(values, torch.float64), []
        with torch.no_grad():
            for index in torch.arange(len(x)).split(AT_ONCE):
                parts.append(self.raw_prediction(network, clock if clock.ndim == 1 else clock[index], x[index]))
        return torch.cat(parts, dim=1)

    def _values(self, X: Any) -> np.ndarray:
        """Return series to be predicted as (n, T, C) float64."""
        if _axes(X) == 3:
            values: np.ndarray = sklearn.check_array(_plain(X), **_ALLOWED, allow_nd=True)
        else:
            values = sklearn.validate_data(self, X, reset=False, **_ALLOWED)[..., None]
        channels = self.build_["channels"]
        require(
            values.shape[2] == channels,
            f"X has {values.shape[2]} channels, {type(self).__name__} was fitted with {channels}",
        )
        return values

    def _training_pair(self, X: Any, y: Any, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return series (n, T, C) and targets, checked."""
        if _axes(X) == 3:
            values, y = sklearn.check_X_y(_plain(X), _plain(y), **_ALLOWED, allow_nd=True, estimator=self, **settings)
            self.n_features_in_ = values.shape[2]
        else:
            values, y = sklearn.validate_data(self, X, _plain(y), **_ALLOWED, **settings)
            values = values[..., None]
        require(len(values) >= 2, "one series is not enough to train on: got n_samples = 1")
        require(values.shape[1] >= 2, f"a series needs at least 2 times, got n_features = {values.shape[1]}")
        return values, y

    def _times(self, values: np.ndarray, times: Any) -> np.ndarray:
        """Return the times of series (n, T, C): those given, else those of training where all series shared them."""
        if times is None and getattr(self, "shared_times_", 0) is None:
            raise InvalidInput("training was given times of each series: pass times to predict too")
        known = getattr(self, "shared_times_", np.arange(values.shape[1], dtype=np.float64)) if times is None else times
        clock = np.asarray(_plain(known), dtype=np.float64)
        check_times(torch.from_numpy(clock.copy()), torch.from_numpy(values.copy()))
        return clock

    def _check_settings(self) -> None:
        least = {"hidden": 1, "epochs": 1, "batch_size": 1, "patience": 1}
        for name, smallest in least.items():
            require(getattr(self, name) >= smallest, f"{name} must be at least {smallest}, got {getattr(self, name)}")
        require(self.rate > 0 and 0 <= self.validation < 1, "rate must be positive and validation in [0, 1)")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def save(self, path: str | Path) -> Path:
        """Write the fitted estimator to one file: tensors as safetensors, the rest as JSON in its header; nothing is pickled.

        Raises:
            CannotWrite: the place cannot be written.
            InvalidInput: a parameter is no plain number or string.
        """
        sklearn.check_is_fitted(self)
        given = self.get_params()
        if not isinstance(given["random_state"], int | None):
            given["random_state"] = self.seed_
        odd = [name for name, value in given.items() if not isinstance(value, int | float | str | None)]
        require(not odd, f"parameters that are no plain values cannot be stored: {', '.join(odd)}")
        about = {"estimator": type(self).__name__, "parameters": given, "build": self.build_, "fitted": self._about()}
        tensors = {f"network/{name}": value for name, value in self.module_.state_dict().items()}
        tensors |= {f"scaling/{name}": getattr(self.scaling_, name) for name in ("mean", "std")}
        tensors["scaling/time"] = torch.tensor([self.scaling_.first, self.scaling_.span], dtype=torch.float64)
        tensors["loss_curve"] = torch.tensor(self.loss_curve_, dtype=torch.float64)
        if self.shared_times_ is not None:
            tensors["times"] = torch.from_numpy(self.shared_times_)
        return files.write_tensors(path, tensors, {"isocline": json.dumps(about)})

    @classmethod
    def load(cls: type[S], path: str | Path) -> S:
        """Return the fitted estimator that `save` wrote to `path`; it predicts the same bits.

        Raises:
            DataMissing: there is no such file.
            BadFile: the file is damaged or holds something else.
            Mismatch: the file holds another estimator.
        """
        tensors, header = files.read_tensors(path)
        try:
            about = json.loads(header["isocline"])
            kind, given, build, fitted = (about[key] for key in ("estimator", "parameters", "build", "fitted"))
        except (KeyError, ValueError, TypeError) as error:
            raise BadFile(f"{path} does not hold an estimator") from error
        if kind != cls.__name__:
            raise Mismatch(f"{path} holds a {kind}: call {kind}.load")
        found = cls(**given)
        try:
            found._restore(tensors, build, fitted)
        except (KeyError, RuntimeError, TypeError) as error:
            raise BadFile(f"{path} is not a complete estimator ({type(error).__name__}); store it again") from error
        return found

    def _restore(self, tensors: dict[str, Tensor], build: dict[str, Any], fitted: dict[str, Any]) -> None:
        first, span = tensors["scaling/time"].tolist()
        self.scaling_ = Scaling(tensors["scaling/mean"], tensors["scaling/std"], first, span)
        self.shared_times_ = tensors["times"].numpy() if "times" in tensors else None
        self.build_, self.loss_curve_ = build, tensors["loss_curve"].tolist()
        self.n_iter_, self.n_features_in_, self.seed_ = len(self.loss_curve_), fitted["n_features_in"], fitted["seed"]
        with torch.random.fork_rng(devices=[]):
            self.module_ = self.network(**build)
        prefix = "network/"
        self.module_.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        self.module_.eval()

    def _about(self) -> dict[str, Any]:
        return {"n_features_in": int(self.n_features_in_), "seed": self.seed_}


_ALLOWED: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}


def _axes(X: Any) -> int:
    return int(X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim)


def _plain(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x
