import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.metrics.dimension import thickness, two_nn
from isocline.processes import EDM, Circle, Sphere


def thick(model, width, n=2000):
    x = model.sample(n, 0)
    return x + width * Stream(9).normal(tuple(x.shape), dtype=torch.float64)


@pytest.mark.parametrize(("entries", "m"), [(3, 2), (6, 3), (8, 5)])
def test_two_nn_of_spheres(entries, m):
    found = two_nn(Sphere(EDM(), entries, m).sample(2000, 0), 0)
    assert found.value == pytest.approx(m, rel=0.12)
    assert found.high - found.low < 0.15 * m


def test_two_nn_does_not_know_units_or_rotations():
    x = Circle(EDM(), 4).sample(300, 0)
    turn = torch.linalg.qr(Stream(1).normal((4, 4), dtype=torch.float64)).Q
    assert two_nn(7.5 * x @ turn, 0).value == pytest.approx(two_nn(x, 0).value, rel=1e-9)


def test_copies_and_too_few_points_are_refused():
    x = Stream(0).normal((20, 2), dtype=torch.float64)
    with pytest.raises(InvalidInput, match="2 of 21 points occur more than once"):
        two_nn(torch.cat([x, x[:1]]), 0)
    with pytest.raises(InvalidInput, match="at least 20 points, got 19"):
        two_nn(torch.zeros(19, 2), 0)


@pytest.mark.parametrize("model", [Circle(EDM(), 8), Sphere(EDM(), 5, 2)], ids=["circle", "2-sphere"])
@pytest.mark.parametrize("width", [0.01, 0.03, 0.1])
def test_thickness_is_found_within_five_percent(model, width):
    m = 1 if isinstance(model, Circle) else 2
    assert thickness(thick(model, width), m, 0).value == pytest.approx(width, rel=0.05)


def test_a_bend_is_not_a_thickness():
    found = thickness(thick(Circle(EDM(), 8), 0.0), 1, 0)
    assert found.low == 0.0
    assert found.high < 1e-3


def test_data_without_a_thin_direction_are_refused():
    with pytest.raises(InvalidInput, match="no neighbourhood of these 500 points looks 1-dimensional"):
        thickness(Stream(0).normal((500, 3), dtype=torch.float64), 1, 0)
    with pytest.raises(InvalidInput, match="1 <= dimension < 3 entries, got 3"):
        thickness(Stream(0).normal((500, 3), dtype=torch.float64), 3, 0)
