import math

import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput, NotFinite
from isocline.meshes import Mesh, MeshRun, triangulate
from tests.meshes.shapes import disc, square, star


def test_mass_and_stiffness_equal_those_of_scikit_fem() -> None:
    skfem = pytest.importorskip("skfem", reason="scikit-fem comes with an extra")
    from skfem.models.poisson import laplace, mass

    theirs = skfem.MeshTri().refined(3)
    ours = Mesh.from_skfem(theirs)
    basis = skfem.Basis(theirs, skfem.ElementTriP1())
    assert abs(ours.mass - skfem.asm(mass, basis)).max() < 1e-15
    assert abs(ours.stiffness - skfem.asm(laplace, basis)).max() < 1e-13


def test_integrals_of_products_of_linear_fields_are_exact() -> None:
    mesh = square(5)
    x, y = mesh.points.numpy().T
    assert x @ (mesh.mass @ x) == pytest.approx(1 / 3, abs=1e-14)
    assert x @ (mesh.mass @ y) == pytest.approx(1 / 4, abs=1e-14)
    assert (2 * x - y) @ (mesh.stiffness @ (x + 3 * y)) == pytest.approx(2 - 3, abs=1e-13)
    assert float(np.abs(mesh.stiffness @ np.ones(len(mesh))).max()) < 1e-13


def test_the_loop_runs_counterclockwise_from_the_first_corner() -> None:
    mesh = square(4)
    x = mesh.points[mesh.loop]
    after = x.roll(-1, 0)
    assert len(mesh.loop) == 16
    assert int(mesh.loop[0]) == 0
    assert float((x[:, 0] * after[:, 1] - x[:, 1] * after[:, 0]).sum()) / 2 == pytest.approx(1)


def test_triangles_are_turned() -> None:
    mesh = disc()
    mixed = mesh.triangles.clone()
    mixed[::2] = mixed[::2].flip(1)
    with pytest.raises(InvalidInput, match=r"no positive area; orient them with Mesh\.oriented"):
        Mesh(mesh.points, mixed)
    assert float(Mesh.oriented(mesh.points, mixed).areas.min()) > 0


def test_a_mesh_with_a_hole_or_in_two_pieces_has_no_single_loop() -> None:
    mesh = square(4)
    centre = (mesh.points[mesh.triangles].mean(1) - 0.5).abs().amax(1)
    holed = mesh.triangles[centre > 0.25]
    used, renamed = holed.unique(return_inverse=True)
    with pytest.raises(InvalidInput, match="without holes and in one piece"):
        _ = Mesh(mesh.points[used], renamed).loop
    two = Mesh(torch.cat([mesh.points, mesh.points + 2]), torch.cat([mesh.triangles, mesh.triangles + len(mesh)]))
    with pytest.raises(InvalidInput, match="without holes and in one piece"):
        _ = two.loop


def test_corners_must_lie_on_the_boundary_in_its_order() -> None:
    mesh = square(4)
    with pytest.raises(InvalidInput, match=r"corners .* are not on the boundary"):
        _ = Mesh(mesh.points, mesh.triangles, (0, 12)).loop
    with pytest.raises(InvalidInput, match="counterclockwise order"):
        _ = Mesh(mesh.points, mesh.triangles, (0, 4, 20)).loop


def test_bad_meshes_and_runs_are_refused() -> None:
    mesh = square(2)
    spoilt = mesh.points.clone()
    spoilt[3, 1] = math.nan
    with pytest.raises(NotFinite, match="vertex of the mesh"):
        Mesh(spoilt, mesh.triangles)
    with pytest.raises(InvalidInput, match="belongs to no triangle"):
        Mesh(torch.cat([mesh.points, mesh.points[:1]]), mesh.triangles)
    with pytest.raises(InvalidInput, match="float64"):
        Mesh(mesh.points.float(), mesh.triangles)
    with pytest.raises(InvalidInput, match=r"u has shape \(3,\), but the mesh 9 vertices"):
        MeshRun(mesh, fields={"u": torch.zeros(3)})
    with pytest.raises(NotFinite, match="the field u has"):
        MeshRun(mesh, fields={"u": torch.full((9,), math.inf)})
    with pytest.raises(NotFinite, match="nu is nan"):
        MeshRun(mesh, {"nu": math.nan})


@pytest.mark.parametrize("seed", range(5))
def test_triangles_fill_the_polygon(seed: int) -> None:
    mesh = star(seed)
    x = mesh.points[mesh.loop]
    after = x.roll(-1, 0)
    area = float((x[:, 0] * after[:, 1] - x[:, 1] * after[:, 0]).sum()) / 2
    assert float(mesh.areas.sum()) == pytest.approx(area, rel=1e-12)
    assert float(mesh.areas.min()) > 0.1 * float(mesh.areas.median())


def test_a_polygon_with_too_long_edges_is_refused() -> None:
    line = torch.tensor([[0.0, 0], [1, 0], [1, 0.4], [0.5, 0.02], [0, 0.4]], dtype=torch.float64)
    with pytest.raises(InvalidInput, match="give it shorter edges"):
        triangulate(line, lambda x: np.full(len(x), 0.05), (0.05, 0.05))
