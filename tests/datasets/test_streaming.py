"""Streams of windows: what comes, in which numbers, after which accidents."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import ExtraMissing, InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.datasets import streaming
from isocline.datasets.buffers import FIFO, FIRO, Buffer, Policy, Reservoir
from isocline.datasets.fields import Batch, Frame, Window
from isocline.datasets.simulated import Simulated
from isocline.datasets.simulators.base import Cases
from isocline.datasets.statistics import Statistics
from isocline.datasets.streaming import PoolSource, ProducerLost, RaySource, StreamSource
from isocline.operators.fit import Source as TrainingSource
from tests.datasets.heat import Heat

WINDOW = Window(1, 1)
ROOM = 5  # windows of a case of 6 frames


@dataclass(frozen=True)
class Failing(Heat):
    """One that breaks off after a frame."""

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        yield next(super().simulate(cases, resolution=resolution))
        raise ValueError("the step is too large")


class Here(StreamSource):
    """Producers that live in the threads of this process; those in `doomed` are lost after so many frames."""

    def __init__(self, *args: Any, doomed: tuple[int, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.doomed = list(doomed)
        self.stopped = 0

    def _start(self) -> streaming.Producer:
        return _Thread(self, self.doomed.pop(0) if self.doomed else None)


def _serves_a_training(source: StreamSource) -> TrainingSource:
    return source  # for mypy: `isocline.operators.fit` takes it


class _Thread:
    def __init__(self, source: Here, life: int | None) -> None:
        self.source, self.life = source, life

    def run(self, shard: streaming.Shard) -> Iterator[tuple[Any, Any]]:
        source = self.source
        for message in streaming._frames(source.simulator, source.rng.child("train"), *shard):
            if self.life is not None:
                self.life -= 1
                if self.life < 0:
                    raise ProducerLost("gone")
            yield message

    def stop(self) -> None:
        self.source.stopped += 1


def stored(cases: int, **settings: Any) -> dict[tuple[float, float], Tensor]:
    """Return all windows of the training stream, by the parameter of their case and the time of their last frame."""
    source = Simulated(Heat(**settings), {"train": cases})
    return marked(source.batch([c] * ROOM, list(range(ROOM)), WINDOW, "train") for c in range(cases))


def marked(batches: Any) -> dict[tuple[float, float], Tensor]:
    found = {}
    for batch in batches:
        for k in range(len(batch)):
            mark = (float(batch.parameters[k, 0]), float(batch.t[k, -1]))
            found[mark] = torch.cat([batch.x[k], batch.target[k]])
    return found


def count(batches: list[Batch]) -> Counter[tuple[float, float]]:
    return Counter((float(b.parameters[k, 0]), float(b.t[k, -1])) for b in batches for k in range(len(b)))


def whole(source: StreamSource, cases: int, once: bool = True) -> None:
    """Every window of every case came with the values of the simulation, and, from queues, once."""
    with source:
        batches = list(source.batches(WINDOW, 4))
    expected, found = stored(cases), marked(batches)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[mark], expected[mark]) for mark in expected)
    assert source.buffer.received == cases * ROOM
    if once:
        assert set(count(batches).values()) == {1}


@pytest.mark.parametrize("policy", [FIFO(20), FIRO(20, 10), Reservoir(20, 10)])
@pytest.mark.parametrize(("processes", "batch"), [(1, 1), (3, 2)])
def test_every_window_comes(policy: Policy[Any], processes: int, batch: int) -> None:
    fresh = type(policy)(policy.capacity, policy.threshold)
    source = Here(Heat(), Buffer(fresh), WINDOW, cases=9, processes=processes, batch=batch)
    whole(source, 9, once=not isinstance(policy, Reservoir))
    assert source.stopped == processes
    assert not any(lane.is_alive() for lane in source._lanes)


@pytest.mark.parametrize("doomed", [(0,), (8,), (3, 2), (1, 1), (20, 0), (41,)])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_lost_producer_loses_nothing(doomed: tuple[int, ...], processes: int) -> None:
    """Whenever it dies: no window is missing, none comes twice, the run ends."""
    source = Here(Heat(), Buffer(FIFO(20)), WINDOW, cases=7, processes=processes, doomed=doomed)
    whole(source, 7)
    if processes == 1:  # of two, one may have finished before its time
        assert source.restarts == len(doomed)


def test_a_case_that_always_kills_its_producer_is_an_error() -> None:
    with Here(Heat(), Buffer(FIFO(20)), WINDOW, cases=3, doomed=(2,) * 3) as source:  # noqa: SIM117
        with pytest.raises(ProducerLost, match="case 0 was lost 3 times"):
            list(source.batches(WINDOW, 2))


def numbers(s: Statistics) -> list[Tensor]:
    moments = (s.values, s.differences, s.constants)
    return [value for m in moments for value in (m.mean, m.std, m.rms)]


def measured(source: StreamSource) -> Statistics:
    with source:
        return source.statistics()


def test_statistics_do_not_depend_on_processes_or_accidents() -> None:
    """Those of the first five cases, bit for bit, and those of a second, plain computation."""
    settings: dict[str, Any] = {"cases": 9, "warm_up": 5, "batch": 2}
    found = [
        measured(Here(Heat(), Buffer(FIFO(40)), WINDOW, processes=p, doomed=d, **settings))
        for p, d in ((1, ()), (2, ()), (3, (2, 9)))
    ]
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(numbers(found[0]), numbers(other), strict=True))
    five = Simulated(Heat(), {"train": 5})
    batch = five.batch(range(5), [0] * 5, Window(0, 6), "train")
    values = batch.target.double()
    assert batch.constants is not None
    for moments, x in ((found[0].values, values), (found[0].differences, values[:, 1:] - values[:, :-1])):
        flat = x.reshape(-1, x.shape[-1])
        assert torch.allclose(moments.mean, flat.mean(0), rtol=1e-10, atol=1e-14)
        assert torch.allclose(moments.std, flat.std(0, correction=0), rtol=1e-10)
    assert torch.allclose(found[0].constants.mean, batch.constants.double().flatten(0, -2).mean(0))
    assert found[0].frozen


def test_statistics_stay_when_more_cases_come() -> None:
    with Here(Heat(), Buffer(FIFO(40)), WINDOW, cases=20, warm_up=2, processes=2) as source:
        before = [x.clone() for x in numbers(source.statistics())]
        assert len(list(source.batches(WINDOW, 5))) == 20
        assert all(torch.equal(a, b) for a, b in zip(before, numbers(source.statistics()), strict=True))


def test_a_full_buffer_stops_the_solvers() -> None:
    source = Here(Heat(), Buffer(FIFO(5)), WINDOW, cases=100, processes=2)
    with source:
        source.statistics()
        time.sleep(0.1)
        assert source.buffer.received == 5
        source.draw(0, WINDOW, 2, "train", Stream(0))
        deadline = time.monotonic() + 10
        while source.buffer.received < 7 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert source.buffer.received == 7


def test_the_buffer_holds_no_more_than_its_windows() -> None:
    """Frames of a case that are in no window of the buffer are let go."""
    with Here(Heat(), Buffer(Reservoir(30)), Window(2, 1), cases=40, batch=5) as source:
        for _ in range(20):
            source.draw(0, Window(2, 1), 8, "train", Stream(0))
        assert isinstance(source.buffer.policy, Reservoir)
        held = [*source.buffer.policy.seen, *source.buffer.policy.unseen]
    assert {len(case.values) for case in held} == {3}
    assert {value.untyped_storage().nbytes() for case in held for value in case.values} == {4 * 16 * 2}


def test_a_stream_without_end_is_closed() -> None:
    threads = threading.active_count()
    with Here(Heat(), Buffer(Reservoir(30, 10)), WINDOW, processes=2) as source:
        for step in range(30):
            batch = source.draw(step, WINDOW, 4, "train", Stream(0))
            assert batch.x.shape == (4, 1, 16, 2)
            assert batch.x.dtype == torch.float32
            assert torch.allclose(batch.dt, torch.full((4,), 0.1, dtype=torch.float64))
    assert threading.active_count() == threads
    with pytest.raises(InvalidInput, match="is closed"):
        source.draw(30, WINDOW, 4, "train", Stream(0))


def test_a_stream_that_ends_says_so() -> None:
    with Here(Heat(), Buffer(FIFO(20)), WINDOW, cases=2) as source:
        for step in range(5):
            source.draw(step, WINDOW, 2, "train", Stream(0))
        with pytest.raises(InvalidInput, match="has ended after 2 cases, 10 windows given"):
            source.draw(5, WINDOW, 2, "train", Stream(0))


def test_validation_cases_are_others_and_stay() -> None:
    rng = Stream(3)
    with Here(Heat(), Buffer(FIFO(50)), WINDOW, cases=10, valid=4) as source:
        valid = list(source.batches(Window(1, 5), 3, "valid"))
        again = source.draw(0, WINDOW, 8, "valid", rng)
        train = list(source.batches(WINDOW, 10))
    assert [len(b) for b in valid] == [3, 1]
    assert not {mark[0] for mark in count(valid)} & {mark[0] for mark in count(train)}
    assert {mark[0] for mark in count([again])} <= {mark[0] for mark in count(valid)}
    other = Simulated(Heat(), {"valid": 4}).draw(0, WINDOW, 8, "valid", rng)
    assert torch.equal(again.x, other.x)


def test_nan_names_the_case_the_frame_and_the_field() -> None:
    with Here(Heat(bad=3), Buffer(FIFO(50)), WINDOW, cases=5) as source:  # noqa: SIM117
        with pytest.raises(NotFinite, match="simulated case 3, frame 2: w is NaN"):
            list(source.batches(WINDOW, 4))


def test_missing_frames_are_an_error_also_while_waiting_for_statistics() -> None:
    with Here(Heat(short=2), Buffer(FIFO(50)), WINDOW, cases=5, processes=2, warm_up=3) as source:  # noqa: SIM117
        with pytest.raises(InvalidInput, match="4 of 6 frames"):
            source.statistics()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": Window(3, 4)}, "7 frames does not fit into 6"),
        ({"warm_up": 5}, "larger capacity or a smaller warm_up"),
        ({"warm_up": 9, "cases": 8}, r"warm_up must be in 1 \.\.\. 8"),
        ({"processes": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    window = settings.pop("window", WINDOW)
    with pytest.raises(InvalidInput, match=said):
        Here(Heat(), Buffer(FIFO(20)), window, **settings)


def test_another_window_is_refused() -> None:
    with Here(Heat(), Buffer(FIFO(20)), WINDOW, cases=2) as source, pytest.raises(InvalidInput, match="has windows"):
        source.draw(0, Window(2, 1), 2, "train", Stream(0))


def test_ray_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ExtraMissing, match=r"isocline\[ray\]"):
        RaySource(Heat(), Buffer(FIFO(20)), WINDOW).statistics()


@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle of case 2, by a real process."""
    mark = tmp_path / "stopped"
    source = PoolSource(Heat(stop_at=2, mark=str(mark)), Buffer(FIFO(20)), WINDOW, cases=6, processes=2)
    whole(source, 6)
    assert mark.exists()
    assert source.restarts == 1


@pytest.mark.slow
def test_processes_give_the_statistics_of_threads() -> None:
    settings: dict[str, Any] = {"cases": 6, "warm_up": 4}
    found = [
        numbers(measured(PoolSource(Heat(), Buffer(FIFO(40)), WINDOW, processes=2, **settings))),
        numbers(measured(Here(Heat(), Buffer(FIFO(40)), WINDOW, **settings))),
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_an_error_in_a_process_arrives() -> None:
    source = PoolSource(Failing(), Buffer(FIFO(20)), WINDOW, cases=3)
    with source, pytest.raises(ValueError, match="the step is too large"):
        source.statistics()


@pytest.mark.slow
def test_ray_gives_the_same_and_survives_a_kill(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    settings: dict[str, Any] = {"cases": 6, "warm_up": 4}
    mark = tmp_path / "stopped"
    try:
        killed = Heat(stop_at=2, mark=str(mark))
        source = RaySource(killed, Buffer(FIFO(40)), WINDOW, processes=2, **settings)
        with source:
            found = numbers(source.statistics())
            batches = list(source.batches(WINDOW, 4))
        assert mark.exists()
        assert source.restarts == 1
    finally:
        ray.shutdown()
    expected = numbers(measured(Here(Heat(), Buffer(FIFO(40)), WINDOW, **settings)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    windows = stored(6)
    assert marked(batches).keys() == windows.keys()
    assert all(torch.equal(value, windows[mark_]) for mark_, value in marked(batches).items())
