"""What a surrogate costs beside the solver that its data come from, at equal error."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, DataMissing, NotFinite, require
from isocline._core.stream import Stream
from isocline.datasets import Stored, simulators
from isocline.datasets.simulators import Cases, Simulator
from isocline.metrics import relative_error
from isocline.networks import resampled
from isocline.operators import Ledger, SolverRun
from isocline.recipes.operator.store import TrainedOperator
from isocline.recipes.operator.train import measure, seconds_a_query

FACTORS = (1, 2, 4, 8)
CASES, REPEATS = 8, 3


def report_cost(stored: TrainedOperator, data: str | Path, out: str | Path, factors: Sequence[int] = FACTORS) -> Ledger:
    """Measure a model and the solver of its data on coarser grids; write ``cost.json``.

    Both are judged by the relative L2 error of the last frame, in the mean over cases; the truth is the solver on the stored grid,
    whose own error is none here. A query is one case, from its first stored frame to the last: what a simulator does before is
    not counted. Seconds for data are those of one case times the number of training cases.

    Args:
        stored: the model.
        data: folder written by `generate`.
        out: where the file goes.
        factors: by which the grid is coarsened.

    Raises:
        DataMissing: the folder does not say which simulator its data come from.
        InvalidInput: an axis is not periodic, so that there is nothing to compare grids with.
    """
    source, simulator = Stored(data), simulator_of(data)
    stored.model.spec.require_same_fields(source.spec)
    walls = [a for a, kind in zip(source.spec.axes, source.spec.boundary, strict=True) if kind != "periodic"]
    require(not walls, f"grids are compared on periodic axes only; {', '.join(walls)} is not")
    runs = solver_runs(simulator, simulator.sample(CASES, Stream(0, "cost")), factors)
    found = measure(stored.model, source, split="test" if "test" in source.splits else "valid")
    error = (found.far or found.one).value
    training = float(stored.about.get("training_seconds", 0.0))
    full = next(run for run in runs if run.error == 0)
    data_seconds = full.seconds * source.cases("train")
    ledger = Ledger(data_seconds, training, seconds_a_query(stored.model, source), error, tuple(runs))
    files.write_json(Path(out) / "cost.json", ledger.as_dict())
    return ledger


def simulator_of(data: str | Path) -> Simulator:
    """Return the simulator that a folder's data come from.

    Raises:
        DataMissing: the folder does not say.
        BadFile: there is no such simulator.
    """
    path = Path(data) / "generated.json"
    if not path.is_file():
        raise DataMissing(f"{data} does not say which simulator its data come from; costs need data made by `generate`")
    note = files.read_json(path)
    name = note.get("simulator")
    kind = getattr(simulators, name, None) if name in simulators.__all__ else None
    if kind is None or not issubclass(kind, Simulator):
        raise BadFile(f"{path}: there is no simulator {name!r} in isocline")
    made: Simulator = kind(**note["settings"])
    return made


def solver_runs(simulator: Simulator, cases: Cases, factors: Sequence[int] = FACTORS) -> list[SolverRun]:
    """Return error and seconds of a solver on coarser and coarser grids; the first is the truth.

    Grids on which it blows up are left out.
    """
    own = simulator.spec.resolution
    truth, seconds = _simulated(simulator, cases, own)
    runs = [SolverRun(_size(own), 0.0, seconds)]
    for factor in sorted(set(factors) - {1}):
        if any(n % factor for n in own):
            continue
        sizes = tuple(n // factor for n in own)
        try:
            found, seconds = _simulated(simulator, cases, sizes)
        except NotFinite:
            continue
        error = float(relative_error(found, resampled(truth, sizes, 2)).mean())
        runs.append(SolverRun(_size(sizes), error, seconds))
    return runs


def _size(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) + " points"


def _simulated(simulator: Simulator, cases: Cases, sizes: Sequence[int]) -> tuple[Tensor, float]:
    """Return the last frame ``(n, 1, *S, C)``, and the median seconds of one case from the first frame to the last."""
    one = Cases(cases.rng, cases.first, {name: value[:1] for name, value in cases.parameters.items()}, 1)
    times = []
    for _ in range(REPEATS):
        frames = simulator.simulate(one, resolution=sizes)
        next(frames)
        start = time.perf_counter()
        deque(frames, maxlen=0)
        times.append(time.perf_counter() - start)
    (last,) = deque(simulator.simulate(cases, resolution=sizes), maxlen=1)
    return last.channels(simulator.spec).unsqueeze(1), float(torch.tensor(times).median())
