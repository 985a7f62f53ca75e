"""Buffers against plain models of what they promise."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline.datasets.buffers import FIFO, FIRO, Buffer, Policy, Reservoir, Stopped

# None offers the next item, n takes a batch of n, 0 closes
ACTIONS = st.lists(st.one_of(st.none(), st.none(), st.integers(0, 4)), max_size=60)


class Plain:
    """The rules of the reservoir, one line each, in a table of items and marks; what is random is read off the real one."""

    def __init__(self, capacity: int, threshold: int) -> None:
        self.capacity, self.threshold = capacity, threshold
        self.marks: dict[int, bool] = {}
        self.closed = False

    def offer(self, item: int, taken: bool, now: set[int]) -> None:
        full = len(self.marks) == self.capacity
        assert taken == (not full or any(self.marks.values()))
        gone = set(self.marks) - now
        assert len(gone) == (1 if taken and full else 0)
        assert all(self.marks.pop(old) for old in gone)  # only what was seen goes
        if taken:
            self.marks[item] = False

    def take(self, n: int, found: list[int] | None) -> None:
        if not self.closed:
            assert (found is None) == (len(self.marks) < self.threshold)
            assert found is None or len(found) == n
            for item in found or []:
                assert item in self.marks
                self.marks[item] = True
            return
        assert found is not None
        assert len(found) == min(n, len(self.marks))
        for item in found:
            del self.marks[item]  # each once

    def same(self, real: Reservoir[int]) -> bool:
        return {**dict.fromkeys(real.unseen, False), **dict.fromkeys(real.seen, True)} == self.marks


@settings(max_examples=200, deadline=None)
@given(st.integers(4, 8), st.integers(1, 4), st.integers(0, 10), ACTIONS)
def test_the_reservoir_keeps_its_rules(capacity: int, threshold: int, seed: int, actions: list[int | None]) -> None:
    real, plain = Reservoir[int](capacity, threshold, seed), Plain(capacity, threshold)
    for item, action in enumerate(actions):
        if action is None and not plain.closed:
            taken = real.offer(item)
            plain.offer(item, taken, {*real.unseen, *real.seen} - {item})
        elif action == 0:
            real.close()
            plain.closed = True
        elif action:
            plain.take(action, real.take(action))
        assert plain.same(real)
        assert len(real) == len(plain.marks) <= capacity


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([FIFO, FIRO]), st.integers(4, 8), st.integers(1, 4), ACTIONS)
def test_queues_give_each_item_once(
    kind: type[FIFO[int]], capacity: int, threshold: int, actions: list[int | None]
) -> None:
    real, held, closed = kind(capacity, threshold), list[int](), False
    for item, action in enumerate(actions):
        if action is None and not closed:
            assert real.offer(item) == (len(held) < capacity)
            held += [item] if len(held) < capacity else []
        elif action == 0:
            real.close()
            closed = True
        elif action:
            found = real.take(action)
            assert (found is None) == (not closed and len(held) < max(threshold, action))
            if found is not None and kind is FIFO:
                assert found == held[:action]
            assert len(found or []) == (0 if found is None else min(action, len(held)))
            for one in found or []:
                held.remove(one)
        assert sorted(real.items) == sorted(held)


@pytest.mark.parametrize("seed", range(5))
def test_the_reservoir_draws_uniformly(seed: int) -> None:
    """Counts of 8 items in 8000 draws: chi-square with 7 degrees of freedom is below 29.9 with probability 0.9999."""
    real = Reservoir[int](8, 1, seed)
    for item in range(8):
        assert real.offer(item)
    counts = Counter(item for _ in range(2000) for item in real.take(4) or [])
    assert sum((counts[item] - 1000) ** 2 / 1000 for item in range(8)) < 29.9


@pytest.mark.parametrize("seed", range(5))
def test_the_reservoir_evicts_uniformly_among_the_seen(seed: int) -> None:
    gone: Counter[int] = Counter()
    for k in range(2000):
        real = Reservoir[int](4, 1, 10_000 * seed + k)
        for item in range(4):
            real.offer(item)
        while len(real.seen) < 4:
            real.take(1)
        real.offer(4)
        gone.update({0, 1, 2, 3} - {*real.seen, *real.unseen})
    assert sum((gone[item] - 500) ** 2 / 500 for item in range(4)) < 21.2  # 3 degrees of freedom, 0.9999


def test_the_same_seed_gives_the_same_batches() -> None:
    def run(seed: int) -> list[list[int] | None]:
        real = Reservoir[int](16, 4, seed)
        return [real.take(3) for item in range(40) if real.offer(item) or True]

    assert run(0) == run(0) != run(1)


@pytest.mark.parametrize("policy", [FIFO[int](8), FIRO[int](8, 4), Reservoir[int](8, 4)])
def test_four_producers_lose_nothing(policy: Policy[int]) -> None:
    """Under threads: all of 400 items are given, queues give none twice, the reservoir none unseen is lost."""
    buffer = Buffer(policy)

    def produce(k: int) -> None:
        for i in range(100):
            buffer.put(100 * k + i)

    producers = [threading.Thread(target=produce, args=(k,)) for k in range(4)]

    def end() -> None:
        for thread in producers:
            thread.join()
        buffer.close()

    closer = threading.Thread(target=end)
    for thread in (*producers, closer):
        thread.start()
    got: Counter[int] = Counter()
    while batch := buffer.get(3):
        got.update(batch)
    closer.join()
    assert set(got) == set(range(400))
    assert buffer.received == 400
    assert buffer.given == sum(got.values())
    if not isinstance(policy, Reservoir):
        assert set(got.values()) == {1}


def test_a_waiting_producer_is_sent_home() -> None:
    buffer, out = Buffer(Reservoir[int](1)), list[str]()
    buffer.put(0)

    def produce() -> None:
        try:
            buffer.put(1)
        except Stopped as error:
            out.append(str(error))

    thread = threading.Thread(target=produce)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()  # nothing was seen, so there is no room
    assert buffer.received == 1
    buffer.stop()
    thread.join()
    assert out == ["the training has ended"]


def test_seeing_makes_room() -> None:
    buffer = Buffer(Reservoir[int](1))
    buffer.put(0)
    thread = threading.Thread(target=buffer.put, args=(1,))
    thread.start()
    assert buffer.get(1) == [0]
    thread.join()
    assert buffer.get(1) == [1]


def test_an_error_of_a_producer_is_raised_in_the_training() -> None:
    buffer = Buffer(FIFO[int](4))
    threading.Timer(0.02, buffer.fail, [ValueError("diverged")]).start()
    with pytest.raises(ValueError, match="diverged"):
        buffer.get(2)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"threshold must be in 1 \.\.\. 4"):
        Reservoir[int](4, 5)
    with pytest.raises(InvalidInput, match="at least one item"):
        FIFO[int](0)
    with pytest.raises(InvalidInput, match=r"a batch must be in 1 \.\.\. 4"):
        FIFO[int](4).take(5)
