"""Flow past obstacles as images: what is drawn, what a model is given, and that neither depends on the image or the batch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets.fields import side_by_side
from isocline.datasets.simulators.obstacle2d import LENGTHS, RADII, SHAPES, Obstacle2D, divided
from isocline.equations.classical.obstacle import channel_flow

COARSE = Obstacle2D((36, 18), size=0.045)


def test_inputs() -> None:
    spec, cases = COARSE.spec, COARSE.sample(40, 0)
    given = COARSE.constants(cases)
    assert side_by_side(given, spec.constant, 2).shape == (40, 36, 18, 4)
    assert COARSE.equation.steady
    distance, region, mask = given["distance"], given["region"], given["mask"]
    assert torch.equal(mask == 1, distance > 0)
    assert torch.equal(region[:, 1:-1, 1:-1], mask[:, 1:-1, 1:-1])
    assert set(region.unique().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert float(given["wall_distance"].max()) == pytest.approx(0.5 - 0.5 / 18)
    slopes = torch.stack([distance.diff(dim=1)[:, :, :-1], distance.diff(dim=2)[:, :-1]]) * 18
    assert float(slopes.abs().max()) < 1 + 1e-9  # a distance changes no faster than the place


def test_shapes_fit_into_their_circles_and_all_occur() -> None:
    cases = COARSE.sample(60, 1)
    polygons = COARSE.polygons(cases)
    corners = dict.fromkeys(("three", "four", "none"), 0)
    for polygon in polygons:
        edges = np.roll(polygon, -1, 0) - polygon
        lengths = np.hypot(*edges.T)
        assert lengths.max() < 2 * COARSE.size
        angles = np.angle((edges[:, 0] + 1j * edges[:, 1]) / np.roll(edges[:, 0] + 1j * edges[:, 1], 1))
        assert angles.sum() == pytest.approx(2 * math.pi)  # counterclockwise
        sharp = int((angles > 1.4).sum())
        corners[{3: "three", 4: "four", 0: "none"}[sharp]] += 1
        assert np.ptp(polygon, axis=0).max() <= 2 * RADII[1] + 1e-12
    shares = {name: count / 60 for name, count in corners.items()}
    assert len(SHAPES) == 6
    for share in shares.values():  # two of six shapes each; four standard deviations
        assert abs(share - 1 / 3) < 4 * math.sqrt(2 / 9 / 60)


def test_a_divided_curve_keeps_its_corners() -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    found = divided([corners[k : k + 2] for k in range(4)], 0.25)
    assert len(found) == 16
    assert np.abs(found[::4] - corners[:4]).max() < 1e-15


def test_images_are_samples_of_one_flow() -> None:
    pytest.importorskip("skfem", reason="scikit-fem comes with an extra")
    cases = COARSE.sample(2, 2)
    (coarse,), (fine,) = (COARSE.simulate(cases, resolution=(n, n // 2)) for n in (12, 36))
    for name, value in coarse.fields.items():
        torch.testing.assert_close(value, fine.fields[name][:, 1::3, 1::3], rtol=1e-10, atol=1e-12)
    mask = COARSE.constants(cases, resolution=(36, 18))["mask"]
    assert coarse.channels(COARSE.spec).shape == (2, 12, 6, 3)
    assert float(fine.channels(COARSE.spec)[mask == 0].abs().max()) == 0.0
    speed = fine.fields["velocity"][..., 0]
    y = (torch.arange(18, dtype=torch.float64) + 0.5) / 18
    torch.testing.assert_close(speed[:, 0], (6 * y * (1 - y)).expand(2, -1), rtol=0, atol=0.1)  # close to the inflow
    assert float((speed.mean(2) - 1).abs().max()) < 0.1  # the same flux everywhere, up to the image's quadrature
    pressure = fine.fields["pressure"].mean(2)
    assert bool((pressure[:, 0] > pressure[:, -1] + 0.1).all())


def test_a_case_does_not_depend_on_its_batch() -> None:
    pytest.importorskip("skfem", reason="scikit-fem comes with an extra")
    simulator = Obstacle2D((16, 8), low=0.01, high=0.05, size=0.05)
    whole, part = simulator.sample(4, 3), simulator.sample(2, 3, first=2)
    torch.testing.assert_close(part.parameters["nu"], whole.parameters["nu"][2:])
    (one,), (other,) = simulator.simulate(part), simulator.simulate(whole)
    for name, value in one.fields.items():
        torch.testing.assert_close(value, other.fields[name][2:], rtol=1e-12, atol=1e-12)
    for name, value in simulator.constants(part).items():
        torch.testing.assert_close(value, simulator.constants(whole)[name][2:], rtol=1e-12, atol=0)


@pytest.mark.slow
def test_solutions_converge_with_the_mesh() -> None:
    """The polygon of a circle on finer meshes, its edges divided; the singular corners of other shapes slow convergence down."""
    pytest.importorskip("skfem", reason="scikit-fem comes with an extra")
    cases = COARSE.sample(1, 4, first=7)
    (polygon,) = COARSE.polygons(cases)
    assert np.hypot(*(polygon - polygon.mean(0)).T).std() < 1e-4  # a circle
    closed = np.concatenate([polygon, polygon[:1]])
    x = COARSE.coordinates(cases, (36, 18))[COARSE.constants(cases)["distance"][0] > 0]
    flows = []
    for k in (1, 2, 4):
        finer = np.concatenate([np.linspace(a, b, k, endpoint=False) for a, b in itertools.pairwise(closed)])
        flows.append(channel_flow(finer, 0.01, LENGTHS, (COARSE.size / k, 2.25 * COARSE.size / k))(x)[:, :2])
    gaps = [float((flow - flows[-1]).norm() / flows[-1].norm()) for flow in flows[:2]]
    assert gaps[1] < 2e-3
    assert gaps[0] / gaps[1] > 3


def test_an_error_names_the_case_and_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Reynolds numbers reach 72"):
        Obstacle2D(low=0.005)
    with pytest.raises(InvalidInput, match="sizes in"):
        Obstacle2D(size=0.1)
