"""The combined equation: forcing, averages of one fine solution, conservation, convergence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets.simulators import CombinedEquation1D
from isocline.equations.classical.finite_volume import averaged
from tests.datasets.simulators.finite_volumes import assert_sound, run

EXPERIMENTS = ["E1", "E2", "E3"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_sound(experiment: Any) -> None:
    assert_sound(CombinedEquation1D(experiment, resolution=20, frames=4, fine=40))


def test_coefficients_lie_in_the_ranges_of_the_experiments() -> None:
    p = CombinedEquation1D("E3").sample(500, rng=0).parameters
    for name, low, high in (("alpha", 0.0, 6.0), ("beta", 0.1, 0.4), ("gamma", 0.0, 1.0)):
        assert low <= float(p[name].min()) < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < float(p[name].max()) <= high
    one = CombinedEquation1D("E1").sample(3, rng=0).parameters
    assert [one[name].tolist() for name in ("alpha", "beta", "gamma")] == [[1.0] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_mean_is_kept(experiment: Any) -> None:
    """The forcing has none, with it and without."""
    for forced in (True, False):
        simulator = CombinedEquation1D(experiment, resolution=20, frames=3, fine=40, forced=forced)
        found = run(simulator, simulator.sample(2, rng=5))
        assert float(found.mean((2, 3)).abs().max()) < 1e-13


def test_forcing_is_averages_of_moving_sines_of_the_three_longest_waves() -> None:
    simulator = CombinedEquation1D()
    cases = simulator.sample(40, rng=1)
    t = torch.full((40,), 1.7, dtype=torch.float64)
    fine = simulator.forcing(cases, 320)(t)
    torch.testing.assert_close(averaged(fine, 8, 1), simulator.forcing(cases, 40)(t), rtol=1e-12, atol=1e-14)
    share = torch.fft.rfft(fine).abs().amax(0)
    assert float(share[1:4].min()) > 1.0
    assert float(share[4:].max()) < 1e-10
    # in time each wave turns at no more than 0.4: its second derivative is at most 0.16 of its amplitudes
    h = 0.01
    ahead, behind = (simulator.forcing(cases, 320)(t + s * h) for s in (1, -1))
    assert float(((ahead - 2 * fine + behind) / h**2).abs().max()) < 0.16 * 5 * 0.5
    assert not torch.allclose(ahead, fine)


def test_grids_of_one_solution_are_averages_of_each_other() -> None:
    simulator = CombinedEquation1D("E2", frames=2, fine=80)
    cases = simulator.sample(2, rng=0)
    fine, coarse = run(simulator, cases, 40), run(simulator, cases, 20)
    torch.testing.assert_close(averaged(fine[..., 0], 2, 1), coarse[..., 0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("experiment", "factor"), [("E1", 0.8), ("E2", 0.5), ("E3", 0.2)])
def test_it_converges_with_the_fine_grid(experiment: Any, factor: float) -> None:
    found = []
    for fine in (32, 64, 128):
        simulator = CombinedEquation1D(experiment, resolution=16, frames=2, fine=fine)
        found.append(run(simulator, simulator.sample(2, rng=2))[:, -1])
    before, now = ((b - a).abs().mean() for a, b in ((found[0], found[1]), (found[1], found[2])))
    assert float(now) < factor * float(before)


def test_the_first_frame_is_the_forcing_at_the_start() -> None:
    simulator = CombinedEquation1D(resolution=50, frames=2, fine=50)
    cases = simulator.sample(3, rng=0)
    first = next(iter(simulator.simulate(cases))).fields["u"]
    assert torch.equal(first, simulator.forcing(cases, 50)(torch.zeros(3, dtype=torch.float64)))
    assert math.isclose(simulator.spec.dt, 4.0)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="E1, E2 or E3"):
        CombinedEquation1D("E4")  # type: ignore[arg-type]
