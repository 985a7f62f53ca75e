"""Data sets from simulators: whole or not there, the same bits however they came about."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from isocline._core.errors import BadFile, CannotWrite, DataMissing, InvalidInput, Mismatch, NotFinite
from isocline._core.stream import Stream
from isocline.datasets import Stored, Window, generate
from isocline.datasets.generate import WORK
from tests.datasets.heat import Heat

h5py = pytest.importorskip("h5py")
ROOT = Path(__file__).parents[2]
COUNTS: dict[str, Any] = {"train": 7, "valid": 2, "test": 3, "batch": 2}


def digests(folder: Path) -> dict[str, str]:
    """Return a hash of every file."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set made in one go."""
    folder: Path = tmp_path_factory.mktemp("whole")
    generate(Heat(), folder, **COUNTS)
    return folder


def test_what_is_there_in_the_end(whole: Path) -> None:
    names = [f"data/train/{k:07d}.hdf5" for k in (0, 2, 4, 6)] + ["data/valid/0000000.hdf5"]
    names += [f"data/test/{k:07d}.hdf5" for k in (0, 2)]
    assert set(digests(whole)) == {*names, "stats.yaml", "generated.json"}
    source = Stored(whole)
    assert source.spec == Heat().spec
    assert [source.cases(s) for s in source.splits] == [7, 2, 3]


def test_stored_numbers_are_the_simulators(whole: Path) -> None:
    simulator, source = Heat(), Stored(whole)
    for split in source.splits:
        cases = simulator.sample(source.cases(split), Stream(0).child(split))
        found = source.batch(range(len(cases)), [0] * len(cases), Window(1, 5), split)
        frames = torch.cat([found.x, found.target], 1)
        for k, frame in enumerate(simulator.simulate(cases)):
            # not bit for bit: products of matrices are rounded by the number of cases at a time
            assert torch.allclose(frames[:, k], frame.channels(simulator.spec).float(), atol=1e-6)
        assert torch.equal(found.parameters[:, 0], cases.parameters["k"].float())


def test_splits_share_no_case(whole: Path) -> None:
    source = Stored(whole)
    every = [source.batch(range(source.cases(s)), [0] * source.cases(s), Window(), s).parameters for s in source.splits]
    assert len(torch.cat(every).unique()) == 12


@pytest.mark.slow
def test_two_processes_write_the_same_files(whole: Path, tmp_path: Path) -> None:
    generate(Heat(), tmp_path, **COUNTS, processes=2)
    assert digests(tmp_path) == digests(whole)


def test_another_seed_gives_other_data(whole: Path, tmp_path: Path) -> None:
    generate(Heat(), tmp_path, **COUNTS, rng=1)
    one, two = digests(whole), digests(tmp_path)
    assert all(one[name] != two[name] for name in one)


KILLED = """
import sys
from tests.datasets.heat import Heat
from isocline.datasets import generate
generate(Heat(stop_at=4, mark=sys.argv[2]), sys.argv[1], train=7, valid=2, test=3, batch=2)
"""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL in the middle of the third file; what is left is never read, and the next run uses the two files that were whole."""
    mark, one, two = str(tmp_path / "mark"), tmp_path / "one", tmp_path / "two"
    done = subprocess.run([sys.executable, "-c", KILLED, str(one), mark], cwd=ROOT, timeout=60)
    assert done.returncode == -9
    kept = sorted((one / WORK / "data" / "train").iterdir())
    assert [p.name for p in kept] == [".0000004.hdf5.part", "0000000.hdf5", "0000002.hdf5"]
    with pytest.raises(DataMissing, match="not finished"):
        Stored(one)
    ages = [p.stat().st_mtime_ns for p in kept[1:]]
    simulator = Heat(stop_at=4, mark=mark)
    generate(simulator, one, **COUNTS)
    assert [(one / "data" / "train" / p.name).stat().st_mtime_ns for p in kept[1:]] == ages
    generate(simulator, two, **COUNTS)  # the mark is there, so nothing stops it
    assert digests(one) == digests(two)


@pytest.mark.slow
def test_a_killed_worker_is_one_line_and_can_be_resumed(tmp_path: Path) -> None:
    simulator = Heat(stop_at=4, mark=str(tmp_path / "mark"))
    with pytest.raises(CannotWrite, match="process was killed"):
        generate(simulator, tmp_path / "one", **COUNTS, processes=2)
    assert Stored.cases(generate(simulator, tmp_path / "one", **COUNTS, processes=2), "train") == 7


def test_the_same_again_does_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    monkeypatch.setattr(Heat, "simulate", None)
    assert len(generate(Heat(), whole, **COUNTS, processes=2)) == 7
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


@pytest.mark.parametrize(
    ("simulator", "changes", "says"),
    [
        (Heat(points=8), {}, r"points \(16, not 8\)"),
        (Heat(), {"train": 8}, r"train \(7, not 8\)"),
        (Heat(), {"rng": 3}, r"rng \(\[0, ''\], not \[3, ''\]\)"),
        (Heat(), {"batch": 3}, r"batch \(2, not 3\)"),
    ],
)
def test_other_settings_are_refused(whole: Path, simulator: Heat, changes: dict[str, Any], says: str) -> None:
    before = digests(whole)
    with pytest.raises(Mismatch, match=says) as found:
        generate(simulator, whole, **{**COUNTS, **changes})
    assert "\n" not in str(found.value)
    assert digests(whole) == before


def test_unfinished_work_of_other_settings_is_refused_or_begun_again(tmp_path: Path) -> None:
    with pytest.raises(NotFinite):
        generate(Heat(bad=4), tmp_path, **COUNTS)
    with pytest.raises(Mismatch, match=r"bad \(4, not -1\)"):
        generate(Heat(), tmp_path, **COUNTS)
    assert len(generate(Heat(), tmp_path, **COUNTS, resume=False)) == 7


def test_test_cases_can_be_longer(tmp_path: Path) -> None:
    source = generate(Heat(), tmp_path, train=3, test=2, test_with=Heat(times=9))
    assert (source.times("train"), source.times("test"), source.spec.times) == (6, 9, 6)
    cases = Heat().sample(2, Stream(0).child("test"))
    assert torch.equal(source.batch([0, 1], [0, 0], Window(), "test").parameters[:, 0], cases.parameters["k"].float())
    with pytest.raises(Mismatch, match="test_with"):
        generate(Heat(), tmp_path, train=3, test=2)
    with pytest.raises(Mismatch, match="resolution"):
        generate(Heat(), tmp_path / "other", train=3, test=2, test_with=Heat(points=8))


def test_files_carry_the_key(whole: Path, tmp_path: Path) -> None:
    def key(folder: Path) -> set[str]:
        found = set()
        for path in folder.rglob("*.hdf5"):
            with h5py.File(path) as file:
                found.add(str(file["isocline"].attrs["key"]))
        return found

    generate(Heat(points=8), tmp_path, **COUNTS)
    one, two = key(whole), key(tmp_path)
    assert len(one) == len(two) == 1
    assert one != two


def test_data_of_others_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InvalidInput, match="not generated here"):
        generate(Heat(), tmp_path, **COUNTS)


def test_a_lost_file_is_noticed(tmp_path: Path) -> None:
    generate(Heat(), tmp_path, **COUNTS)
    (tmp_path / "data/train/0000002.hdf5").unlink()
    with pytest.raises(BadFile, match="5 of 7 cases of train"):
        generate(Heat(), tmp_path, **COUNTS)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_nan_is_named(tmp_path: Path, processes: int) -> None:
    with pytest.raises(NotFinite, match="w is NaN or infinite in case 5, frame 2"):
        generate(Heat(bad=5), tmp_path, train=7, batch=2, processes=processes)
    with pytest.raises(DataMissing, match="not finished"):
        Stored(tmp_path)


def test_a_simulator_that_stops_early(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="frames are missing, 2 of 6 from frame 4 on"):
        generate(Heat(short=2), tmp_path, train=2)
    with pytest.raises(InvalidInput, match="there came a frame number 6"):
        generate(Heat(short=-1), tmp_path / "other", train=2)


def test_a_full_disk_leaves_only_whole_files_and_can_go_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = h5py.Dataset.__setitem__, [0]

    def full(self: Any, *args: Any) -> None:
        count[0] += 1
        if count[0] > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "__setitem__", full)
        with pytest.raises(CannotWrite, match="no space left on the disk"):
            generate(Heat(), tmp_path, **COUNTS)
    files = [p for p in (tmp_path / WORK).rglob("*") if p.is_file()]
    assert [p.name for p in files if p.suffix != ".json"] == ["0000000.hdf5"]
    with pytest.raises(DataMissing, match="not finished"):
        Stored(tmp_path)
    generate(Heat(), tmp_path, **COUNTS)
    assert digests(tmp_path) == digests(whole)


def test_a_description_that_is_damaged(whole: Path, tmp_path: Path) -> None:
    generate(Heat(), tmp_path, train=2)
    (tmp_path / "generated.json").write_text(json.dumps([1]))
    with pytest.raises(BadFile, match="damaged description"):
        generate(Heat(), tmp_path, train=2)
