import pytest
import torch

from isocline._core.stream import Stream
from isocline.plans import grids
from isocline.plans.tuners import NoiseSet
from isocline.plans.tuners.paths import TeacherPaths, refined
from isocline.processes import EDM, GaussianMixture, RectifiedFlow, VariancePreserving


def noises(model, n=6):
    x = Stream(0).normal((n, 8), dtype=torch.float64) * model.process.sigma(model.process.t_max)
    return NoiseSet(x, None, x)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), RectifiedFlow()], ids=str)
def test_states_converge_at_second_order_from_any_start(process):
    model = GaussianMixture.smooth_bed(process)
    nodes = grids.uniform(process, 5)
    states = [TeacherPaths(model, noises(model), n).at(nodes)[-1] for n in (20, 40, 160)]
    coarse, fine = (float((x - states[2]).square().mean().sqrt()) for x in states[:2])
    assert coarse / fine > 3


def test_paths_are_kept_and_do_not_depend_on_the_batch():
    model = GaussianMixture.smooth_bed(EDM())
    nodes, paths = grids.karras(EDM(), 4, end="zero"), TeacherPaths(model, noises(model), 5)
    first = paths.at(nodes)
    calls = model.calls
    assert paths.at(nodes) is first
    assert model.calls == calls == paths.calls
    parts = TeacherPaths(GaussianMixture.smooth_bed(EDM()), noises(model), 5, batch=4).at(nodes)
    torch.testing.assert_close(parts, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t_min", [0.0, 1e-3])
def test_a_clean_end_is_reached_once(t_min):
    times = refined(RectifiedFlow(t_min=t_min), 0.2, 0.0, 6)
    assert len(times) == 7
    assert bool((times.diff() < 0).all())
    assert times[-1] == 0
