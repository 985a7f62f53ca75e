"""Forecasters in files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from isocline._core import files
from isocline._core.errors import BadFile
from isocline._version import __version__
from isocline.recipes.forecast import Forecaster, ForecastSettings
from isocline.timeseries.models.forecaster import NeuralForecaster

FORMAT = "isocline-forecaster"


def save_forecaster(path: str | Path, model: Forecaster) -> Path:
    """Write a forecaster as one safetensors file, atomically."""
    about = {
        "format": FORMAT,
        "version": __version__,
        "columns": json.dumps(model.columns),
        "horizon": repr(model.horizon),
        "widening": repr(model.widening),
        "periods": json.dumps(model.network.periods),
        "settings": json.dumps(asdict(model.settings)),
    }
    return files.write_tensors(path, {**model.network.state_dict(), "scale": model.scale}, about)


def load_forecaster(path: str | Path) -> Forecaster:
    """Return the forecaster in a file.

    Raises:
        DataMissing: there is no such file.
        BadFile: it is not one that `save_forecaster` wrote.
    """
    tensors, about = files.read_tensors(path)
    if about.get("format") != FORMAT:
        raise BadFile(f"{path} is not a forecaster written by isocline forecast")
    columns, settings = tuple(json.loads(about["columns"])), ForecastSettings(**json.loads(about["settings"]))
    network = NeuralForecaster(len(columns), periods=tuple(json.loads(about["periods"])))
    scale = tensors.pop("scale")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadFile(f"{path} does not fit this version of the forecaster: {str(error).splitlines()[0]}") from None
    return Forecaster(network, columns, float(about["horizon"]), scale, settings, float(about["widening"]))
