"""The study of the shape of paths: its parts against known curves, its claims, and that something broken is noticed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline.plans import Plan
from studies import trajectory_shape as shape
from studies.verdict import Claim


def failed(claims: list[Claim]) -> list[str]:
    return [claim.claim for claim in claims if not claim.holds]


def test_the_mixtures_paths_hold() -> None:
    assert failed(shape.subspaces(shape.mixture(quick=True), 30)) == []


@pytest.mark.slow
def test_all_claims_hold_in_the_short_form() -> None:
    study = shape.study(quick=True)
    assert failed(study.claims) == []
    assert len(study.claims) == 10


class Wavy(shape.Walk):
    """Paths with a wave of the size of the data along a fourth direction, that turns with the sample."""

    def paths(self, plan: Plan) -> Tensor:
        paths = super().paths(plan)
        angle = torch.linspace(0, 6 * math.pi, len(paths), dtype=torch.float64)[:, None, None]
        step = torch.arange(1, paths.shape[2] + 1, dtype=torch.float64)
        return paths + torch.sin(angle * step + torch.arange(paths.shape[1], dtype=torch.float64)[:, None])


def test_paths_that_turn_in_all_dimensions_are_noticed() -> None:
    quick = shape.mixture(quick=True)
    names = failed(shape.subspaces(Wavy(quick.name, quick.model, quick.shape, quick.each), 30))
    assert [name.split(": ")[1] for name in names] == [
        "share of the variance that 3 miss from s = 3 on, worst path",
        "share of the variance that 3 miss off the chord, mean",
    ]


def curve(*coordinates: Tensor) -> Tensor:
    return torch.stack(coordinates, -1)[:, None].double()


def test_a_circle_needs_two_components_and_a_helix_three() -> None:
    angle = torch.linspace(0, 2 * math.pi, 201, dtype=torch.float64)[:-1]
    flat = torch.zeros_like(angle)
    circle = curve(torch.cos(angle), torch.sin(angle), flat, flat)
    assert float(shape.missed(circle, 1)) == pytest.approx(0.5, abs=1e-9)
    assert float(shape.missed(circle, 2)) < 1e-12
    helix = curve(torch.cos(angle), torch.sin(angle), angle, flat)
    assert float(shape.missed(helix, 2)) > 1e-3
    assert float(shape.missed(helix, 3)) < 1e-12


def test_the_bend_of_a_half_circle_is_its_height_and_does_not_turn_with_it() -> None:
    angle = torch.linspace(0, math.pi, 91, dtype=torch.float64)
    flat = torch.zeros_like(angle)
    half = curve(torch.cos(angle), torch.sin(angle), flat)
    turn = torch.linalg.qr(torch.arange(9.0).reshape(3, 3).double().sin())[0]
    for path in (half, half @ turn + 5):
        torch.testing.assert_close(shape.bends(path).norm(dim=-1)[:, 0], torch.sin(angle), rtol=0, atol=1e-12)
