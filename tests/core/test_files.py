"""Safe files: old or new but never half, strict JSON, safetensors that notice damage."""

import errno
import json
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isocline._core import files
from isocline._core.errors import BadFile, CannotWrite, DataMissing

folder = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return files.write_tensors(tmp_path / "w.safetensors", {"a": torch.arange(12.0).reshape(3, 4)}, {"kind": "test"})


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = files.write_text(tmp_path / "plan.json", "old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CannotWrite, match=rf"cannot write .*plan\.json: {os.strerror(code)}; choose another place"):
        files.write_text(path, "new" * 1000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_at_no_moment_is_the_file_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write_text(tmp_path / "a", "old")
    seen, sync = [], os.fsync

    def look(handle: int) -> None:
        seen.append(path.read_text())
        sync(handle)

    monkeypatch.setattr(os, "fsync", look)
    files.write_text(path, "new")
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_a_symbolic_or_missing_parent_is_created(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("write", [files.write_text, files.write_json, lambda p, _: files.write_tensors(p, {})])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CannotWrite, match=r"cannot create the folder .*file/inner: .*choose another place"):
        write(tmp_path / "file" / "inner" / "x", "x")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(CannotWrite, match=r"cannot write .*/x"):
        files.write_text(tmp_path / "x", "text")
    assert os.listdir(tmp_path) == ["x"]


@given(value=values)
@folder
def test_json_comes_back_as_it_was(tmp_path: Path, value: object) -> None:
    assert files.read_json(files.write_json(tmp_path / "v.json", value)) == value


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"a": [1.0, {"b": v}]}], ids=["bare", "nested"])
def test_json_that_is_not_finite_is_neither_written_nor_read(tmp_path: Path, bad: float, wrap) -> None:  # type: ignore[no-untyped-def]
    path = files.write_json(tmp_path / "v.json", 1)
    with pytest.raises(BadFile, match=r"v\.json: a NaN or infinite number"):
        files.write_json(path, wrap(bad))
    assert files.read_json(path) == 1
    path.write_text(json.dumps(wrap(bad)))
    with pytest.raises(BadFile, match=r"v\.json is not a valid JSON file: it contains -?(NaN|Infinity)"):
        files.read_json(path)


def test_every_cut_of_a_json_object_is_refused(tmp_path: Path) -> None:
    text = files.write_json(tmp_path / "whole.json", {"rows": [1.5, -2], "name": "heun"}).read_text().rstrip()
    path = tmp_path / "cut.json"
    for length in range(len(text)):
        path.write_text(text[:length])
        with pytest.raises(BadFile, match=r"cut\.json is not a valid JSON file"):
            files.read_json(path)


def test_json_of_other_bytes_or_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match=r"b\.json is not a JSON file"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(DataMissing, match=r"cannot read .*none\.json: No such file"):
        files.read_json(tmp_path / "none.json")


@given(
    st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3), st.dictionaries(st.text(), st.text(), max_size=3)
)
@folder
def test_tensors_come_back_with_dtype_shape_and_metadata(
    tmp_path: Path, dtype: torch.dtype, shape: list[int], about: dict[str, str]
) -> None:
    value = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    found, read = files.read_tensors(files.write_tensors(tmp_path / "t", {"x": value}, about))
    assert read == about
    assert found["x"].dtype is dtype
    assert torch.equal(found["x"], value)


def test_views_and_gradients_are_stored_as_plain_values(tmp_path: Path) -> None:
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    found, _ = files.read_tensors(files.write_tensors(tmp_path / "t", {"view": x.T, "every": x[:, ::2]}))
    assert torch.equal(found["view"], x.T)
    assert torch.equal(found["every"], x[:, ::2])
    assert not found["view"].requires_grad


def test_names_that_share_memory_are_each_stored(tmp_path: Path) -> None:
    x = torch.arange(6.0)
    found, _ = files.read_tensors(files.write_tensors(tmp_path / "t", {"tied": x, "to": x, "part": x[:3]}))
    assert {name: value.tolist() for name, value in found.items()} == {
        "tied": x.tolist(), "to": x.tolist(), "part": [0.0, 1.0, 2.0],
    }  # fmt: skip


def test_every_cut_of_a_tensor_file_is_refused(stored: Path, tmp_path: Path) -> None:
    whole, path = stored.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadFile, match=r"cut\.safetensors is truncated or not a safetensors file"):
            files.read_tensors(path)


def test_a_pickle_is_refused_without_being_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    torch.save({"w": torch.ones(2)}, tmp_path / "zip.safetensors")
    for damaged in (path, tmp_path / "zip.safetensors"):
        with pytest.raises(BadFile, match="not a safetensors file"):
            files.read_tensors(damaged)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_tensor_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"there is no file .*none"):
        files.read_tensors(tmp_path / "none")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (0.5, True), (math.nan, False), (math.inf, False), (True, False), ("1", False), (None, False)],
)
def test_finite(value: object, expected: bool) -> None:
    assert files.finite(value) is expected
