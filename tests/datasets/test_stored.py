"""Windows of stored cases: which frames, which cases, the same bits from any update on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isocline._core.errors import BadFile, DataMissing, InvalidInput, Mismatch, NotFinite
from isocline._core.stream import Stream
from isocline.datasets import Batch, DataSpec, FieldSpec, Stored, Window, write_well
from isocline.training import Part
from tests.datasets.test_well import ONE, TWO, drawn, written

h5py = pytest.importorskip("h5py")
TENSORS = ("x", "y", "t", "dt", "parameters", "coordinates", "constants")


def folder(path: Path, spec: DataSpec = TWO) -> Path:
    """Write training files of 3 and 2 cases and a validation file of 2."""
    for name, n, seed in (("train/a", 3, 1), ("train/b", 2, 2), ("valid/a", 2, 3)):
        write_well(path / "data" / f"{name}.hdf5", spec, **drawn(spec, n, seed=seed))
    return path


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in TENSORS]
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_windows_are_the_frames_that_were_written(tmp_path: Path, memory: int) -> None:
    source = Stored(folder(tmp_path, ONE), memory=memory)
    u = torch.cat([drawn(ONE, n, seed=seed)["fields"]["u"] for n, seed in ((3, 1), (2, 2))])
    found = source.batch([4, 0, 2], [0, 1, 0], Window(1, 1, stride=3))
    assert torch.equal(found.x[:, 0, :, 0], torch.stack([u[4, 0], u[0, 1], u[2, 0]]))
    assert torch.equal(found.target[:, 0, :, 0], torch.stack([u[4, 3], u[0, 4], u[2, 3]]))
    assert found.t.tolist() == [[1.5], [2.0], [1.5]]
    assert found.dt.tolist() == [1.5, 1.5, 1.5]
    assert found.constants is None
    whole = source.batch([1], [0], Window(2, 3))
    assert torch.equal(torch.cat([whole.x, whole.target], 1)[0, ..., 0], u[1])


def test_what_batches_hold(tmp_path: Path) -> None:
    source = Stored(folder(tmp_path))
    found = source.batch([0, 3], [0, 1], Window(1, 1))
    assert found.x.shape == found.target.shape == (2, 1, 4, 6, 7)
    assert found.constants is not None
    assert found.constants.shape == (2, 4, 6, 3)
    assert found.coordinates.shape == (4, 6, 2)
    assert found.parameters.shape == (2, 2)
    assert {getattr(found, k).dtype for k in ("x", "y", "parameters", "coordinates", "constants")} == {torch.float32}
    assert found.t.dtype == found.dt.dtype == torch.float64
    assert source.spec == TWO
    assert (len(source), source.cases("valid"), source.splits) == (5, 2, ("train", "valid"))
    steady = source.batch([0], [0], Window(0, 1))
    assert steady.x.shape == (1, 0, 4, 6, 7)


def test_a_mask_is_given_as_such(tmp_path: Path) -> None:
    spec = replace(ONE, fields=(FieldSpec("u"), FieldSpec("w", 1, varies=False), FieldSpec("mask", varies=False)))
    mask = torch.rand(3, 8) > 0.5
    given = drawn(spec)
    given["constants"]["mask"] = mask.float()
    write_well(tmp_path / "data/train/a.hdf5", spec, **given)
    found = Stored(tmp_path).batch([2, 0], [0, 0], Window())
    assert found.mask is not None
    assert torch.equal(found.mask, mask[[2, 0]])


def test_ragged_points_lie_one_after_the_other(tmp_path: Path) -> None:
    spec = replace(TWO, grid="points")
    where, offsets = torch.rand(11, 2), torch.tensor([0, 5, 7, 11])
    given = drawn(spec, points=11)
    write_well(tmp_path / "data/train/a.hdf5", spec, **{**given, "coordinates": where, "offsets": offsets})
    found = Stored(tmp_path).batch([2, 0], [0, 1], Window(1, 1))
    assert found.offsets is not None
    assert found.offsets.tolist() == [0, 4, 9]
    assert torch.equal(found.coordinates, torch.cat([where[7:], where[:5]]))
    p = given["fields"]["p"]
    assert torch.equal(found.x[:, 0, 2], torch.cat([p[7:, 0], p[:5, 1]]))
    assert torch.equal(found.target[:, 0, 2], torch.cat([p[7:, 1], p[:5, 2]]))


def test_without_a_stream_every_case_comes_once_from_its_first_frame(tmp_path: Path) -> None:
    source = Stored(folder(tmp_path, ONE))
    sizes = [len(b) for b in source.batches(Window(1, 2), 2)]
    assert sizes == [2, 2, 1]
    found = torch.cat([b.x for b in source.batches(Window(1, 2), 2)])
    assert torch.equal(found, source.batch(range(5), [0] * 5, Window(1, 2)).x)
    random = torch.cat([b.parameters for b in Stored(folder(tmp_path)).batches(Window(), 2, rng=Stream(0))])
    ordered = torch.cat([b.parameters for b in Stored(tmp_path).batches(Window(), 2)])
    assert not torch.equal(random, ordered)
    assert torch.equal(random.sort(0).values, ordered.sort(0).values)


def test_draws_depend_on_the_number_of_the_update_alone(tmp_path: Path) -> None:
    one, two = Stored(folder(tmp_path)), Stored(tmp_path, memory=0)
    window, rng = Window(1, 1), Stream(5)
    drawn_ = [one.draw(k, window, 6, "train", rng) for k in range(4)]
    assert equal(two.draw(3, window, 6, "train", rng), drawn_[3])  # as after a kill
    assert not equal(drawn_[2], drawn_[3])
    shares = [two.draw(2, window, 6, "train", rng, Part(k, 3)) for k in range(3)]
    assert torch.equal(torch.cat([s.x for s in shares]), drawn_[2].x)
    assert torch.equal(torch.cat([s.t for s in shares]), drawn_[2].t)


def test_draws_are_uniform_over_cases_and_first_frames(tmp_path: Path) -> None:
    source = Stored(folder(tmp_path, ONE))
    table = {float(source.batch([i], [s], Window()).x.sum()): (i, s) for i in range(5) for s in range(4)}
    assert len(table) == 20
    batch = source.draw(0, Window(), 4000, "train", Stream(1))
    counts = torch.zeros(5, 4)
    for x in batch.x:
        counts[table[float(x.sum())]] += 1
    assert float(((counts - 200) ** 2 / 200).sum()) < 43.8  # 99.9 % of chi squared with 19 degrees of freedom


def test_windows_outside_are_refused(tmp_path: Path) -> None:
    source = Stored(folder(tmp_path))
    with pytest.raises(InvalidInput, match="does not fit into 3 frames"):
        source.draw(0, Window(2, 2), 1, "train", Stream(0))
    with pytest.raises(InvalidInput, match="from frame 2 on does not fit"):
        source.batch([0], [2], Window())
    with pytest.raises(InvalidInput, match=r"cases 0 \.\.\. 4"):
        source.batch([5], [0], Window())
    with pytest.raises(InvalidInput, match="no split 'test'"):
        source.batches(Window(), 1, "test").__next__()
    with pytest.raises(InvalidInput, match="Did you mean 'valid'"):
        source.cases("val")


def test_nan_is_named_by_file_case_frame_and_field(tmp_path: Path) -> None:
    folder(tmp_path)
    with h5py.File(tmp_path / "data/train/b.hdf5", "a") as file:
        file["t0_fields/p"][1, 2, 0, 0] = float("nan")
    source = Stored(tmp_path)
    source.batch([4], [0], Window(1, 1))
    with pytest.raises(NotFinite, match=r"b\.hdf5, case 1, frame 2: p is NaN"):
        source.batch([3, 4], [0, 0], Window(1, 1, stride=2))
    with h5py.File(tmp_path / "data/valid/a.hdf5", "a") as file:
        file["t1_fields/b"][0, 0, 0, 1] = float("inf")
    with pytest.raises(NotFinite, match=r"a\.hdf5, case 0: b is NaN"):
        Stored(tmp_path).batch([0], [0], Window(), "valid")


def test_large_numbers_are_not_taken_for_nan(tmp_path: Path) -> None:
    given = drawn(ONE)
    given["fields"]["u"].fill_(3e38)  # their sum overflows
    write_well(tmp_path / "data/train/a.hdf5", ONE, **given)
    assert Stored(tmp_path).batch([0], [0], Window()).x.max() == torch.tensor(3e38)


OTHERS = {
    "fields": (replace(TWO, fields=(TWO.fields[1], TWO.fields[0], *TWO.fields[2:])), Mismatch, "same order"),
    "frames": (replace(TWO, times=2), BadFile, "frames are missing"),
    "resolution": (replace(TWO, resolution=(4, 5)), Mismatch, r"resolution \(4, 5\)"),
    "axes": (replace(TWO, axes=("x", "z")), Mismatch, "'z'"),
    "name": (replace(TWO, name="other"), Mismatch, "name other"),
    "boundary": (replace(TWO, boundary=("wall", "wall")), Mismatch, "boundary"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_that_do_not_belong_together(tmp_path: Path, kind: str) -> None:
    spec, error, says = OTHERS[kind]
    folder(tmp_path)
    written(tmp_path / "data/train/c.hdf5", spec)
    with pytest.raises(error, match=says) as found:
        Stored(tmp_path)
    assert "c.hdf5" in str(found.value)


def test_a_test_split_may_have_longer_cases(tmp_path: Path) -> None:
    folder(tmp_path)
    written(tmp_path / "data/test/a.hdf5", replace(TWO, times=9))
    source = Stored(tmp_path)
    assert source.spec.times == 3
    assert source.batch([0], [0], Window(1, 8), "test").target.shape[1] == 8


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no data set"):
        Stored(tmp_path)
    (tmp_path / ".generating").mkdir()
    with pytest.raises(DataMissing, match="not finished"):
        Stored(tmp_path)
