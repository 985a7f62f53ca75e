"""Reading CFDBench: axes, masks, cases of different lengths, and what can be wrong with a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline.datasets import Window, cfdbench

RNG = np.random.default_rng(0)


def case(folder: Path, number: int, frames: int = 5, **told: float) -> tuple[np.ndarray, np.ndarray]:
    path = folder / "prop" / f"case{number:04d}"
    path.mkdir(parents=True)
    u, v = RNG.normal(size=(2, frames, 4, 6))
    u[:, 1, 2] = v[:, 1, 2] = 0.0  # an obstacle
    np.save(path / "u.npy", u)
    np.save(path / "v.npy", v)
    (path / "case.json").write_text(json.dumps({"viscosity": 0.1 * number, "density": 1.0, **told}))
    return u, v


def test_cases(tmp_path: Path) -> None:
    arrays = [case(tmp_path / "dam", k, frames=5 + k) for k in range(4)]
    source = cfdbench(tmp_path / "dam", dt=0.1, fractions=(0.5, 0.25, 0.25))
    spec = source.spec
    assert (spec.name, spec.resolution, spec.times, spec.dt) == ("dam", (6, 4), 5, 0.1)
    assert [source.cases(s) for s in ("train", "valid", "test")] == [2, 1, 1]
    seen = []
    for split, k in (("train", 0), ("train", 1), ("valid", 0), ("test", 0)):
        found = source.batch([k], [1], Window(1, 2), split)
        number = round(float(found.parameters[0, 1]) / 0.1)  # density, viscosity
        expected = np.stack([a[1:4].transpose(0, 2, 1) for a in arrays[number]], -1)
        assert torch.equal(torch.cat([found.x, found.target], 1)[0], torch.from_numpy(expected).float())
        assert found.mask is not None
        assert (~found.mask[0]).nonzero().tolist() == [[2, 1]]  # x, y
        seen.append(number)
    assert sorted(seen) == [0, 1, 2, 3]


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="there are no cases of CFDBench"):
        cfdbench(tmp_path, dt=0.1)
    with pytest.raises(InvalidInput, match="not geometry"):
        cfdbench(tmp_path, dt=0.1, sets=("geometry",))
    case(tmp_path, 0)
    case(tmp_path, 1, speed=2.0)
    with pytest.raises(BadFile, match="density, speed, viscosity"):
        cfdbench(tmp_path, dt=0.1)
    (tmp_path / "prop" / "case0001" / "u.npy").write_bytes(b"no")
    with pytest.raises(BadFile, match=r"case0001: u\.npy or v\.npy is missing or damaged"):
        cfdbench(tmp_path, dt=0.1)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    case(tmp_path, 0)
    np.save(tmp_path / "prop" / "case0000" / "v.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadFile, match="damaged"):
        cfdbench(tmp_path, dt=0.1)
