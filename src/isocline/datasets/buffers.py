r"""What a training takes from solvers that run beside it: FIFO, FIRO and reservoir.

Meyer et al., "Training deep surrogate models with large scale online learning" (arXiv 2306.16133). Producers offer items, the
training takes batches. The reservoir of capacity C gives its first batch when it holds M items. It draws uniformly, with
replacement, from all it holds, and marks what it drew as seen. A new item takes the place of a seen one when it is full; if nothing
was seen yet, the producer waits, so that nothing is thrown away unseen. After the last item it gives what it holds, each once more.

The policies know nothing of threads; `Buffer` puts one behind a lock.
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from isocline._core.errors import IsoclineError, require
from isocline._core.registry import Method

METHOD = Method(
    "online",
    "Online training",
    "Training Deep Surrogate Models with Large Scale Online Learning",
    "Meyer, Schouler, Caulk, Ribés, Raffin",
    2023,
    "2306.16133",
    room="datasets",
    when="training data cost more to store than to compute again, and the solver can run beside the training.",
)

Item = TypeVar("Item")


class Stopped(IsoclineError, RuntimeError):
    """The training does not want any more items."""


class Policy(ABC, Generic[Item]):
    """Which items are kept and which are given. Not safe for threads; see `Buffer`.

    Args:
        capacity: items held at most.
        threshold: no batch is given before so many are held.
        seed: of the random choices.

    Raises:
        InvalidInput: the threshold lies above the capacity.
    """

    def __init__(self, capacity: int, threshold: int = 1, seed: int = 0) -> None:
        require(capacity >= 1, f"a buffer holds at least one item, got capacity {capacity}")
        require(1 <= threshold <= capacity, f"threshold must be in 1 ... {capacity}, got {threshold}")
        self.capacity, self.threshold, self.closed = capacity, threshold, False
        self._random = random.Random(seed)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def offer(self, item: Item) -> bool:
        """Take an item in, or return False when there is no room."""

    @abstractmethod
    def _given(self, n: int) -> list[Item]:
        """Return a batch."""

    def _enough(self, n: int) -> bool:
        return len(self) >= max(self.threshold, n)

    def take(self, n: int) -> list[Item] | None:
        """Return n items, None when there are not enough yet; after `close` what is left, at last an empty list.

        Raises:
            InvalidInput: a batch is larger than the capacity.
        """
        require(1 <= n <= self.capacity, f"a batch must be in 1 ... {self.capacity}, got {n}")
        return self._given(n) if self.closed or self._enough(n) else None

    def close(self) -> None:
        """Say that no item follows."""
        self.closed = True


@METHOD.variant()
class FIFO(Policy[Item]):
    """First in, first out; each item is given once.

    Batches follow the order in which items arrive, which is biased when producers go through parameters in order.
    """

    def __init__(self, capacity: int, threshold: int = 1, seed: int = 0) -> None:
        super().__init__(capacity, threshold, seed)
        self.items: list[Item] = []

    def __len__(self) -> int:
        return len(self.items)

    def offer(self, item: Item) -> bool:
        """Take an item in, or return False when there is no room."""
        if len(self.items) == self.capacity:
            return False
        self.items.append(item)
        return True

    def _given(self, n: int) -> list[Item]:
        given, self.items = self.items[:n], self.items[n:]
        return given


@METHOD.variant()
class FIRO(FIFO[Item]):
    """First in, random out; each item is given once, and none before `threshold` are held."""

    def _given(self, n: int) -> list[Item]:
        return [_popped(self.items, self._random) for _ in range(min(n, len(self.items)))]


@METHOD.variant()
class Reservoir(Policy[Item]):
    """Uniform draws with replacement from the items of late; a new item replaces a seen one.

    Items are given as often as the training asks, so a slow producer does not stop it.
    """

    def __init__(self, capacity: int, threshold: int = 1, seed: int = 0) -> None:
        super().__init__(capacity, threshold, seed)
        self.unseen: list[Item] = []
        self.seen: list[Item] = []

    def __len__(self) -> int:
        return len(self.unseen) + len(self.seen)

    def _enough(self, n: int) -> bool:
        return len(self) >= self.threshold

    def offer(self, item: Item) -> bool:
        """Take an item in, in place of a seen one when it is full; return False when there is none."""
        if len(self) == self.capacity:
            if not self.seen:
                return False
            _popped(self.seen, self._random)
        self.unseen.append(item)
        return True

    def _given(self, n: int) -> list[Item]:
        return [self._one() for _ in range(min(n, len(self)) if self.closed else n)]

    def _one(self) -> Item:
        k = self._random.randrange(len(self))
        if k >= len(self.unseen):
            k -= len(self.unseen)
            return _popped_at(self.seen, k) if self.closed else self.seen[k]
        item = _popped_at(self.unseen, k)
        if not self.closed:
            self.seen.append(item)
        return item


def _popped(items: list[Item], rng: random.Random) -> Item:
    return _popped_at(items, rng.randrange(len(items)))


def _popped_at(items: list[Item], k: int) -> Item:
    """Take an item out; the last one comes in its place."""
    items[k], items[-1] = items[-1], items[k]
    return items.pop()


class Buffer(Generic[Item]):
    """A policy for several producers and a training, each in a thread of its own.

    Args:
        policy: which items are kept and given.

    Attributes:
        received: items taken in.
        given: items given, repeats included.
    """

    def __init__(self, policy: Policy[Item]) -> None:
        self.policy = policy
        self.received = self.given = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False

    def put(self, item: Item) -> None:
        """Take an item in; wait for room.

        Raises:
            Stopped: the training has ended.
        """
        with self._changed:
            while not self._stopped and not self.policy.offer(item):
                self._changed.wait()
            if self._stopped:
                raise Stopped("the training has ended")
            self.received += 1
            self._changed.notify_all()

    def get(self, n: int) -> list[Item]:
        """Return a batch; wait for it. After the last item: what is left, at last an empty list.

        Raises:
            InvalidInput: the batch is larger than the capacity.
            Exception: what `fail` was given.
        """
        with self._changed:
            while True:
                self.raise_failure()
                if (found := self.policy.take(n)) is not None:
                    break
                self._changed.wait()
            self.given += len(found)
            self._changed.notify_all()
            return found

    def close(self) -> None:
        """Say that no item follows."""
        with self._changed:
            self.policy.close()
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Raise an error where the training waits."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def raise_failure(self) -> None:
        """Raise what `fail` was given, if it was."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Send producers home."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
