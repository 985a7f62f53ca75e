"""Random streams: the generator itself, independence of order and split, and the distributions."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream, _philox, as_stream

MASK = 0xFFFFFFFF
word = st.integers(0, MASK)
shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)
DRAWS: dict[str, Callable[..., Tensor]] = {
    "bits": Stream.bits,
    "uniform32": lambda s, shape, **k: s.uniform(shape, dtype=torch.float32, **k),
    "uniform64": lambda s, shape, **k: s.uniform(shape, dtype=torch.float64, **k),
    "normal32": lambda s, shape, **k: s.normal(shape, dtype=torch.float32, **k),
    "normal64": lambda s, shape, **k: s.normal(shape, dtype=torch.float64, **k),
    "rademacher": Stream.rademacher,
    "integers": lambda s, shape, **k: s.integers(1000, shape, **k),
}
any_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 on Python's unbounded integers, written from the paper's description."""
    left, right = key
    for _ in range(10):
        high0, low0 = divmod(counter[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(counter[2] * 0xCD9E8D57, 2**32)
        counter = [high1 ^ counter[1] ^ left, low1, high0 ^ counter[3] ^ right, low0]
        left, right = (left + 0x9E3779B9) % 2**32, (right + 0xBB67AE85) % 2**32
    return counter


def on_tensors(counter: list[int], key: tuple[int, int]) -> list[int]:
    return [int(word) for word in _philox([torch.tensor([c]) for c in counter], key)]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers_of_the_random123_paper(counter: str, key: str, expected: str) -> None:
    first, second = (int(part, 16) for part in key.split())
    words = on_tensors([int(part, 16) for part in counter.split()], (first, second))
    assert " ".join(f"{word:08x}" for word in words) == expected


@given(st.lists(word, min_size=4, max_size=4), st.tuples(word, word))
@settings(deadline=None)
def test_tensor_arithmetic_agrees_with_unbounded_integers(counter: list[int], key: tuple[int, int]) -> None:
    assert on_tensors(counter, key) == philox(counter, key)


@given(st.integers(1, 3), st.integers(1, 11), st.integers(0, 2**40), st.integers(0, MASK))
@settings(deadline=None, max_examples=30)
def test_an_element_is_the_philox_word_of_its_own_counter(batch: int, width: int, first: int, step: int) -> None:
    stream = Stream(3, "counter")
    bits = stream.bits((batch, width), step=step, first=first)
    for b, e in itertools.product(range(batch), range(width)):
        sample = first + b
        words = philox([e // 4, sample & MASK, sample >> 32, step], stream._key())
        assert int(bits[b, e]) == words[e % 4]


@any_draw
@given(batch=st.integers(2, 23), shape=shapes, step=st.integers(0, 5), data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_batch_in_two_parts_has_the_same_bits(
    draw: Callable[..., Tensor], batch: int, shape: tuple[int, ...], step: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, batch - 1))
    stream = Stream(11, "split")
    whole = draw(stream, (batch, *shape), step=step)
    parts = [draw(stream, (cut, *shape), step=step), draw(stream, (batch - cut, *shape), step=step, first=cut)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("width", [3, 784, 3 * 64 * 64 + 1])
def test_a_large_batch_sample_by_sample_has_the_same_bits(width: int) -> None:
    stream = Stream(5)
    whole = stream.normal((6, width))
    assert torch.equal(whole, torch.cat([stream.normal((1, width), first=b) for b in range(6)]))


@any_draw
def test_values_do_not_depend_on_what_was_drawn_before(draw: Callable[..., Tensor]) -> None:
    requests = list(itertools.product(["a", "b"], range(3), [(2, 3), (4,)]))
    forward = {r: draw(Stream(1, r[0]), r[2], step=r[1]) for r in requests}
    backward = {r: draw(Stream(1, r[0]), r[2], step=r[1]) for r in reversed(requests)}
    assert all(torch.equal(forward[r], backward[r]) for r in requests)


@any_draw
def test_the_global_generator_is_neither_used_nor_moved(draw: Callable[..., Tensor]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before, first = torch.get_rng_state(), draw(Stream(0), (8,))
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        assert torch.equal(first, draw(Stream(0), (8,)))


def test_single_precision_is_the_rounded_double() -> None:
    stream = Stream(4)
    for kind in (stream.uniform, stream.normal):
        assert torch.equal(kind((1000, 3), dtype=torch.float32), kind((1000, 3), dtype=torch.float64).float())


def test_the_default_dtype_is_torchs_own() -> None:
    assert Stream(0).normal((1,)).dtype is torch.get_default_dtype()
    assert Stream(0).uniform((1,)).dtype is torch.get_default_dtype()


# Distributions. Seeds are fixed, so these are deterministic; the level only says how surprising the draw may be.


@pytest.mark.parametrize("shape", [(60_000,), (20_000, 3), (60, 1000)])
@pytest.mark.parametrize(("kind", "law"), [("uniform", stats.uniform()), ("normal", stats.norm())])
def test_kolmogorov_smirnov(kind: str, law: stats.rv_continuous, shape: tuple[int, ...]) -> None:
    draw = getattr(Stream(7, kind), kind)(shape, dtype=torch.float64)
    assert stats.kstest(draw.flatten().numpy(), law.cdf).pvalue > 1e-3


def test_normal_moments_up_to_the_fourth() -> None:
    x = Stream(8).normal((100_000, 2), dtype=torch.float64).flatten()
    spread = math.sqrt(len(x))
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(float((x**power).mean()) - mean) < 4 * math.sqrt(variance) / spread


def test_normal_is_box_muller_of_the_uniforms() -> None:
    stream = Stream(9)
    u = stream.uniform((50, 6), dtype=torch.float64)
    radius, angle = (-2 * u[:, 0::2].log()).sqrt(), 2 * math.pi * u[:, 1::2]
    expected = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).reshape(50, 6)
    torch.testing.assert_close(stream.normal((50, 6), dtype=torch.float64), expected, rtol=1e-12, atol=1e-12)


def test_integers_and_signs_are_even() -> None:
    counts = torch.bincount(Stream(1).integers(7, (70_000,)), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    signs = Stream(1).rademacher((50_000,))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / math.sqrt(50_000)


def test_a_permutation_is_one_and_all_orders_are_equally_likely() -> None:
    orders = [tuple(Stream(2).permutation(3, step=step).tolist()) for step in range(1200)]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 1200
    assert stats.chisquare(counts).pvalue > 1e-3


def test_steps_names_seeds_samples_and_elements_are_uncorrelated() -> None:
    n = 40_000
    draws = [
        *(Stream(0, "a").normal((n,), step=step, dtype=torch.float64) for step in range(3)),
        *(Stream(0, name).normal((n,), dtype=torch.float64) for name in ("b", "a/b", "")),
        *(Stream(seed, "a").normal((n,), dtype=torch.float64) for seed in (1, -1, 2**40)),
        *Stream(0, "elements").normal((n, 3), dtype=torch.float64).T,  # two of a Box-Muller pair and one of the next
        Stream(0, "a").normal((n,), first=1, dtype=torch.float64),  # neighbouring samples
        Stream(0, "a").normal((n,), first=2**32, dtype=torch.float64),
    ]
    x = torch.stack(draws)
    for rows in (x, x**2):
        r = torch.corrcoef(rows) - torch.eye(len(rows), dtype=torch.float64)
        assert float(r.abs().max()) < 5 / math.sqrt(n)


def test_children_are_named_by_their_path() -> None:
    assert Stream(0, "a").child("b").child(3) == Stream(0, "a/b/3")


@pytest.mark.parametrize("rng", [None, 1.0, True, "0", torch.Generator()])
def test_what_is_not_a_seed_is_refused(rng: object) -> None:
    with pytest.raises(InvalidInput, match="rng must be a Stream or an int seed"):
        as_stream(rng)  # type: ignore[arg-type]


def test_a_seed_and_its_stream_are_the_same() -> None:
    assert as_stream(5) == Stream(5)
    assert as_stream(5, "noise") == as_stream(Stream(5), "noise") == Stream(5, "/noise")
    assert as_stream(Stream(5, "a")) == Stream(5, "a")
    assert as_stream(Stream(5, "a"), "b") == Stream(5, "a/b")


@pytest.mark.parametrize("high", [0, -1, 2**31 + 1])
def test_integers_outside_the_range_of_the_words_are_refused(high: int) -> None:
    with pytest.raises(InvalidInput, match=r"high must be in 1\.\.2\*\*31"):
        Stream(0).integers(high, (2,))


@pytest.mark.parametrize("high", [1, 2, 2**31])
def test_integers_stay_below_high(high: int) -> None:
    draw = Stream(0).integers(high, (1000,))
    assert int(draw.min()) >= 0
    assert int(draw.max()) < high
    expected = [int(word) * high // 2**32 for word in Stream(0).bits((1000,))]
    assert draw.tolist() == expected


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (0, torch.float64),
        (MASK, torch.float64),
        (0, torch.float32),
        (MASK, torch.float32),
        (0, torch.float16),
        (MASK, torch.float16),
        (0, torch.bfloat16),
        (MASK, torch.bfloat16),
    ],
)
def test_uniforms_stay_inside_the_open_interval_at_both_ends(
    monkeypatch: pytest.MonkeyPatch, bits: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(Stream, "bits", lambda self, shape, **_: torch.full(shape, bits))
    value = float(Stream(0).uniform((1,), dtype=dtype))
    assert 0 < value < 1


@pytest.mark.parametrize("shape", [(), (-1, 2), (2, -1)])
def test_a_shape_without_a_batch_axis_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="a random draw needs a batch axis"):
        Stream(0).bits(shape)
