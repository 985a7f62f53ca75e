import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.datasets import Images, Shuffled


def test_bytes_are_mapped_to_minus_one_to_one():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    images = Images(pixels, torch.tensor([2, 0, 1], dtype=torch.uint8), ("a", "b", "c"))
    x, label = images.take(torch.tensor([2, 0, 1]))
    assert torch.allclose(x.flatten(), torch.tensor([1.0, -1.0, -0.6]))
    assert label.tolist() == [1, 2, 0]
    assert x.dtype == torch.float32
    assert torch.equal(images.all()[1], torch.tensor([2, 0, 1]))


def test_pixels_and_labels_must_fit():
    pixels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(InvalidInput, match="2 images need as many labels"):
        Images(pixels, torch.zeros(3), ("a",))
    with pytest.raises(InvalidInput, match="bytes"):
        Images(pixels.float(), torch.zeros(2), ("a",))


@given(n=st.integers(1, 40), batch=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_epoch_visits_each_position_at_most_once_and_drops_less_than_a_batch(n, batch, seed):
    if batch > n:
        with pytest.raises(InvalidInput, match=f"a batch of {batch} needs"):
            Shuffled(n, batch, Stream(seed))
        return
    order = Shuffled(n, batch, Stream(seed))
    steps = n // batch
    for epoch in range(3):
        seen = torch.cat([order(epoch * steps + k) for k in range(steps)])
        assert len(seen.unique()) == steps * batch > n - batch
        assert 0 <= int(seen.min()) <= int(seen.max()) < n


def test_a_batch_depends_on_its_step_alone():
    forward, backward = (Shuffled(10, 3, Stream(1)) for _ in range(2))
    first = {step: forward(step) for step in range(12)}
    for step in reversed(range(12)):
        assert torch.equal(backward(step), first[step])


def test_epochs_and_seeds_differ():
    order, other = Shuffled(100, 100, Stream(0)), Shuffled(100, 100, Stream(1))
    assert not torch.equal(order(0), order(1))
    assert not torch.equal(order(0), other(0))
