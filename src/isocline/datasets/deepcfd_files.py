r"""The published data of DeepCFD as a source (Ribeiro, Rehman, Ahmed, Dengel, arXiv 2004.08826).

``dataX.pkl`` and ``dataY.pkl`` are pickled arrays (n, 3, 172, 79): distances to the obstacle, regions of the flow and
distances to the walls; the velocity in x and in y, and the pressure. Of a pickle only arrays of numbers are rebuilt, nothing
in it is run. Points are middles of the cells of the unit square, as the files say nothing of sizes.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isocline._core.errors import BadFile, DataMissing
from isocline.datasets.arrays import Arrays
from isocline.datasets.foreign import FRACTIONS, Array

INPUTS = ("obstacle", "region", "walls")
OUTPUTS = ("Ux", "Uy", "p")
_REBUILT = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
}


def deepcfd_data(folder: str | Path, *, fractions: Sequence[float] = FRACTIONS) -> Arrays:
    """Return the published cases, a steady problem from three constant fields to three others.

    Args:
        folder: with ``dataX.pkl`` and ``dataY.pkl``.
        fractions: which part of the cases, in their order, is ``train``, ``valid`` and ``test``.

    Raises:
        DataMissing: a file is not there.
        BadFile: a file is damaged, holds something else than an array of numbers, or they do not fit together.
    """
    x, y = (_array(Path(folder) / name) for name in ("dataX.pkl", "dataY.pkl"))
    if x.shape != y.shape or x.shape[1] != len(INPUTS):
        raise BadFile(f"{folder}: dataX has shape {x.shape}, dataY {y.shape}; both should be (n, 3, width, height)")
    told, wanted = (torch.from_numpy(a.astype("f4")) for a in (x, y))
    return Arrays(
        {name: wanted[:, k].unsqueeze(1) for k, name in enumerate(OUTPUTS)},
        (0.0, 0.0),
        (1.0, 1.0),
        dt=0.0,
        constants={name: told[:, k] for k, name in enumerate(INPUTS)},
        boundary="wall",
        fractions=fractions,
        name="deepcfd",
    )


class _OnlyArrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _REBUILT:
            raise pickle.UnpicklingError(f"an object of {module}.{name}, which is not loaded")
        return super().find_class(module, name)


def _array(path: Path) -> Array:
    if not path.is_file():
        raise DataMissing(f"there is no {path}; unpack the published DeepCFD.zip there")
    try:
        with path.open("rb") as file:
            found = _OnlyArrays(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError) as error:
        raise BadFile(f"{path} is damaged or holds something else than an array: {error}") from error
    if not isinstance(found, np.ndarray) or found.ndim != 4 or found.dtype.kind not in "fiu":
        raise BadFile(f"{path} does not hold an array of numbers with four axes")
    return found
