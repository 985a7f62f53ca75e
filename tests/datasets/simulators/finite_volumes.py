"""What every simulator must do: shapes, cases of their own, and fields that do not depend on the grid."""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.datasets.simulators import Cases, Simulator


def run(simulator: Simulator, cases: Cases, *resolution: int) -> Tensor:
    """Return all frames, (n, T, *S, C)."""
    frames = simulator.simulate(cases, resolution=resolution or None)
    return torch.stack([frame.channels(simulator.spec) for frame in frames], 1)


def assert_sound(simulator: Simulator) -> Tensor:
    """Check shapes, times, and that cases 3..5 alone are those of a batch; return the batch."""
    spec = simulator.spec
    together = run(simulator, simulator.sample(6, rng=7))
    assert together.shape == (6, spec.times, *spec.resolution, spec.channels)
    assert together.dtype == torch.float64
    alone = run(simulator, simulator.sample(2, rng=7, first=3))
    assert float((together[3:5] - alone).abs().max()) < 1e-12
    assert float((together[0] - together[1]).abs().max()) > 1e-3
    cases = simulator.sample(2, rng=0)
    times = [float(frame.t[1]) for frame in simulator.simulate(cases)]
    assert max(abs(t - i * spec.dt) for i, t in enumerate(times)) < 1e-12
    assert simulator.coordinates(cases, spec.resolution).shape == (*spec.resolution, len(spec.axes))
    assert [p.name for p in spec.parameters][: len(simulator.equation.parameters)] == list(
        simulator.equation.parameters
    )
    return together
