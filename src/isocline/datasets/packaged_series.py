"""Labelled time series of the UEA and UCR archives, as they ship inside the package aeon (BSD-3-Clause); see arXiv:1811.00075.

Each loader reads two files, the archive's training and test part. `isocline data fetch time-series` brings all of them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from isocline._core.errors import DataMissing
from isocline.datasets.packages import data_folder
from isocline.datasets.series import Series, Split
from isocline.datasets.ts_files import read_ts


def basic_motions(folder: str | Path | None = None) -> Split:
    """Return 40 + 40 recordings of an accelerometer and a gyroscope, 6 channels, 100 times 0.1 s apart, four activities.

    Args:
        folder: a folder that holds the ``.ts`` files; the place of ``isocline data fetch time-series`` where it is None.

    Raises:
        DataMissing: the folder lacks a file; the message says how to get it.
        BadFile: a file is damaged.
    """
    return _split("BasicMotions", folder, 0.1)


def japanese_vowels(folder: str | Path | None = None) -> Split:
    """Return 270 + 370 utterances of two vowels by nine speakers: 12 cepstrum coefficients at 7 to 29 times, one apart.

    Every utterance has times of its own, (N, 29) with NaN after its end. Arguments and errors as for `basic_motions`.
    """
    return _split("JapaneseVowels", folder, 1.0)


def italy_power_demand(folder: str | Path | None = None) -> Split:
    """Return 67 + 1029 days of electrical power demand, 24 hours, standardised; October to March against April to September.

    Arguments and errors as for `basic_motions`.
    """
    return _split("ItalyPowerDemand", folder, 1.0)


def gun_point(folder: str | Path | None = None) -> Split:
    """Return 50 + 150 tracks of a hand's x coordinate, 150 times, standardised; drawing a gun against pointing.

    Arguments and errors as for `basic_motions`.
    """
    return _split("GunPoint", folder, 1.0)


def arrow_head(folder: str | Path | None = None) -> Split:
    """Return 36 + 175 outlines of arrow heads as the distance from the centre at 251 angles, standardised; three types.

    Arguments and errors as for `basic_motions`.
    """
    return _split("ArrowHead", folder, 1.0)


def pickup_gesture(folder: str | Path | None = None) -> Split:
    """Return 50 + 50 pick-up gestures, one axis of a remote control's acceleration at 29 to 361 times, by ten people.

    Every gesture has times of its own, one apart, with NaN after its end. Arguments and errors as for `basic_motions`.
    """
    return _split("PickupGestureWiimoteZ", folder, 1.0)


def _split(name: str, folder: str | Path | None, gap: float) -> Split:
    place = Path(folder) if folder is not None else data_folder() / "time-series"
    train, test = (place / f"{name}_{part}.ts" for part in ("TRAIN", "TEST"))
    for path in (train, test):
        if not path.is_file():
            raise DataMissing(
                f"{name} ({path.name}) is not in {place}; run `isocline data fetch time-series`, or name its folder"
            )
    return Split(_series(train, gap), _series(test, gap))


def _series(path: Path, gap: float) -> Series:
    rows, labels, names = read_ts(path)
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)
    index = {name: label for label, name in enumerate(names)}
    return Series(
        _times([len(row) for row in rows], gap), values, torch.tensor([index[name] for name in labels]), names
    )


def _times(lengths: list[int], gap: float) -> Tensor:
    times = gap * torch.arange(max(lengths))
    if min(lengths) == max(lengths):
        return times.to(torch.get_default_dtype())
    late = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return times.to(torch.get_default_dtype()).masked_fill(late, torch.nan)
