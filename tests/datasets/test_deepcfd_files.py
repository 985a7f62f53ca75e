"""The published data of DeepCFD: arrays are rebuilt, nothing else is."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isocline._core.errors import BadFile, DataMissing
from isocline.datasets import Window, deepcfd_data

RNG = np.random.default_rng(0)


def write(folder: Path, x: Any, y: Any) -> None:
    for name, value in (("dataX.pkl", x), ("dataY.pkl", y)):
        (folder / name).write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_fields(tmp_path: Path, dtype: str) -> None:
    x, y = RNG.normal(size=(2, 10, 3, 12, 7)).astype(dtype)
    write(tmp_path, x, y)
    source = deepcfd_data(tmp_path)
    assert (source.spec.times, source.spec.dt, source.spec.resolution) == (1, 0.0, (12, 7))
    found = source.batch([0], [0], Window(0, 1), "test")
    assert torch.equal(found.target[0, 0], torch.from_numpy(y[9].astype("f4")).movedim(0, -1))
    assert found.constants is not None
    assert torch.equal(found.constants[0], torch.from_numpy(x[9].astype("f4")).movedim(0, -1))


class Harm:
    """Would remove a file, were it loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.unlink, (str(self.path),)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    here = tmp_path / "precious"
    here.touch()
    write(tmp_path, Harm(here), Harm(here))
    with pytest.raises(BadFile, match=r"dataX\.pkl .* an object of posix\.unlink, which is not loaded"):
        deepcfd_data(tmp_path)
    assert here.exists()


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((2, 3, 4)), "four axes"),
        (np.zeros((2, 3, 4, 5), dtype="U1"), "four axes"),
        ([1.0], "four axes"),
        (np.zeros((2, 3, 4, 6)), "both should be"),
    ],
)
def test_other_contents(tmp_path: Path, x: Any, says: str) -> None:
    write(tmp_path, x, np.zeros((2, 3, 4, 5)))
    with pytest.raises(BadFile, match=says):
        deepcfd_data(tmp_path)


def test_no_or_half_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="unpack the published"):
        deepcfd_data(tmp_path)
    write(tmp_path, np.zeros((2, 3, 4, 5)), np.zeros((2, 3, 4, 5)))
    path = tmp_path / "dataX.pkl"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadFile, match="is damaged"):
        deepcfd_data(tmp_path)
