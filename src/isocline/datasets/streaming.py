r"""Windows from solvers that run beside the training: local processes, or Ray.

Producers take shards of cases in order and push every frame as it is computed; a thread for each of them joins frames to windows
and offers these to the buffer, so a full buffer stops the solvers. What a case is depends on the seed and its number alone. So a
case whose producer was killed is begun again by a new one, the frames that had come are not taken twice, and nothing is lost.

Statistics are those of the first cases by number, whatever the order in which they come; no other case is begun before they are
there. They are the same for any number of processes, and do not change afterwards.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any, Protocol

import torch

from isocline._core.errors import ExtraMissing, InvalidInput, IsoclineError, require
from isocline._core.stream import Stream, as_stream
from isocline.datasets.buffers import Buffer, Stopped
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.datasets.simulated import Case, Simulated, begun, simulated_frames
from isocline.datasets.simulators.base import Simulator
from isocline.datasets.statistics import Statistics
from isocline.datasets.windows import Rows, gathered

RETRIES = 3  # attempts at a case whose producer is killed

Shard = tuple[int, int]  # number of the first case, how many


class ProducerLost(IsoclineError, RuntimeError):
    """The process that simulated is gone."""


class Producer(Protocol):
    """A process that simulates shards, one after the other."""

    def run(self, shard: Shard) -> Iterator[tuple[Any, Any]]:
        """Yield times (n,) and channels ``(n, *S, C)`` of each frame as arrays.

        Raises:
            ProducerLost: the process is gone.
        """

    def stop(self) -> None:
        """End the process."""


class StreamSource(ABC):
    """Windows as they are computed; a subclass says where producers run.

    The training split is the stream. Validation cases come from a stream of their own, are simulated here, and stay the same.
    It may be used in a ``with`` statement, which ends the producers.

    Args:
        simulator: what is simulated; it must pickle.
        buffer: which windows are kept and given.
        window: which frames are given and predicted.
        cases: how many are simulated; None for as long as batches are asked for.
        processes: producers at a time.
        batch: cases that a producer simulates together.
        rng: a seed.
        warm_up: cases that statistics are taken of.
        valid: cases of the validation split.

    Raises:
        InvalidInput: the window does not fit into a case, or the buffer does not hold the cases of the warm-up.

    Attributes:
        restarts: producers that were lost and replaced.
    """

    def __init__(
        self,
        simulator: Simulator,
        buffer: Buffer[Case],
        window: Window,
        *,
        cases: int | None = None,
        processes: int = 1,
        batch: int = 1,
        rng: Stream | int = 0,
        warm_up: int = 1,
        valid: int = 16,
    ) -> None:
        spec = simulator.spec
        room = spec.times - window.frames + 1
        require(room >= 1, f"{spec.name}: a window of {window.frames} frames does not fit into {spec.times} frames")
        require(processes >= 1 and batch >= 1, f"processes and batch are at least 1, got {processes} and {batch}")
        require(
            warm_up >= 1 and (cases is None or warm_up <= cases), f"warm_up must be in 1 ... {cases}, got {warm_up}"
        )
        shards = -(-warm_up // batch)
        require(
            shards * batch * room <= buffer.policy.capacity,
            f"{shards * batch} cases of the warm-up are {shards * batch * room} windows, more than the buffer's "
            f"{buffer.policy.capacity}; use a larger capacity or a smaller warm_up",
        )
        self.spec: DataSpec = spec
        self.simulator, self.buffer, self.window = simulator, buffer, window
        self.total, self.processes, self.size, self.rng = cases, processes, batch, as_stream(rng)
        self.validation = Simulated(simulator, {"valid": valid}, self.rng)
        self.restarts = 0
        self._warm_shards, self._warm_cases = shards, warm_up
        self._lock, self._warm = threading.Lock(), threading.Event()
        self._measured: dict[int, Statistics] = {}
        self._statistics = Statistics(spec)
        self._next = 0
        self._lanes: list[threading.Thread] = []
        self._running = 0
        self._over = self._closed = False  # no more shards; no more batches

    @abstractmethod
    def _start(self) -> Producer:
        """Return a new producer."""

    # -- what a training asks for

    def draw(
        self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Rows | None = None
    ) -> Batch:
        """Return the next batch of the stream, or windows of the validation cases.

        A stream has no random access: a training that was killed goes on with other windows.

        Args:
            step: number of the update.
            window: that of the stream.
            batch_size: windows in the whole update.
            split: ``"train"`` for the stream, ``"valid"`` for cases that stay.
            rng: of the choice among validation cases.
            part: a share of the batch; each share takes windows of its own.

        Raises:
            InvalidInput: the stream has ended, or another window is asked for.
        """
        if split != "train":
            return self.validation.draw(step, window, batch_size, split, rng, part)
        rows = range(batch_size)[slice(0, batch_size) if part is None else part.rows(batch_size)]
        found = self._batch(window, len(rows))
        if found is None:
            raise InvalidInput(
                f"the stream of {self.spec.name} has ended after {self.total} cases, {self.buffer.given} windows given; "
                "simulate more cases or train fewer steps"
            )
        return found

    def batches(
        self, window: Window, batch_size: int, split: str = "train", rng: Stream | None = None
    ) -> Iterator[Batch]:
        """Yield batches until the stream ends; or go through the validation cases once."""
        if split != "train":
            yield from self.validation.batches(window, batch_size, split, rng)
            return
        while (found := self._batch(window, batch_size)) is not None:
            yield found

    def statistics(self) -> Statistics:
        """Return means and spreads of the first `warm_up` cases; wait for them.

        Raises:
            Exception: what a simulator raised.
        """
        self._begin()
        self._warm.wait()
        self.buffer.raise_failure()
        return self._statistics

    def close(self) -> None:
        """End the producers, each after the frame that it is at."""
        self._closed = self._over = True
        self.buffer.stop()
        self._warm.set()
        for lane in self._lanes:
            lane.join()

    def __enter__(self) -> StreamSource:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batch(self, window: Window, n: int) -> Batch | None:
        require(window == self.window, f"this stream has windows {self.window}, not {window}")
        require(not self._closed, f"the stream of {self.spec.name} is closed")
        self._begin()
        found = self.buffer.get(n)
        return gathered(self.spec, [(case, 0, 0) for case in found], window) if found else None

    # -- threads, one for each producer

    def _begin(self) -> None:
        if not self._lanes:
            self._running = self.processes
            self._lanes = [threading.Thread(target=self._lane, daemon=True) for _ in range(self.processes)]
            for lane in self._lanes:
                lane.start()

    def _lane(self) -> None:
        producer: list[Producer] = []
        try:
            while (shard := self._next_shard()) is not None:
                self._simulated(shard, producer)
        except Stopped:
            pass
        except BaseException as error:
            self.buffer.fail(error)
            self._over = True
            self._warm.set()
        finally:
            for one in producer:
                one.stop()
            with self._lock:
                self._running -= 1
                last = self._running == 0
            if last:
                self.buffer.close()

    def _next_shard(self) -> Shard | None:
        with self._lock:
            first, number = self._next * self.size, self._next
            if self._over or (self.total is not None and first >= self.total):
                return None
            self._next += 1
        if number >= self._warm_shards:
            self._warm.wait()
        if self._over:
            return None
        return first, self.size if self.total is None else min(self.size, self.total - first)

    def _simulated(self, shard: Shard, producer: list[Producer]) -> None:
        """Take in the frames of a shard, from as many producers as it takes."""
        cases = begun(self.simulator, self.simulator.sample(shard[1], self.rng.child("train"), shard[0]))
        for _ in range(RETRIES):
            try:
                if not producer:
                    producer.append(self._start())
                for k, (times, values) in enumerate(producer[0].run(shard)):
                    self._received(cases, k, times, values)
                break
            except ProducerLost:
                producer.pop().stop()
                with self._lock:
                    self.restarts += 1
        else:
            raise ProducerLost(
                f"{self.spec.name}: the producer of case {shard[0]} was lost {RETRIES} times; "
                'it may need more memory than there is, or the script lacks `if __name__ == "__main__":`'
            )
        self._measure(shard, cases)

    def _received(self, cases: list[Case], k: int, times: Any, values: Any) -> None:
        if self._over:
            raise Stopped("the training has ended")
        if k < len(cases[0].values):
            return  # came from a producer that was lost later
        for case, t, value in zip(cases, torch.from_numpy(times).tolist(), torch.from_numpy(values), strict=True):
            case.add(t, value.clone())  # a view would keep the frames of its neighbours
        start = k + 1 - self.window.frames
        if start >= 0:
            for case in cases:
                self.buffer.put(case.part(start, k + 1))

    def _measure(self, shard: Shard, cases: list[Case]) -> None:
        """Keep the statistics of the first cases; join them in order when all are there."""
        require(
            len(cases[0].values) == self.spec.times,
            f"{self.spec.name}: the simulator gave {len(cases[0].values)} of {self.spec.times} frames",
        )
        wanted = [case for case in cases if case.number < self._warm_cases]
        if not wanted:
            return
        own = Statistics(self.spec)
        for case in wanted:
            constants = case.still if self.spec.constant else None
            own.add(case.frames(0, slice(None)), constants, time=1 if self.spec.grid == "points" else 0)
        with self._lock:
            self._measured[shard[0]] = own
            if len(self._measured) == self._warm_shards:
                for first in sorted(self._measured):
                    self._statistics.merge(self._measured[first])
                self._statistics.frozen = True
                self._warm.set()


class PoolSource(StreamSource):
    """Windows from processes on this machine.

    Processes are spawned, so a script needs ``if __name__ == "__main__":``, and the simulator must be importable.

    Examples:
        ``with PoolSource(Heat(), Buffer(Reservoir(4096, 512)), Window(1, 1), cases=1000, processes=2) as source: ...``
    """

    def _start(self) -> Producer:
        return _LocalProducer(self.simulator, self.rng.child("train"))


class _LocalProducer:
    """A spawned process at the other end of a pipe; a full pipe stops it."""

    def __init__(self, simulator: Simulator, rng: Stream) -> None:
        spawn = get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(other, simulator, rng), daemon=True)
        self.process.start()
        other.close()  # so that its end is noticed here

    def run(self, shard: Shard) -> Iterator[tuple[Any, Any]]:
        """Yield the frames of a shard."""
        self._sent(shard)
        while (message := self._next()) is not None:
            if isinstance(message, Exception):
                raise message
            yield message

    def _sent(self, shard: Shard) -> None:
        try:
            self._pipe.send(shard)
        except OSError as error:
            raise ProducerLost("the process is gone") from error

    def _next(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ProducerLost("the process is gone") from error

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self.process.terminate()
        self.process.join()
        self.process.close()


def _serve(pipe: Any, simulator: Simulator, rng: Stream) -> None:
    """Simulate the shards that are asked for; None ends each."""
    torch.set_num_threads(1)
    try:
        while True:
            first, n = pipe.recv()
            try:
                for message in _frames(simulator, rng, first, n):
                    pipe.send(message)
            except ConnectionError:
                raise
            except Exception as error:
                pipe.send(_plain(error))
            pipe.send(None)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        pass  # nobody listens any more


def _frames(simulator: Simulator, rng: Stream, first: int, n: int) -> Iterator[tuple[Any, Any]]:
    """Yield frames as arrays, which pickle without shared memory."""
    for times, values in simulated_frames(simulator, simulator.sample(n, rng, first)):
        yield times.numpy().copy(), values.numpy()


def _plain(error: Exception) -> Exception:
    """Return an error that pickles."""
    if isinstance(error, IsoclineError | ArithmeticError | ValueError) and len(error.args) == 1:
        return error
    return RuntimeError(f"the simulator failed: {type(error).__name__}: {error}")


class RaySource(StreamSource):
    """Windows from Ray actors, on the cluster that `ray.init` was called for, or on one that is started here.

    Frames come as a streaming generator with few frames in flight, so a full buffer stops the solvers.

    Raises:
        ExtraMissing: Ray is not installed.
    """

    def _start(self) -> Producer:
        return _RayProducer(self.simulator, self.rng.child("train"))

    def _begin(self) -> None:
        ray = ray_module()
        if not ray.is_initialized():
            ray.init(num_cpus=self.processes, include_dashboard=False, log_to_driver=False)
        super()._begin()


def ray_module() -> Any:
    """Return Ray.

    Raises:
        ExtraMissing: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ExtraMissing("RaySource needs Ray; install isocline[ray], or use PoolSource") from error
    return ray


class _Actor:
    """What runs in an actor."""

    def __init__(self, simulator: Simulator, rng: Stream) -> None:
        torch.set_num_threads(1)
        self.simulator, self.rng = simulator, rng

    def frames(self, first: int, n: int) -> Iterator[tuple[Any, Any]]:
        yield from _frames(self.simulator, self.rng, first, n)


class _RayProducer:
    """An actor and its generators."""

    IN_FLIGHT = 8  # frames that were computed and not taken

    def __init__(self, simulator: Simulator, rng: Stream) -> None:
        self._ray = ray_module()
        self.actor = self._ray.remote(_Actor).options(num_cpus=1).remote(simulator, rng)

    def run(self, shard: Shard) -> Iterator[tuple[Any, Any]]:
        """Yield the frames of a shard."""
        how = {"num_returns": "streaming", "_generator_backpressure_num_objects": self.IN_FLIGHT}
        try:
            for reference in self.actor.frames.options(**how).remote(*shard):
                times, values = self._ray.get(reference)
                yield times.copy(), values.copy()  # what Ray gives cannot be written to
        except self._ray.exceptions.RayActorError as error:
            raise ProducerLost("the actor is gone") from error
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error)) from None

    def stop(self) -> None:
        """End the actor."""
        self._ray.kill(self.actor)
