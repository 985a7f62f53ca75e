import builtins
from typing import Any

import pytest
import torch

from isocline._core.errors import ExtraMissing, InvalidInput
from isocline.datasets.simulators.plates import Plates, solve_plate
from isocline.meshes import Mesh
from tests.meshes.shapes import square

pytest.importorskip("skfem", reason="scikit-fem comes with an extra")
CASE = {"left_height": 0.1, "left_radius": 0.2, "right_height": -0.3, "right_radius": 0.15, "gradient": 0.3, "nu": 0.25}


def rectangle(n: int) -> Mesh:
    """Return the plate without notches."""
    mesh = square(n)
    return mesh.moved((mesh.points - 0.5) * torch.tensor([1.0, 2.0]))


def test_bending_of_a_whole_plate_is_exact() -> None:
    mesh, g, nu = rectangle(6), 0.4, 0.3
    fields, scalars = solve_plate(mesh, g, nu)
    x, y = mesh.points.T
    assert float((fields["displacement_y"] - (1 + 2 * g * x) * (y + 1)).abs().max()) < 1e-11
    assert float((fields["displacement_x"] + nu * (x + g * x**2) + g * (y + 1) ** 2).abs().max()) < 1e-11
    assert float((fields["stress"] - (1 + 2 * g * x)).abs().max()) < 1e-10
    assert scalars["compliance"] == pytest.approx(2 * (1 + g * g / 3), rel=1e-11)  # 2 int (1 + 2 g x)^2 dx


def test_the_mirrored_plate_has_the_same_numbers() -> None:
    plates = Plates()
    other = {**CASE, "gradient": -CASE["gradient"]}
    for name in ("height", "radius"):
        other[f"left_{name}"], other[f"right_{name}"] = CASE[f"right_{name}"], CASE[f"left_{name}"]
    a, b = plates.solve(CASE).scalars, plates.solve(other).scalars
    assert a["compliance"] == pytest.approx(b["compliance"], rel=1e-3)
    assert a["stress_max"] == pytest.approx(b["stress_max"], rel=0.06)


def test_finer_meshes_agree() -> None:
    coarse, fine = Plates(size=0.1).solve(CASE).scalars, Plates(size=0.05).solve(CASE).scalars
    assert coarse["compliance"] == pytest.approx(fine["compliance"], rel=5e-3)
    assert coarse["stress_max"] == pytest.approx(fine["stress_max"], rel=0.15)


def test_a_small_notch_in_a_wide_plate_concentrates_stress_by_three() -> None:
    small = {
        **CASE,
        "left_radius": 0.04,
        "right_radius": 0.04,
        "left_height": 0.5,
        "right_height": -0.5,
        "gradient": 0.0,
    }
    found = Plates(size=0.03, left_radius=(0.02, 0.1)).solve(small).scalars["stress_max"]
    assert found == pytest.approx(3.06, rel=0.12)  # a half circle in a half plane, Peterson's handbook


def test_cases_do_not_depend_on_how_they_are_asked_for() -> None:
    plates = Plates(size=0.15)
    together, alone = plates.runs(3, rng=5)[2], plates.runs(1, rng=5, first=2)[0]
    assert torch.equal(together.mesh.points, alone.mesh.points)
    assert together.scalars == alone.scalars
    assert plates.runs(1, rng=6)[0].inputs != plates.runs(1, rng=5)[0].inputs


def test_every_mesh_is_a_deformed_disc_with_eight_corners() -> None:
    for run in Plates(size=0.15).runs(4, rng=0):
        assert len(run.mesh.loop) > 20
        corners = run.mesh.points[list(run.mesh.corners)]
        assert corners[[0, 1, 4, 5]].tolist() == [[-0.5, -1], [0.5, -1], [0.5, 1], [-0.5, 1]]
        assert corners[[2, 3], 0].tolist() == [0.5, 0.5]
        assert corners[[6, 7], 0].tolist() == pytest.approx([-0.5, -0.5])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the notch on the left can leave"):
        Plates(left_height=(-0.9, 0.5))
    with pytest.raises(InvalidInput, match="cut the plate in two"):
        Plates(left_radius=(0.3, 0.45), right_radius=(0.3, 0.55), left_height=(-0.1, 0.1), right_height=(-0.1, 0.1))
    with pytest.raises(InvalidInput, match="triangles need a size"):
        Plates(size=0)
    with pytest.raises(InvalidInput, match="at least one case"):
        Plates().runs(0, rng=0)


def test_without_scikit_fem_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "skfem":
            raise ImportError(name)
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraMissing, match=r"isocline\[operators\]"):
        solve_plate(rectangle(2), 0.0, 0.3)
