from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from isocline.datasets.fields import Batch
from isocline.datasets.simulators import KS1D, Burgers1D, Cases, Kolmogorov2D, NS2DForced, Simulator
from isocline.metrics import power_spectrum
from isocline.operators import grid_residual

SMALL: dict[str, Callable[[], Simulator]] = {
    "ks1d": lambda: KS1D(64, 3, length=22.0, warmup=10.0),
    "burgers1d": lambda: Burgers1D(64, 3, low=0.01, high=0.1),
    "ns2d_forced": lambda: NS2DForced(32, 2, h=0.05),
    "kolmo2d": lambda: Kolmogorov2D(16, 2, 2, warmup=0.5, h=0.01),
}


def values(simulator: Simulator, cases: Cases, resolution: tuple[int, ...] | None = None) -> torch.Tensor:
    """Return all frames, (n, T, *S, C)."""
    return torch.stack([f.channels(simulator.spec) for f in simulator.simulate(cases, resolution=resolution)], 1)


@pytest.mark.parametrize("name", SMALL)
def test_frames_are_what_the_description_says(name: str) -> None:
    simulator = SMALL[name]()
    spec, cases = simulator.spec, simulator.sample(3, 0)
    found = values(simulator, cases)
    assert found.shape == (3, spec.times, *spec.resolution, spec.channels)
    assert found.dtype == torch.float64
    assert bool(found.isfinite().all())
    assert simulator.coordinates(cases, spec.resolution).shape[-len(spec.axes) - 1 : -1] == spec.resolution


@pytest.mark.parametrize("name", SMALL)
def test_a_case_does_not_depend_on_its_batch(name: str) -> None:
    simulator = SMALL[name]()
    whole = values(simulator, simulator.sample(4, 5))
    part = values(simulator, simulator.sample(2, 5, first=2))
    torch.testing.assert_close(part, whole[2:], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.parametrize("name", ["burgers1d", "ns2d_forced"])
def test_a_finer_grid_solves_the_same_case(name: str) -> None:
    simulator = SMALL[name]()
    cases = simulator.sample(2, 1)
    times = (8, 16) if name == "burgers1d" else (2, 4)  # of the points that hold all waves of the start
    sizes = [tuple(k * n for n in simulator.spec.resolution) for k in times]
    coarse, fine = (values(simulator, cases, size) for size in sizes)
    for _ in simulator.spec.axes:
        fine = fine.movedim(2, -2)[..., ::2, :]
    error = (coarse - fine).norm() / fine.norm()
    assert float(error) < 1e-2


def test_kolmogorov_stores_box_averages_of_the_fine_flow() -> None:
    simulator = Kolmogorov2D(16, 4, 1, warmup=0.1, h=0.01)
    cases = simulator.sample(1, 0)
    fine = values(replace(simulator, resolution=64, factor=1), cases)[0, 0]
    found = values(simulator, cases)[0, 0]
    rows = [[fine[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((0, 1)) for j in range(16)] for i in range(16)]
    expected = torch.stack([torch.stack(row) for row in rows])
    torch.testing.assert_close(found, expected)


def test_kuramoto_sivashinsky_does_not_depend_on_its_inner_steps() -> None:
    """Before chaos has made it large, the difference falls with the fourth power of the step; its spectrum stays."""
    simulator = KS1D(64, 40, length=22.0, warmup=20.0, substeps=4)
    cases = simulator.sample(8, 0)
    found = {k: values(replace(simulator, substeps=k), cases) for k in (4, 8, 16)}
    early = [float((found[k][:, 0] - found[16][:, 0]).abs().max()) for k in (4, 8)]
    assert early[0] / early[1] > 10
    spectra = [power_spectrum(found[k][..., 0], 1).mean((0, 1)) for k in (4, 16)]
    torch.testing.assert_close(spectra[0][1:8], spectra[1][1:8], rtol=0.2, atol=0)


@pytest.mark.parametrize("name", ["ks1d", "burgers1d"])
def test_frames_satisfy_the_equation_that_is_documented(name: str) -> None:
    first = 0
    small: Simulator = KS1D(128, 5, length=22.0, warmup=0.1, dt=0.02, substeps=2)
    if name == "burgers1d":
        small, first = Burgers1D(512, 201, low=0.05, high=0.1), 60  # its start is rough, and forgets that
    cases = small.sample(2, 0)
    frames = values(small, cases)[:, first:]
    times = torch.stack([f.t for f in small.simulate(cases)], 1)[:, first:]
    step = times[:, 1] - times[:, 0]
    parameters = torch.stack([cases.parameters[p.name] for p in small.spec.parameters], 1)
    coordinates = small.coordinates(cases, small.spec.resolution)
    batch = Batch(small.spec, frames[:, :1], frames[:, 1:], times[:, :1], step, parameters, coordinates)
    residual = grid_residual(small.equation, frames, batch)
    rate = (frames[:, 2:] - frames[:, :-2]) / (2 * step.reshape(-1, 1, 1, 1))
    assert float(residual.norm() / rate.norm()) < 2e-3
