"""Files of others, in the layouts that their repositories write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isocline._core.errors import BadFile, DataMissing, InvalidInput, Mismatch, NotFinite
from isocline._core.stream import Stream
from isocline.datasets import Arrays, FieldSpec, Window, open_data, pdearena, pdebench

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)


def write(path: Path, values: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = value
    return path


def burgers(t: int = 5) -> dict[str, Any]:
    return {
        "tensor": RNG.normal(size=(10, 5, 8)).astype("f4"),
        "x-coordinate": (np.arange(8) + 0.5) / 8,
        "t-coordinate": np.arange(t + 1) * 0.01,  # their files have one more than frames
    }


def test_pdebench_one_dimension(tmp_path: Path) -> None:
    values = burgers()
    source = pdebench(write(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5", values), boundary="periodic")
    spec = source.spec
    assert (spec.times, spec.resolution, spec.fields) == (5, (8,), (FieldSpec("u"),))
    assert spec.dt == pytest.approx(0.01)
    assert (*spec.low, *spec.high) == pytest.approx((1 / 16, 17 / 16))
    assert [source.cases(s) for s in ("train", "valid", "test")] == [8, 1, 1]
    found = source.batch([7, 0], [1, 0], Window(2, 2))
    expected = torch.from_numpy(values["tensor"])
    assert torch.equal(found.x[..., 0], torch.stack([expected[7, 1:3], expected[0, 0:2]]))
    assert torch.equal(found.target[..., 0], torch.stack([expected[7, 3:5], expected[0, 2:4]]))
    assert torch.allclose(found.t, torch.tensor([[0.03, 0.04], [0.02, 0.03]], dtype=torch.float64))
    assert torch.equal(source.batch([0], [0], Window(1, 4), "test").x[0, 0, :, 0], expected[9, 0])


def test_pdebench_compressible_flow(tmp_path: Path) -> None:
    names = ("density", "pressure", "Vx", "Vy")
    values: dict[str, Any] = {k: RNG.normal(size=(5, 4, 6, 7)).astype("f4") for k in names}
    lines = {"x-coordinate": np.arange(6) / 6, "y-coordinate": np.arange(7) / 7, "t-coordinate": np.arange(4) * 0.05}
    source = pdebench(write(tmp_path / "2D_CFD.hdf5", {**values, **lines}), boundary="periodic", fractions=(1, 0, 0))
    assert [f.name for f in source.spec.fields] == list(names)
    assert source.splits == ("train",)
    found = source.batch([3], [1], Window(1, 2))
    for k, name in enumerate(names):
        assert torch.equal(found.target[0, ..., k], torch.from_numpy(values[name][3, 2:4]))
    assert found.coordinates.shape == (6, 7, 2)
    assert found.coordinates[2, 3].tolist() == pytest.approx([2 / 6, 3 / 7])


def test_pdebench_darcy_is_steady(tmp_path: Path) -> None:
    values = {"tensor": RNG.normal(size=(4, 1, 6, 6)), "nu": RNG.uniform(size=(4, 6, 6))}
    lines = {"x-coordinate": (np.arange(6) + 0.5) / 6, "y-coordinate": (np.arange(6) + 0.5) / 6}
    source = pdebench(
        write(tmp_path / "2D_DarcyFlow.hdf5", {**values, **lines}), boundary="wall", fractions=(0.5, 0.5, 0)
    )
    assert source.spec.times == 1
    assert source.spec.low == pytest.approx((0, 0))
    assert source.spec.high == pytest.approx((1, 1))
    found = source.batch([1], [0], Window(0, 1), "valid")
    assert found.constants is not None
    assert torch.equal(found.constants[0, ..., 0], torch.from_numpy(values["nu"][3]).float())
    assert torch.equal(found.target[0, 0, ..., 0], torch.from_numpy(values["tensor"][3, 0]).float())


def seeds(n: int = 10) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for k in range(n):
        values[f"{k:04d}/data"] = RNG.normal(size=(4, 6, 6, 2)).astype("f4")
        values |= {f"{k:04d}/grid/{axis}": (np.arange(6) + 0.5) / 3 - 1 for axis in ("x", "y")}
        values[f"{k:04d}/grid/t"] = np.arange(4) * 0.05
    return values


def test_pdebench_groups_by_seed(tmp_path: Path) -> None:
    values = seeds()
    path = write(tmp_path / "2D_diff-react_NA_NA.h5", values)
    source = pdebench(path, boundary="wall", fields=("activator", "inhibitor"))
    assert [f.name for f in source.spec.fields] == ["activator", "inhibitor"]
    assert source.spec.low == pytest.approx((-1, -1))
    assert source.spec.high == pytest.approx((1, 1))
    found = source.batch([6], [2], Window(1, 1))
    assert torch.equal(torch.cat([found.x, found.target], 1)[0], torch.from_numpy(values["0006/data"][2:4]))
    with pytest.raises(InvalidInput, match="2 channels, got 1 names"):
        pdebench(path, boundary="wall", fields=("activator",))


def test_pdebench_incompressible_flow(tmp_path: Path) -> None:
    values = {
        "velocity": RNG.normal(size=(4, 5, 6, 6, 2)).astype("f4"),
        "particles": RNG.normal(size=(4, 5, 6, 6, 1)).astype("f4"),
        "force": RNG.normal(size=(4, 6, 6, 2)).astype("f4"),
        "t": np.tile(np.arange(5) * 0.1, (4, 1)),
    }
    source = pdebench(write(tmp_path / "ns_incom.h5", values), boundary="wall", fractions=(1, 0, 0))
    assert [(f.name, f.order, f.varies) for f in source.spec.fields] == [
        ("velocity", 1, True),
        ("particles", 0, True),
        ("force", 1, False),
    ]
    found = source.batch([2], [3], Window(1, 1))
    assert torch.equal(
        found.x[0, 0], torch.from_numpy(np.concatenate([values["velocity"], values["particles"]], -1)[2, 3])
    )
    assert found.constants is not None
    assert torch.equal(found.constants[0], torch.from_numpy(values["force"][2]))


def smoke(split: str, n: int = 3, t: int = 4) -> dict[str, Any]:
    values = {f"{split}/{k}": RNG.normal(size=(n, t, 6, 8)) for k in ("u", "vx", "vy")}
    values |= {f"{split}/x": np.tile(np.arange(6.0), (n, 1)), f"{split}/y": np.tile(np.arange(8.0), (n, 1))}
    values |= {f"{split}/t": np.tile(18 + 1.5 * np.arange(t), (n, 1)), f"{split}/buo_y": RNG.uniform(0.2, 0.5, n)}
    return values


def test_pdearena_smoke(tmp_path: Path) -> None:
    one, two, three = smoke("train"), smoke("train", 2), smoke("valid")
    paths = [write(tmp_path / f"{k}.h5", v) for k, v in enumerate((one, two, three))]
    source = pdearena({"train": paths[:2], "valid": paths[2]}, boundary="wall")
    assert [f.name for f in source.spec.fields] == ["u", "v"]
    assert (len(source), source.cases("valid"), source.spec.dt) == (5, 3, 1.5)
    found = source.batch([4, 0], [0, 2], Window(1, 1))
    expected = np.stack([two[f"train/{k}"][1, 0] for k in ("u", "vx", "vy")], -1)
    assert torch.equal(found.x[0, 0], torch.from_numpy(expected).float())
    assert torch.allclose(found.parameters[:, 0].double(), torch.tensor([two["train/buo_y"][1], one["train/buo_y"][0]]))
    assert found.t.tolist() == [[19.5], [22.5]]
    drawn = source.draw(3, Window(1, 1), 4, "train", Stream(0))
    assert torch.equal(drawn.x, source.draw(3, Window(1, 1), 4, "train", Stream(0)).x)


def test_series_with_a_grid_for_each_case(tmp_path: Path) -> None:
    length = 64 * RNG.uniform(0.9, 1.1, (3, 1))
    values = {
        "train/pde_5-8": RNG.normal(size=(3, 5, 8)),
        "train/x": length * np.arange(8) / 8,
        "train/t": RNG.uniform(0.18, 0.22, (3, 1)) * np.arange(5),
        "train/dx": length[:, 0] / 8,
    }
    source = pdearena({"train": write(tmp_path / "KS_train_fixed.h5", values)}, boundary="periodic")
    found = source.batch([2, 1], [0, 1], Window(1, 1, stride=2))
    assert torch.allclose(found.coordinates[..., 0].double(), torch.from_numpy(values["train/x"][[2, 1]]), rtol=1e-6)
    assert torch.allclose(found.dt, torch.from_numpy(values["train/t"][[2, 1], 2]))
    assert torch.equal(found.target[:, 0, :, 0], torch.from_numpy(values["train/pde_5-8"][[2, 1], [2, 3]]).float())


def fewer_times(values: dict[str, Any]) -> None:
    values["t-coordinate"] = values["t-coordinate"][:3]


def no_grid(values: dict[str, Any]) -> None:
    del values["x-coordinate"]


def other_grid(values: dict[str, Any]) -> None:
    values["x-coordinate"] = np.arange(7)


def nothing(values: dict[str, Any]) -> None:
    values["something"] = values.pop("tensor")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (fewer_times, "5 frames, but 3 times; frames are missing"),
        (no_grid, "no x-coordinate"),
        (other_grid, r"coordinates of \(7,\) points"),
        (nothing, "not in a layout of PDEBench; it holds"),
    ],
)
def test_damaged_pdebench(tmp_path: Path, harm: Callable[[dict[str, Any]], None], says: str) -> None:
    values = burgers()
    harm(values)
    with pytest.raises(BadFile, match=says):
        pdebench(write(tmp_path / "a.hdf5", values), boundary="periodic")


def test_damaged_groups_and_arenas(tmp_path: Path) -> None:
    values = seeds(3)
    values["0001/data"] = values["0001/data"][:3]
    with pytest.raises(BadFile, match=r"0001 has shape .* frames are missing"):
        pdebench(write(tmp_path / "a.h5", values), boundary="wall")
    values = smoke("train")
    values["train/vx"] = values["train/vx"][:, :3]
    with pytest.raises(BadFile, match=r"vx and u differ .* frames are missing"):
        pdearena({"train": write(tmp_path / "b.h5", values)}, boundary="wall")
    with pytest.raises(BadFile, match="no group train; it holds valid"):
        pdearena({"train": write(tmp_path / "c.h5", smoke("valid"))}, boundary="wall")
    with pytest.raises(DataMissing, match="no file"):
        pdearena({"train": tmp_path / "d.h5"}, boundary="wall")
    paths = [write(tmp_path / f"{t}.h5", smoke("train", t=t)) for t in (4, 5)]
    with pytest.raises(BadFile, match="5 frames, other files have 4"):
        pdearena({"train": paths}, boundary="wall")
    series = {"train/pde_4-6": np.zeros((2, 4, 6)), "train/x": np.ones((2, 6)), "train/t": np.ones((2, 4))}
    with pytest.raises(Mismatch, match="same fields"):
        pdearena({"train": [paths[0], write(tmp_path / "e.h5", series)]}, boundary="wall")


def test_nan_in_a_file_of_others_is_named(tmp_path: Path) -> None:
    values = burgers()
    values["tensor"][9, 2, 3] = np.nan
    source = pdebench(write(tmp_path / "a.hdf5", values), boundary="periodic")
    with pytest.raises(NotFinite, match=r"a\.hdf5, case 9, frame 2: u is NaN"):
        source.batch([0], [1], Window(1, 1), "test")


def test_arrays_have_the_same_windows() -> None:
    rng = torch.Generator().manual_seed(0)
    v, p = torch.randn(10, 4, 6, 5, 2, generator=rng), torch.randn(10, 4, 6, 5, generator=rng)
    a, nu = torch.randn(10, 6, 5, generator=rng), torch.rand(10, generator=rng)
    how: dict[str, Any] = {"dt": 0.5, "orders": {"v": 1}, "constants": {"a": a}, "parameters": {"nu": nu}}
    source = Arrays({"v": v, "p": p}, (0.0, 0.0), (1.0, 2.0), boundary="wall", **how)
    found = source.batch([7, 2], [0, 2], Window(1, 1))
    assert torch.equal(found.x[0, 0], torch.cat([v[7, 0], p[7, 0, ..., None]], -1))
    assert torch.equal(found.target[1, 0], torch.cat([v[2, 3], p[2, 3, ..., None]], -1))
    assert found.constants is not None
    assert torch.equal(found.constants[..., 0], a[[7, 2]])
    assert torch.equal(found.parameters[:, 0], nu[[7, 2]])
    assert found.coordinates[0, 0].tolist() == pytest.approx([1 / 12, 1 / 5])  # in the middle of cells
    assert found.dt.tolist() == [0.5, 0.5]
    assert [source.cases(s) for s in source.splits] == [8, 1, 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"values": {"u": torch.zeros(4, 3, 8), "w": torch.zeros(4, 2, 8)}},
            r"w has shape \(4, 2, 8\); beside u it should be",
        ),
        ({"values": {"u": torch.zeros(4, 3)}}, "u has shape"),
        ({"values": {}}, "give fields"),
        ({"parameters": {"k": torch.zeros(3)}}, "parameters need shape"),
        ({"times": torch.zeros(4)}, "times need shape"),
        ({"constants": {"a": torch.zeros(4, 7)}}, "a has shape"),
        ({"fractions": (0.5, 0.2, 0.2)}, "make 1"),
    ],
)
def test_arrays_that_do_not_fit(changes: dict[str, Any], says: str) -> None:
    given = {"values": {"u": torch.zeros(4, 3, 8)}, "low": (0.0,), "high": (1.0,), **changes}
    with pytest.raises(InvalidInput, match=says):
        Arrays(**given)


def test_a_path_says_what_it_is(tmp_path: Path) -> None:
    bench = open_data(write(tmp_path / "1D_Burgers.hdf5", burgers()), "periodic")
    assert (bench.spec.name, bench.spec.boundary, bench.cases("train")) == ("1D_Burgers", ("periodic",), 8)
    (tmp_path / "arena").mkdir()
    for split in ("train", "valid"):
        write(tmp_path / "arena" / f"smoke_{split}.h5", smoke(split))
    arena = open_data(tmp_path / "arena", "wall")
    assert (arena.splits, arena.spec.boundary) == (("train", "valid"), ("wall", "wall"))
    assert open_data(tmp_path / "arena" / "smoke_valid.h5", "wall").splits == ("valid",)


def test_a_path_that_says_too_little(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", burgers())
    with pytest.raises(InvalidInput, match="does not say how its axes end; give the boundary: periodic, wall, open"):
        open_data(path)
    with pytest.raises(InvalidInput, match="no boundary 'round'"):
        open_data(path, "round")
    with pytest.raises(BadFile, match="has no group train, valid, test; give files of PDEBench one by one"):
        open_data(tmp_path, "periodic")
    with pytest.raises(DataMissing, match="there is no data set in"):
        open_data(tmp_path / "nothing")


def several_resolutions() -> dict[str, Any]:
    return {"train/pde_5-8": RNG.normal(size=(3, 5, 8)), "train/pde_5-4": RNG.normal(size=(3, 5, 4))}


def test_series_at_several_resolutions(tmp_path: Path) -> None:
    values = {**several_resolutions(), "train/alpha": RNG.uniform(size=3), "train/beta": np.zeros(3)}
    path = write(tmp_path / "CE_train_E2.h5", values)
    with h5py.File(path, "a") as file:
        for n in (8, 4):
            about = file[f"train/pde_5-{n}"].attrs
            about["tmin"], about["tmax"], about["x"] = 0.0, 4.0, np.linspace(0, 16, n)
    fine, coarse = (pdearena({"train": path}, boundary="periodic", points=n) for n in (None, 4))
    assert (fine.spec.resolution, coarse.spec.resolution, fine.spec.dt) == ((8,), (4,), 1.0)
    assert [p.name for p in fine.spec.parameters] == ["alpha", "beta"]
    found = coarse.batch([2], [1], Window(1, 1))
    assert torch.equal(found.x[0, 0, :, 0], torch.from_numpy(values["train/pde_5-4"][2, 1]).float())
    assert float(found.parameters[0, 0]) == pytest.approx(values["train/alpha"][2])
    assert found.t.tolist() == [[2.0]]
    with pytest.raises(InvalidInput, match=r"no series of 5 points, but of \[4, 8\]"):
        pdearena({"train": path}, boundary="periodic", points=5)


def test_points_that_are_not_equidistant_reach_the_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "WE_train.h5", {"train/pde_5-8": RNG.normal(size=(3, 5, 8))})
    x = 8 * np.cos(np.pi * (1 - np.arange(8) / 7))
    with h5py.File(path, "a") as file:
        about = file["train/pde_5-8"].attrs
        about["tmin"], about["tmax"], about["x"] = 0.0, 1.0, x
    spec = pdearena({"train": path}, boundary="wall").spec
    assert (spec.low[0], spec.high[0]) == pytest.approx((-8, 8))
