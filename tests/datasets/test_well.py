"""The Well's layout: round trips, and one clear line for every damaged file."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import BadFile, CannotWrite, DataMissing, ExtraMissing, InvalidInput, NotFinite
from isocline.datasets import DataSpec, FieldSpec, ParameterSpec, WellFile, write_well

h5py = pytest.importorskip("h5py")

FIELDS = (
    FieldSpec("v", 1),
    FieldSpec("p", units="Pa"),
    FieldSpec("s", 2),
    FieldSpec("b", 1, varies=False),
    FieldSpec("a", varies=False),
)
TWO = DataSpec(
    "flow",
    FIELDS,
    ("x", "y"),
    (0.0, -1.0),
    (1.0, 1.0),
    (4, 6),
    ("periodic", "wall"),
    3,
    0.1,
    (ParameterSpec("nu", 0.1, 1.0, log=True), ParameterSpec("g", 9.81, 9.81)),
)
ONE = DataSpec("line", (FieldSpec("u"),), ("x",), (0.0,), (1.0,), (8,), ("periodic",), 5, 0.5)


def grid(spec: DataSpec) -> Tensor:
    lines = [torch.arange(m, dtype=torch.float64) / m for m in spec.resolution]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)


def drawn(spec: DataSpec = TWO, n: int = 3, points: int = 0, seed: int = 0) -> dict[str, Any]:
    """Return random arguments of `write_well`."""
    rng, d = torch.Generator().manual_seed(seed), len(spec.axes)
    head, space = ((points,), ()) if points else ((n,), spec.resolution)
    fields = {f.name: torch.randn((*head, spec.times, *space, *(d,) * f.order), generator=rng) for f in spec.varying}
    still = {f.name: torch.randn((*head, *space, *(d,) * f.order), generator=rng) for f in spec.constant}
    parameters = {p.name: p.of(torch.rand(n, generator=rng, dtype=torch.float64)) for p in spec.parameters}
    times = spec.dt * torch.arange(spec.times, dtype=torch.float64)
    return {"fields": fields, "constants": still, "parameters": parameters, "times": times, "coordinates": grid(spec)}


def written(path: Path, spec: DataSpec = TWO, **changes: Any) -> Path:
    return write_well(path, spec, **{**drawn(spec), **changes})


def test_scalars_vectors_tensors_constants_and_parameters_come_back(tmp_path: Path) -> None:
    given = drawn()
    file = WellFile(write_well(tmp_path / "a.hdf5", TWO, **given))
    assert file.spec == TWO
    assert len(file) == 3
    fields, still = given["fields"], given["constants"]
    for case in range(3):
        # side by side in the order of the description: v, p, s
        expected = torch.cat([fields["v"][case], fields["p"][case][..., None], fields["s"][case].flatten(-2)], -1)
        assert torch.equal(file.frames(case, slice(None)), expected)
        assert torch.equal(file.frames(case, slice(1, 3)), expected[1:])
        assert torch.equal(file.frames(case, slice(0, 3, 2)), expected[::2])
        assert torch.equal(file.constant(case), torch.cat([still["b"][case], still["a"][case][..., None]], -1))
        assert torch.equal(file.points(case), given["coordinates"])
        assert torch.equal(file.clock(case), given["times"])
    assert torch.equal(file.parameters, torch.stack([given["parameters"][k] for k in ("nu", "g")], 1))


def test_reading_by_slices_gives_what_memory_gives(tmp_path: Path) -> None:
    written(tmp_path / "a.hdf5")
    kept, sliced = WellFile(tmp_path / "a.hdf5"), WellFile(tmp_path / "a.hdf5", keep=False)
    for case in (2, 0, 1, 2):
        assert torch.equal(kept.frames(case, slice(1, 3)), sliced.frames(case, slice(1, 3)))
        assert torch.equal(kept.constant(case), sliced.constant(case))
    assert not kept.opened
    assert sliced.opened
    sliced.close()
    assert torch.equal(kept.constant(1), sliced.constant(1))


def test_times_and_grids_of_each_case(tmp_path: Path) -> None:
    times = torch.tensor([0.1, 0.11, 0.09], dtype=torch.float64)[:, None] * torch.arange(5)
    stretch = torch.tensor([1.0, 1.1, 0.9], dtype=torch.float64)
    coordinates = stretch[:, None, None] * grid(ONE)
    file = WellFile(written(tmp_path / "a.hdf5", ONE, times=times, coordinates=coordinates))
    for case in range(3):
        assert torch.equal(file.clock(case), times[case])  # in double precision
        assert torch.equal(file.points(case), coordinates[case])


def test_points_and_meshes_are_ragged(tmp_path: Path) -> None:
    spec = replace(TWO, grid="points", resolution=(4, 6))
    offsets, cells = torch.tensor([0, 5, 7, 11]), torch.tensor([[0, 1, 2], [2, 3, 4], [0, 1, 0], [1, 2, 3]])
    given = drawn(spec, points=11)
    where = torch.rand(11, 2, dtype=torch.float64)
    mesh = {"offsets": offsets, "cells": cells, "cell_offsets": torch.tensor([0, 2, 3, 4])}
    file = WellFile(write_well(tmp_path / "a.hdf5", spec, **{**given, "coordinates": where, **mesh}))
    assert file.spec == spec
    for case, rows in enumerate((slice(0, 5), slice(5, 7), slice(7, 11))):
        assert torch.equal(file.points(case), where[rows])
        assert torch.equal(file.frames(case, slice(1, 3))[..., 2], given["fields"]["p"][rows, 1:3])
        assert torch.equal(file.constant(case)[..., :2], given["constants"]["b"][rows])
    assert file.cells is not None
    assert file.cell_offsets is not None
    assert torch.equal(file.cells, cells)
    assert torch.equal(file.cell_offsets, mesh["cell_offsets"])


def test_files_of_others_have_no_description_of_ours(tmp_path: Path) -> None:
    given = drawn()
    write_well(tmp_path / "a.hdf5", TWO, **given)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["isocline"]
        file["boundary_conditions/x_periodic"].attrs["bc_type"] = "PERIODIC"  # as their files spell it
        for name in ("t0_fields/a", "t1_fields/b"):  # one for all cases
            attributes, value = dict(file[name].attrs), file[name][1]
            del file[name]
            file.create_dataset(name, data=value).attrs.update({**attributes, "sample_varying": False})
        value = file["t2_fields/s"][...]
        attributes = dict(file["t2_fields/s"].attrs)
        del file["t2_fields/s"]  # their page has D^2 numbers in a row, their loader D by D
        file.create_dataset("t2_fields/s", data=value.reshape(*value.shape[:-2], 4)).attrs.update(attributes)
    file = WellFile(tmp_path / "a.hdf5")
    assert [f.name for f in file.spec.fields] == ["p", "v", "s", "a", "b"]  # by order, varying ones first
    assert file.spec.boundary == ("periodic", "wall")
    assert file.spec.times == 3
    assert file.spec.dt == pytest.approx(0.1, rel=1e-6)
    assert file.spec.low == (0.0, 0.0)
    assert file.spec.high == pytest.approx((1.0, 5 / 6))  # one step further where it is periodic
    assert [p.name for p in file.spec.parameters] == ["nu", "g"]
    fields = given["fields"]
    expected = torch.cat([fields["p"][2][..., None], fields["v"][2], fields["s"][2].flatten(-2)], -1)
    assert torch.equal(file.frames(2, slice(None)), expected)
    for case in range(3):
        assert torch.equal(file.constant(case)[..., 0], given["constants"]["a"][1])
    assert torch.allclose(file.parameters[:, 0], given["parameters"]["nu"], rtol=1e-6)


def test_fields_without_an_axis_are_repeated_along_it(tmp_path: Path) -> None:
    written(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        value, attributes = file["t0_fields/p"][...], dict(file["t0_fields/p"].attrs)
        del file["t0_fields/p"]
        flat = file.create_dataset("t0_fields/p", data=value[..., 0])
        flat.attrs.update({**attributes, "dim_varying": [True, False]})
    found = WellFile(tmp_path / "a.hdf5").frames(1, slice(None))[..., 2]
    assert torch.equal(found, torch.from_numpy(value[1, :, :, :1]).expand(3, 4, 6))


def cut_frames(file: Any) -> None:
    value, attributes = file["t0_fields/p"][:, :2], dict(file["t0_fields/p"].attrs)
    del file["t0_fields/p"]
    file.create_dataset("t0_fields/p", data=value).attrs.update(attributes)


def drop_axis(file: Any) -> None:
    value, attributes = file["t1_fields/v"][..., 0], dict(file["t1_fields/v"].attrs)
    del file["t1_fields/v"]
    file.create_dataset("t1_fields/v", data=value).attrs.update(attributes)


def set_dimensions(file: Any) -> None:
    file.attrs["n_spatial_dims"] = 3


def drop_field(file: Any) -> None:
    del file["t0_fields/p"]


def drop_scalars(file: Any) -> None:
    del file["scalars"]


def sphere(file: Any) -> None:
    file.attrs["grid_type"] = "spherical"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut_frames, "p has 2 of 3 frames; frames are missing"),
        (drop_axis, "v has shape"),
        (set_dimensions, "3 dimensions"),
        (drop_field, "no field p"),
        (drop_scalars, "scalars"),
        (sphere, "spherical"),
    ],
)
def test_damage_is_named(tmp_path: Path, harm: Callable[[Any], None], says: str) -> None:
    path = written(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        harm(file)
    with pytest.raises(BadFile, match=says) as found:
        WellFile(path)
    assert "\n" not in str(found.value)
    assert str(path) in str(found.value)


def test_truncated_and_absent_files(tmp_path: Path) -> None:
    path = written(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadFile, match="truncated"):
        WellFile(path)
    with pytest.raises(DataMissing, match="no file"):
        WellFile(tmp_path / "b.hdf5")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_is_not_written(tmp_path: Path, value: float) -> None:
    given = drawn()
    given["fields"]["v"][1, 2, 0, 0, 1] = value
    with pytest.raises(NotFinite, match="v is NaN or infinite in case 1, frame 2"):
        write_well(tmp_path / "a.hdf5", TWO, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("fields", {"v": torch.zeros(3, 3, 4, 6, 2)}, "no values of p, s"),
        ("times", torch.zeros(2), "times need shape"),
        ("times", torch.zeros(3), "increase"),
        ("coordinates", torch.zeros(4, 6), "coordinates need shape"),
        ("coordinates", torch.rand(4, 6, 2), "straight lines"),
        ("parameters", {"nu": torch.ones(3)}, "no values of g"),
        ("parameters", {"nu": torch.ones(3), "g": torch.ones(2)}, "parameters need shape"),
        ("constants", {}, "no values of b"),
    ],
)
def test_wrong_arguments(tmp_path: Path, name: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        written(tmp_path / "a.hdf5", **{name: value})
    assert not list(tmp_path.iterdir())


def test_missing_frames_and_wrong_dimensions_are_not_written(tmp_path: Path) -> None:
    given = drawn()
    given["fields"]["p"] = given["fields"]["p"][:, :2]
    with pytest.raises(InvalidInput, match="3 frames"):
        write_well(tmp_path / "a.hdf5", TWO, **given)
    given = drawn()
    given["fields"]["p"] = given["fields"]["p"][..., 0]
    with pytest.raises(InvalidInput, match="p should have shape"):
        write_well(tmp_path / "a.hdf5", TWO, **given)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
@pytest.mark.parametrize("limit", [400, 20_000, 400_000, 4_800_000])
def test_a_real_failure_of_writing_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """The operating system refuses to let the file grow, as it does on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CannotWrite, match="cannot write") as found:
            write_well(
                tmp_path / "a.hdf5",
                ONE,
                {"u": torch.ones(30_000, 5, 8)},
                times=torch.arange(5.0),
                coordinates=grid(ONE),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())
    written(tmp_path / "a.hdf5")
    assert len(WellFile(tmp_path / "a.hdf5")) == 3


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", full)
    with pytest.raises(CannotWrite, match="no space left on the disk"):
        written(tmp_path / "a.hdf5")
    assert not list(tmp_path.iterdir())


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ExtraMissing, match=r"isocline\[operators\]"):
        WellFile(path)
    with pytest.raises(ExtraMissing, match=r"isocline\[operators\]"):
        written(tmp_path / "b.hdf5")
