r"""Data sets from simulators, case by case, in any number of processes.

Cases are simulated in shards, one file each. Finished shards wait in ``.generating``; the data set appears under its name when the
last one is there, so what is read is whole. A run that was killed goes on with the shards that are missing and ends with the same
bits, since a case depends on the seed, its split and its number alone.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch

from isocline._core.errors import BadFile, CannotWrite, Mismatch, require
from isocline._core.files import ensure_folder, read_json, write_json
from isocline._core.progress import Progress, progress
from isocline._core.stream import Stream, as_stream
from isocline._version import __version__
from isocline.datasets.hdf5 import h5py_module
from isocline.datasets.simulators.base import Simulator
from isocline.datasets.statistics import Statistics
from isocline.datasets.stored import SPLITS, Stored
from isocline.datasets.well import OWN, writing

NOTE = "generated.json"
WORK = ".generating"


@dataclass(frozen=True)
class Shard:
    """Cases that go into one file."""

    split: str
    first: int
    n: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.first:07d}.hdf5"


def generate(
    simulator: Simulator,
    folder: str | Path,
    *,
    train: int,
    valid: int = 0,
    test: int = 0,
    test_with: Simulator | None = None,
    rng: Stream | int = 0,
    processes: int = 1,
    batch: int = 32,
    resume: bool = True,
) -> Stored:
    """Simulate cases and store them in The Well's layout; do nothing where the same data set is there.

    Args:
        simulator: what is simulated.
        folder: gets ``data/{train,valid,test}/*.hdf5``, ``stats.yaml`` and ``generated.json``.
        train: cases to train on.
        valid: cases to choose by.
        test: cases to judge by; the three splits are drawn from streams of their own.
        test_with: the simulator of test cases where these have more frames; `simulator` without it.
        rng: a seed.
        processes: how many run at a time; the data do not depend on it.
        batch: cases simulated together, which share a file.
        resume: whether to go on with what a killed run left, or to begin again.

    Returns:
        The data set.

    Raises:
        Mismatch: the folder holds a data set of other settings.
        NotFinite: a solution has a NaN; the text names the case, the frame and the field.
        CannotWrite: the disk is full, or the folder cannot be written to; what was finished is kept and used by the next run.
        ExtraMissing: h5py is not installed.

    Examples:
        ``generate(KuramotoSivashinsky(), "ks", train=512, valid=32, test=64, processes=2)``
    """
    h5py_module()
    counts = dict(zip(SPLITS, (train, valid, test), strict=True))
    require(train >= 1 and valid >= 0 and test >= 0, f"a data set needs training cases, got {counts}")
    require(batch >= 1 and processes >= 1, f"batch and processes are at least 1, got {batch} and {processes}")
    stream, folder = as_stream(rng), ensure_folder(folder)
    simulators = {"train": simulator, "valid": simulator, "test": test_with or simulator}
    settings = described(simulator, counts, stream, batch)
    if test_with is not None:
        settings["test_with"] = described(test_with, {}, stream, batch)["settings"]
    if _there(folder, settings):
        return _complete(Stored(folder), counts)
    work = _begin(folder, settings, resume)
    shards = [Shard(s, k, min(batch, n - k)) for s, n in counts.items() for k in range(0, n, batch)]
    with progress(f"simulating {simulator.spec.name}", train + valid + test) as bar:
        _write_all(simulators, work, shards, stream, key(settings), processes, bar)
    _publish(folder, work, settings)
    return Stored(folder)


def _complete(source: Stored, counts: Mapping[str, int]) -> Stored:
    for split, n in counts.items():
        found = source.cases(split) if split in source.splits else 0
        if found != n:
            raise BadFile(f"{source.folder} holds {found} of {n} cases of {split}; remove it and generate it again")
    return source


def described(simulator: Simulator, counts: Mapping[str, int], rng: Stream, batch: int) -> dict[str, Any]:
    """Return all that the numbers in a data set depend on, as plain data."""
    settings: dict[str, Any] = asdict(simulator) if is_dataclass(simulator) else {}
    found = {
        "simulator": type(simulator).__name__,
        "settings": settings,
        "spec": simulator.spec.as_dict(),
        "cases": dict(counts),
        "batch": batch,
        "rng": [rng.seed, rng.name],
        "version": __version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=repr, sort_keys=True))
    return plain


def key(settings: Mapping[str, Any]) -> str:
    """Return a hash of what `described` returns."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _there(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Say whether the folder holds this data set; refuse another one."""
    if not (folder / "data").exists():
        return False
    require((folder / NOTE).exists(), f"{folder} holds data that were not generated here; choose another folder")
    _require_same(folder, read_json(folder / NOTE), settings)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return True


def _require_same(folder: Path, theirs: Any, mine: Mapping[str, Any]) -> None:
    if not isinstance(theirs, dict):
        raise BadFile(f"{folder} holds a damaged description of its data set; remove it")
    if theirs != mine:
        parts = ", ".join(_differing(theirs, mine))
        raise Mismatch(f"{folder} holds a data set with another {parts}; choose another folder, or remove this one")


def _differing(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs, with both values where they are short."""
    found = []
    for name in {**mine, **theirs}:
        if theirs.get(name) == mine.get(name):
            continue
        if name in ("settings", "cases") and isinstance(theirs.get(name), dict):
            found += [
                f"{k} ({theirs[name].get(k)}, not {v})" for k, v in mine[name].items() if theirs[name].get(k) != v
            ]
        elif name != "spec" or not found:
            found.append(name if name in ("spec", "settings") else f"{name} ({theirs.get(name)}, not {mine.get(name)})")
    return found or ["description"]


def _begin(folder: Path, settings: Mapping[str, Any], resume: bool) -> Path:
    """Return the folder of unfinished work."""
    work = folder / WORK
    if work.exists() and not resume:
        shutil.rmtree(work)
    note = work / NOTE
    if note.exists():
        _require_same(folder, read_json(note), settings)
    else:
        write_json(note, dict(settings))
    return work


def _write_all(
    simulators: Mapping[str, Simulator],
    work: Path,
    shards: list[Shard],
    rng: Stream,
    mark: str,
    processes: int,
    bar: Progress,
) -> None:
    todo = []
    for shard in shards:
        if (work / "data" / shard.split / shard.name).exists():
            bar.advance(shard.n)
        else:
            todo.append(shard)
    if processes == 1 or len(todo) < 2:
        for shard in todo:
            write_shard(simulators[shard.split], work, shard, rng, mark)
            bar.advance(shard.n)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(todo)), spawn, torch.set_num_threads, (1,)) as pool:
        jobs = {pool.submit(write_shard, simulators[shard.split], work, shard, rng, mark): shard for shard in todo}
        _wait(jobs, bar)


def _wait(jobs: Mapping[Future[None], Shard], bar: Progress) -> None:
    try:
        for job in as_completed(jobs):
            job.result()
            bar.advance(jobs[job].n)
    except BrokenProcessPool as error:
        raise CannotWrite(
            "a simulating process was killed; run the same again to go on, with fewer processes"
        ) from error
    finally:
        for job in jobs:
            job.cancel()


def write_shard(simulator: Simulator, work: Path, shard: Shard, rng: Stream, mark: str) -> None:
    """Simulate and write the cases of one file, frame by frame."""
    cases = simulator.sample(shard.n, rng.child(shard.split), shard.first)
    spec = simulator.spec
    path = work / "data" / shard.split / shard.name
    coordinates = simulator.coordinates(cases, spec.resolution)
    clock = []
    with writing(path, spec, shard.n, coordinates=coordinates, parameters=cases.parameters, first=shard.first) as file:
        file.file[OWN].attrs["key"] = mark
        file.constants(simulator.constants(cases))
        for k, frame in enumerate(simulator.simulate(cases)):
            file.frame(k, frame)
            clock.append(frame.t.expand(shard.n))
        file.require_whole()
        file.clock(torch.stack(clock, 1))


def statistics_of(source: Stored, split: str = "train") -> Statistics:
    """Return means and spreads of a split, file by file."""
    found = Statistics(source.spec)
    for file in source.files(split):
        for case in range(len(file)):
            constants = file.constant(case) if source.spec.constant else None
            found.add(file.frames(case, slice(None)), constants, time=1 if source.spec.grid == "points" else 0)
        file.close()
    return found


def _publish(folder: Path, work: Path, settings: Mapping[str, Any]) -> None:
    """Give the finished data set its name; what makes it visible comes last and at once."""
    statistics_of(Stored(work, memory=0)).write(folder / "stats.yaml")
    write_json(folder / NOTE, dict(settings))
    try:
        os.replace(work / "data", folder / "data")
    except OSError as error:
        raise CannotWrite(f"cannot move the finished data set to {folder / 'data'}: {error.strerror}") from error
    shutil.rmtree(work, ignore_errors=True)
