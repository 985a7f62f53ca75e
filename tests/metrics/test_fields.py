import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline.metrics import correlation, high_correlation_time, nmse, relative_error, vrmse


def fields(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2, 3, 8, 1), (2, 3, 8, 6, 2), (1, 1, 4, 4, 4, 3)])
def test_vrmse_and_nmse_equal_loops(shape: tuple[int, ...]) -> None:
    u, v = fields(0, *shape), fields(1, *shape)
    for b in range(shape[0]):
        for t in range(shape[1]):
            for c in range(shape[-1]):
                a, w = u[b, t, ..., c].flatten(), v[b, t, ..., c].flatten()
                square = sum(float(x - y) ** 2 for x, y in zip(a, w, strict=True)) / len(a)
                assert float(nmse(u, v)[b, t, c]) == pytest.approx(square / float(w.square().mean()))
                expected = (square / (float(w.var(unbiased=False)) + 1e-7)) ** 0.5
                assert float(vrmse(u, v)[b, t, c]) == pytest.approx(expected)


def test_the_mean_scores_one_and_the_truth_zero() -> None:
    v = fields(0, 2, 3, 16, 16, 2)
    assert float(vrmse(v, v).max()) == 0
    mean = v.mean((2, 3), keepdim=True).expand_as(v)
    torch.testing.assert_close(vrmse(mean, v, eps=0.0), torch.ones(2, 3, 2, dtype=torch.float64))


@given(st.floats(0.1, 10), st.floats(-3, 3))
def test_correlation_knows_no_scale_and_no_shift(a: float, b: float) -> None:
    u, v = fields(0, 2, 3, 16, 1), fields(1, 2, 3, 16, 1)
    torch.testing.assert_close(correlation(a * u + b, v), correlation(u, v), rtol=1e-9, atol=1e-9)
    assert torch.allclose(correlation(u, a * u + b), torch.ones(2, 3, dtype=torch.float64))


def test_a_field_without_variation_has_correlation_zero() -> None:
    v = fields(0, 1, 1, 8, 1)
    assert float(correlation(torch.ones_like(v), v)) == 0


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_relative_error_scales(p: float) -> None:
    v = fields(0, 2, 3, 5, 2)
    torch.testing.assert_close(relative_error(1.25 * v, v, p), torch.full((2, 3), 0.25, dtype=torch.float64))


def test_high_correlation_time_of_a_known_decay() -> None:
    t = torch.linspace(0.01, 5, 500, dtype=torch.float64)
    rates = torch.tensor([[0.5], [1.0], [0.01]], dtype=torch.float64)
    found = high_correlation_time(torch.exp(-rates * t), t, 0.8)
    expected = -torch.log(torch.tensor(0.8)) / rates[:2, 0]
    torch.testing.assert_close(found[:2], expected.double(), rtol=1e-4, atol=1e-4)
    assert float(found[2]) == 5


def test_a_nan_ends_the_correlation() -> None:
    c = torch.tensor([[1.0, float("nan"), 1.0]])
    assert float(high_correlation_time(c, torch.tensor([1.0, 2.0, 3.0]), 0.5)) == pytest.approx(1.5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="of one shape"):
        vrmse(torch.zeros(1, 2, 3, 1), torch.zeros(1, 2, 4, 1))
