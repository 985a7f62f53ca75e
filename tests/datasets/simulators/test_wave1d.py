"""Waves with fixed or free ends: random ends, non-uniform points, reflections, convergence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets.simulators import Wave1D
from isocline.equations.classical.wave_1d import chebyshev_points
from tests.datasets.simulators.finite_volumes import assert_sound, run


@pytest.mark.parametrize("experiment", ["WE1", "WE2", "WE3"])
def test_every_experiment_is_sound(experiment: Any) -> None:
    assert_sound(Wave1D(experiment, resolution=30, frames=4, stop=1.2, degree=64, steps=16))


def test_ends_are_those_of_the_experiments() -> None:
    ends = {name: Wave1D(name).sample(40, rng=0).parameters for name in ("WE1", "WE2", "WE3")}
    assert ends["WE1"]["left"].unique().tolist() == ends["WE1"]["right"].unique().tolist() == [0.0]
    assert ends["WE2"]["left"].unique().tolist() == [1.0]
    pairs = set(zip(ends["WE3"]["left"].tolist(), ends["WE3"]["right"].tolist(), strict=True))
    assert len(pairs) == 4


def test_points_are_chebyshevs_and_values_those_of_the_moving_bump() -> None:
    simulator = Wave1D("WE3", resolution=50, frames=5, stop=1.6)
    cases = simulator.sample(6, rng=3)
    x = simulator.coordinates(cases, (50,))[:, 0]
    assert torch.equal(x, chebyshev_points(-8.0, 8.0, 50))
    assert float(torch.diff(x).max() / torch.diff(x).min()) > 10
    found = run(simulator, cases)
    start = 8 * cases.uniform((1,), "places") - 4
    for i, t in enumerate((0.0, 0.4, 0.8)):  # before the nearest one is at the end
        u = torch.exp(-((x - start + 2 * t) ** 2))
        inside = (start[:, 0] - 2 * t) > -4
        assert bool(inside.any())
        assert float((found[inside, i, :, 0] - u[inside]).abs().max()) < 1e-6


def test_free_and_fixed_ends_reflect_with_their_sign() -> None:
    """After 16 / c the bump has come back through the left end with the sign of the end, mirrored at the middle."""
    for experiment, sign in (("WE1", -1.0), ("WE2", 1.0)):
        simulator = Wave1D(experiment, frames=2, stop=8.0, steps=4096)  # type: ignore[arg-type]
        cases = simulator.sample(3, rng=1)
        found = run(simulator, cases)[:, 1, :, 0]
        x = simulator.coordinates(cases, (100,))[:, 0]
        place = -(8 * cases.uniform((1,), "places") - 4)
        assert float((found - sign * torch.exp(-((x - place) ** 2))).abs().max()) < 1e-5


def test_it_converges_in_degree_and_steps_and_the_grid_only_samples() -> None:
    simulator = Wave1D("WE3", frames=3, stop=20.0)
    cases = simulator.sample(4, rng=5)
    reference = run(replace(simulator, degree=160, steps=16384), cases)
    gaps = [
        float((run(replace(simulator, degree=n, steps=steps), cases) - reference).abs().max())
        for n, steps in ((48, 16384), (64, 16384), (128, 256), (128, 512))
    ]
    # below 1e-6 counts that the bump's tail, of 1e-7 at the ends, does not fulfil their conditions
    assert gaps[1] < min(gaps[0] / 100, 1e-5)
    assert gaps[3] < gaps[2] / 12
    odd, even = run(simulator, cases, 41), run(simulator, cases, 81)
    assert float((odd - even[:, :, ::2]).abs().max()) < 1e-12


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="WE1, WE2 or WE3"):
        Wave1D("WE4")  # type: ignore[arg-type]
