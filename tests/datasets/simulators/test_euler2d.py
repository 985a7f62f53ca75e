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

KINDS = ["riemann", "kelvin-helmholtz", "gaussians"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_sound_and_keeps_mass(kind: Any) -> None:
    found = assert_sound(Euler2D(kind, resolution=8, frames=3, stop=0.05))
    assert float(found[..., [0, 3]].min()) > 0
    mass = found[..., 0].mean((2, 3))
    assert float((mass - mass[:, :1]).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_coarse_initial_states_are_averages_of_fine_ones(kind: Any) -> None:
    law, simulator = Euler(), Euler2D(kind)
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
@pytest.mark.parametrize(("kind", "factor"), [("riemann", 0.75), ("kelvin-helmholtz", 0.6), ("gaussians", 0.6)])
def test_every_kind_converges_with_the_grid(kind: Any, factor: float) -> None:
    assert change(Euler2D(kind, frames=2, stop=0.1), (32, 64, 128)) < factor


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


def test_the_case_that_breaks_down_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from isocline.datasets.simulators import euler2d

    def torn(cases: Any, x: torch.Tensor) -> torch.Tensor:
        w = torch.ones(len(cases), 4, *x.shape[:2], dtype=torch.float64)
        w[1, 3] = -1.0
        return w

    monkeypatch.setitem(euler2d._STATES, "riemann", torn)
    simulator = Euler2D(resolution=8, frames=2)
    with pytest.raises(NotFinite, match=r"the pressure is -1 at t = 0 in case 41, cell \(0, 0\)"):
        run(simulator, simulator.sample(2, rng=0, first=40))
