import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.meshes import Mesh, corner_fractions, mean_value_map, rbf_morph, to_disc, to_square
from tests.meshes.shapes import disc, square, star


def seen_once(mesh: Mesh) -> None:
    """Check that triangles keep their orientation and fill the polygon of the boundary: the map is one to one."""
    x = mesh.points[mesh.loop]
    after = x.roll(-1, 0)
    area = float((x[:, 0] * after[:, 1] - x[:, 1] * after[:, 0]).sum()) / 2
    assert float(mesh.areas.min()) > 0
    assert float(mesh.areas.sum()) == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_stars_go_to_the_disc_and_no_triangle_turns_over(seed: int) -> None:
    found = to_disc(star(seed), (0, 0.2, 0.5, 0.8))
    seen_once(found)
    radius = found.points.norm(dim=1)
    assert float((radius[found.loop] - 1).abs().max()) < 1e-14
    assert corner_fractions(found).tolist() == pytest.approx([0, 0.2, 0.5, 0.8], abs=5e-3)


def test_corners_go_where_they_are_sent() -> None:
    found = to_disc(star(1), (0, 0.2, 0.5, 0.8))
    turn = torch.atan2(found.points[list(found.corners), 1], found.points[list(found.corners), 0]) / (2 * torch.pi) % 1
    assert turn.tolist() == pytest.approx([0, 0.2, 0.5, 0.8], abs=1e-14)


def test_affine_maps_of_the_boundary_are_affine_inside() -> None:
    mesh = disc()
    matrix = torch.tensor([[1.3, 0.4], [-0.2, 0.7]], dtype=torch.float64)
    wanted = mesh.points @ matrix.T + torch.tensor([3.0, -1.0])
    assert float((mean_value_map(mesh, wanted[mesh.loop]).points - wanted).abs().max()) < 1e-13


def test_a_square_goes_to_itself_and_a_star_to_the_square() -> None:
    mesh = square(6)
    assert float((to_square(mesh).points - mesh.points).abs().max()) < 1e-13
    found = to_square(star(2))
    seen_once(found)
    assert float(found.areas.sum()) == pytest.approx(1)
    corners = found.points[list(found.corners)]
    assert torch.equal(corners, torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64))


def test_a_line_that_folds_the_mesh_is_refused() -> None:
    mesh = disc()
    line = mesh.points[mesh.loop].clone()
    line[:20] *= torch.tensor([1.0, -0.99])
    with pytest.raises(InvalidInput, match="no positive area"):
        mean_value_map(mesh, line)


def test_places_of_corners_are_checked() -> None:
    mesh = star(0)
    with pytest.raises(InvalidInput, match="the mesh has 4 corners, but 2 places"):
        to_disc(mesh, (0, 0.5))
    with pytest.raises(InvalidInput, match="increase from 0"):
        to_disc(mesh, (0, 0.5, 0.4, 0.7))
    with pytest.raises(InvalidInput, match="a square has four corners"):
        to_square(star(0, corners=3))


def test_radial_functions_meet_their_targets_and_keep_affine_maps() -> None:
    draw = np.random.default_rng(0)
    control, points = (torch.from_numpy(draw.uniform(-1, 1, (n, 2))) for n in (9, 40))
    target = control + 0.1 * torch.sin(3 * control.flip(1))
    assert float((rbf_morph(control, control, target) - target).abs().max()) < 1e-12
    matrix = torch.tensor([[1.3, 0.4], [-0.2, 0.7]], dtype=torch.float64)
    assert float((rbf_morph(points, control, control @ matrix + 1) - (points @ matrix + 1)).abs().max()) < 1e-12
    with pytest.raises(InvalidInput, match="three control points"):
        rbf_morph(points, control[:2], target[:2])
