"""Shallow water: sound simulators, fields that do not depend on the grid, convergence."""

from __future__ import annotations

from typing import Any

import pytest

from isocline._core.errors import InvalidInput
from isocline.datasets.simulators import ShallowWater2D
from isocline.equations.classical.finite_volume import averaged
from tests.datasets.simulators.finite_volumes import assert_sound, run

KINDS = ["dam-break", "random"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_sound_and_keeps_mass(kind: Any) -> None:
    found = assert_sound(ShallowWater2D(kind, resolution=12, frames=3, stop=0.5, boundary="periodic"))
    mass = found[..., 0].mean((2, 3))
    assert float((mass - mass[:, :1]).abs().max()) < 1e-12
    assert float(found[:, 0, ..., 1:].abs().max()) == 0.0
    assert 0.7 <= float(found[:, 0, ..., 0].min()) < float(found[:, 0, ..., 0].max()) <= 2.0


@pytest.mark.parametrize(("kind", "factor"), [("dam-break", 0.8), ("random", 0.5)])
def test_it_converges_with_the_grid(kind: Any, factor: float) -> None:
    simulator = ShallowWater2D(kind, frames=2, stop=0.2)
    cases = simulator.sample(1, rng=3)
    coarse, middle, fine = (run(simulator, cases, n, n)[..., 0] for n in (32, 64, 128))  # waves have 8 cells or more
    for frame in (0, 1):
        before, now = (averaged(b[:, frame], 2, 2) - a[:, frame] for a, b in ((coarse, middle), (middle, fine)))
        assert float(now.abs().mean()) < factor * float(before.abs().mean())


def test_a_dam_break_is_round() -> None:
    simulator = ShallowWater2D(frames=2, stop=0.4, resolution=32)
    frame = run(simulator, simulator.sample(4, rng=2))
    start = frame[:, 0, ..., 0]
    area = (start - 1).sum((1, 2)) * (5 / 32) ** 2  # of the circle
    radius = 0.3 + 0.4 * simulator.sample(4, rng=2).uniform((1,), "radii")[:, 0]
    assert float((area / (3.141592653589793 * radius**2) - 1).abs().max()) < 0.05


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="initial is one of dam-break, random"):
        ShallowWater2D("tsunami")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="at least two frames"):
        ShallowWater2D(frames=1)
