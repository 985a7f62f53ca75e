"""Compressible flow: sound simulators, fields that do not depend on the grid, convergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from isocline._core.errors import InvalidInput, NotFinite
from isocline.datasets.simulators import Euler2D
from isocline.equations.classical.euler import Euler
from isocline.equations.classical.finite_volume import averaged
from tests.datasets.simulators.finite_volumes import assert_sound, run

KINDS = ["riemann", "curved-riemann", "kelvin-helmholtz", "gaussians", "richtmyer-meshkov", "rayleigh-taylor"]


def simulator_of(kind: Any, **more: Any) -> Euler2D:
    return Euler2D(kind, gravity=1.0 if kind == "rayleigh-taylor" else 0.0, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_sound_and_keeps_mass(kind: Any) -> None:
    found = assert_sound(simulator_of(kind, resolution=8, frames=3, stop=0.05))
    assert float(found[..., [0, 3]].min()) > 0
    mass = found[..., 0].mean((2, 3))
    assert float((mass - mass[:, :1]).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_coarse_initial_states_are_averages_of_fine_ones(kind: Any) -> None:
    law, simulator = Euler(), simulator_of(kind)
    states = []
    for n in (8, 16):
        frame = next(iter(simulator.simulate(simulator.sample(2, rng=1), resolution=(n, n))))
        w = torch.cat(
            [frame.fields["density"][..., None], frame.fields["velocity"], frame.fields["pressure"][..., None]], -1
        )
        states.append(law.conserved(w.movedim(-1, 1)))
    gap, size = (u.abs().mean((0, 2, 3)) for u in (averaged(states[1], 2, 2) - states[0], states[0]))
    assert bool((gap <= 0.02 * size).all())  # up to the quadrature


def change(simulator: Euler2D, sizes: tuple[int, int, int]) -> float:
    """Return by what factor the change of the density, in L1, falls from the first pair of grids to the second."""
    cases = simulator.sample(1, rng=3)
    coarse, middle, fine = (run(simulator, cases, n, n)[:, -1, ..., 0] for n in sizes)
    before, now = (averaged(b, 2, 2) - a for a, b in ((coarse, middle), (middle, fine)))
    return float(now.abs().mean() / before.abs().mean())


def test_smooth_flow_converges_with_the_grid() -> None:
    assert change(Euler2D("gaussians", frames=2, stop=0.05), (16, 32, 64)) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_converges_with_the_grid(kind: Any) -> None:
    factor = 0.75 if "riemann" in kind or kind == "richtmyer-meshkov" else 0.6  # with jumps and without
    assert change(simulator_of(kind, frames=2, stop=0.1), (32, 64, 128)) < factor


def test_quadrants_are_constant_and_lie_in_their_range() -> None:
    simulator = Euler2D(resolution=8)
    frame = next(iter(simulator.simulate(simulator.sample(20, rng=0))))
    rho = frame.fields["density"]
    for block in (rho[:, :4, :4], rho[:, 4:, :4], rho[:, :4, 4:], rho[:, 4:, 4:]):
        assert float((block - block[:, :1, :1]).abs().max()) < 1e-13
    assert 0.1 < float(rho.min()) < 0.2
    assert 0.9 < float(rho.max()) < 1.0


def test_walls_and_open_ends_run_and_bad_settings_do_not() -> None:
    wall, out = (Euler2D(resolution=8, frames=2, stop=0.05, boundary=kind) for kind in ("wall", "open"))
    cases = wall.sample(2, rng=0)
    mass = run(wall, cases)[..., 0].mean((2, 3))
    assert float((mass[:, 1] - mass[:, 0]).abs().max()) < 1e-12
    assert float((run(out, cases)[..., 0].mean((2, 3))[:, 1] - mass[:, 0]).abs().min()) > 1e-5
    with pytest.raises(InvalidInput, match="initial is one of riemann"):
        Euler2D("blast")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="rayleigh-taylor with gravity 0; give gravity"):
        Euler2D("rayleigh-taylor")


def test_heavy_gas_falls_and_energy_is_kept_at_second_order() -> None:
    drift = []
    for n in (16, 32):
        simulator = Euler2D("rayleigh-taylor", resolution=n, frames=2, gravity=1.0)
        assert simulator.spec.boundary == ("periodic", "wall")
        cases = simulator.sample(1, rng=0)
        w, y = run(simulator, cases)[0], simulator.coordinates(cases, (n, n))[..., 1]
        height = (w[..., 0] * y).mean((1, 2))  # of the centre of mass
        motion = 0.5 * (w[..., 0] * w[..., 1:3].square().sum(-1)).mean((1, 2))
        energy = motion + w[..., 3].mean((1, 2)) / 0.4 + height
        assert float(height[1]) < float(height[0])
        assert float(motion[1]) > 2 * float(motion[0])
        drift.append(float((energy[1] - energy[0]).abs()))
    assert drift[0] / drift[1] > 3


def test_lines_and_circles_are_wavy() -> None:
    for kind, field in (("curved-riemann", 3), ("richtmyer-meshkov", 0)):
        simulator = Euler2D(kind, resolution=64, frames=2)  # type: ignore[arg-type]
        cases = simulator.sample(2, rng=0)
        frame = next(iter(simulator.simulate(cases))).channels(simulator.spec)[..., field]
        jumps = (frame.diff(dim=1).abs() > 0.05).double()
        places = (jumps * torch.arange(63)[:, None]).sum(1) / jumps.sum(1).clamp(min=1)
        assert float(places.std(1).min()) > 0.5  # where a column jumps depends on the column


def test_the_case_that_breaks_down_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from isocline.datasets.simulators import euler2d

    def torn(cases: Any, x: torch.Tensor, gravity: float) -> torch.Tensor:
        w = torch.ones(len(cases), 4, *x.shape[:2], dtype=torch.float64)
        w[1, 3] = -1.0
        return w

    monkeypatch.setitem(euler2d._STATES, "riemann", torn)
    simulator = Euler2D(resolution=8, frames=2)
    with pytest.raises(NotFinite, match=r"the pressure is -1 at t = 0 in case 41, cell \(0, 0\)"):
        run(simulator, simulator.sample(2, rng=0, first=40))
