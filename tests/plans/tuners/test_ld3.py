import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.tuners import LD3, Calibration, draw_noises, measure
from isocline.plans.tuners.descent import Descent
from isocline.plans.tuners.ld3 import _Search
from isocline.plans.tuners.recompile import compiler_of
from isocline.plans.tuners.soft_noises import SoftNoises
from isocline.processes import EDM
from isocline.processes.exact import GaussianMixture
from isocline.processes.wrapper import Wrapper

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)
TEACHER = solvers.heun(PROCESS, grids.karras(PROCESS, 60))


def calibrate(seed: int = 0, sizes: tuple[int, int, int] = (32, 32, 256)) -> Calibration:
    return draw_noises(TEACHER, MODEL, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64)


def base(calls: int = 10) -> Plan:
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls))


def held_out_ratio(tuned: Plan, start: Plan, calibration: Calibration) -> float:
    return measure(tuned, MODEL, calibration.held_out).rms() / measure(start, MODEL, calibration.held_out).rms()


@pytest.mark.slow
def test_acceptance_at_ten_calls() -> None:
    """A third of the base's RMS error with times only and a fifth with model times, on average over three seeds."""
    times, both = list[float](), list[float]()
    for seed in range(3):
        calibration = calibrate(seed, (64, 64, 256))
        for tuner, ratios in ((LD3(times_rounds=24, both_rounds=0), times), (LD3(), both)):
            ratios.append(held_out_ratio(tuner.fit(base(), MODEL, calibration, seed).plan, base(), calibration))
    assert sum(times) / 3 < 0.35
    assert sum(both) / 3 < 0.2


def test_times_alone_then_model_times_lower_the_held_out_error() -> None:
    calibration = calibrate()
    tuned = LD3(times_rounds=4, both_rounds=8).fit(base(8), MODEL, calibration, 0)
    times, both = (min(e for step, e in tuned.history if step <= last) for last in (16, 48))
    assert times < 0.5 * tuned.history[0][1]
    assert both < 0.8 * times
    assert held_out_ratio(tuned.plan, base(8), calibration) < 0.5


def test_the_solver_stays() -> None:
    """The plan is what the base's solver makes of the new times, and is told them unless model times are free."""
    calibration, start = calibrate(sizes=(8, 8, 8)), base(5)
    times = LD3(times_rounds=2, both_rounds=0, batch=4).fit(start, MODEL, calibration, 0).plan
    assert not torch.allclose(times.times, start.times)
    assert times.equivalent(compiler_of(start)(times.times))
    both = LD3(times_rounds=1, both_rounds=4, batch=4).fit(start, MODEL, calibration, 0).plan
    assert torch.equal(both.weights, compiler_of(start)(both.times).weights)
    assert not torch.allclose(both.model_times, both.times[:-1])
    assert compiler_of(both)(both.times).provenance.method == "dpm_solver_pp_2m"


def test_a_multi_stage_solver_gets_times_but_no_model_times() -> None:
    calibration, heun = calibrate(sizes=(8, 8, 8)), solvers.heun(PROCESS, grids.karras(PROCESS, 4))
    tuned = LD3(times_rounds=3, both_rounds=0, batch=4).fit(heun, MODEL, calibration, 0)
    assert tuned.history[-1][1] < tuned.history[0][1]
    assert tuned.plan.equivalent(solvers.heun(PROCESS, tuned.plan.nodes))
    with pytest.raises(InvalidInput, match="multi-stage"):
        LD3().fit(heun, MODEL, calibration, 0)


def quadratic(centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses ``|x - c|^2`` of noises at 0 and their gradients."""
    return centre.square().sum(1), -2 * centre


def test_a_noise_moves_by_gradient_descent_and_back_to_its_ball() -> None:
    centre = torch.tensor([[0.1, 0.0], [3.0, 4.0]], dtype=torch.float64)
    losses, gradient = quadratic(centre)
    noises = SoftNoises(torch.zeros(2, 2, dtype=torch.float64), radius=0.5, rate=0.25)
    noises.move(torch.arange(2), gradient, losses, lambda x: (x - centre).square().sum(1))
    torch.testing.assert_close(noises.x, torch.tensor([[0.05, 0.0], [0.3, 0.4]], dtype=torch.float64))
    assert torch.equal(noises.drawn, torch.zeros(2, 2, dtype=torch.float64))


def test_a_noise_moves_only_if_its_own_loss_falls() -> None:
    """A step of 1.5 times the distance to a quadratic's minimum, and one of 2.5 times, which climbs beyond the start."""
    centre = torch.full((2, 3), 0.1, dtype=torch.float64)
    losses, gradient = quadratic(centre)
    rate = torch.tensor([[0.75], [1.25]], dtype=torch.float64)
    noises = SoftNoises(torch.zeros(2, 3, dtype=torch.float64), radius=10.0, rate=1.0)
    noises.move(torch.arange(2), rate * gradient, losses, lambda x: (x - centre).square().sum(1))
    torch.testing.assert_close(noises.x, torch.stack([1.5 * centre[0], 0 * centre[1]]))


def test_only_the_noises_of_the_batch_are_looked_at() -> None:
    noises, seen = SoftNoises(torch.zeros(4, 2, dtype=torch.float64), 1.0, 1.0), []

    def measured(x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.full((len(x),), -1.0)

    noises.move(torch.tensor([3, 1]), torch.ones(2, 2, dtype=torch.float64), torch.zeros(2), measured)
    assert seen == [2]
    assert [bool((row != 0).any()) for row in noises.x] == [False, True, False, True]


class Starts(Wrapper):
    """Remembers the states that runs start from."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, cond: object = None) -> Tensor:
        if float(t.detach()) > 79:
            self.seen.append(x.detach().clone())
        return self.inner(x, t, cond)


@pytest.mark.parametrize(("radius", "furthest"), [(0.0, 0.0), (0.2, 16.0), (None, 0.001 * 8 / 4**2 * 80)])
def test_training_noises_stay_in_their_balls(radius: float | None, furthest: float) -> None:
    """The ball is ``radius`` standard deviations of the start noise; a long step reaches its surface, a hard teacher forbids it."""
    calibration, model = calibrate(sizes=(8, 8, 8)), Starts()
    LD3(times_rounds=3, both_rounds=0, batch=4, radius=radius, noise_rate=1e3).fit(base(4), model, calibration, 0)
    fixed = torch.cat([calibration.train.x, calibration.validation.x])
    away = torch.cat([torch.cdist(x, fixed).min(1).values for x in model.seen])
    assert float(away.max()) == pytest.approx(furthest, abs=1e-6)


def test_without_the_test_of_acceptance_the_soft_teacher_does_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps far too long, proposals are points on the surface of the ball. The few that help are taken and the rest are not;
    taking all of them asks the student to map noises to the targets of others."""

    def always(self: SoftNoises, index: Tensor, gradient: Tensor, losses: Tensor, measured: object) -> None:
        self.x[index] = self.projected(self.x[index] - self.rate * gradient, self.drawn[index])

    calibration = calibrate()
    tuner = LD3(times_rounds=6, both_rounds=0, radius=1.0, noise_rate=1e4)
    sound = tuner.fit(base(6), MODEL, calibration, 0)
    monkeypatch.setattr(SoftNoises, "move", always)
    crippled = tuner.fit(base(6), MODEL, calibration, 0)
    assert min(e for _, e in sound.history) < 0.7 * min(e for _, e in crippled.history)


def test_bad_validations_bring_the_best_back_and_lower_the_rates() -> None:
    calibration, tuner = calibrate(sizes=(8, 8, 8)), LD3(patience=2, decay=0.5)
    search = _Search(tuner, base(4), Descent("LD3", base(4), MODEL, calibration, None), calibration)
    before = search.student.gap.detach().clone()
    for rate in (0.005, 0.0025, 0.0025, 0.00125):
        with torch.no_grad():
            search.student.gap[0] += 3.0  # a grid far worse than the base's
            search.noises.x += 1.0
        search.check()
        assert search.times.param_groups[0]["lr"] == rate
        assert search.told.param_groups[0]["lr"] == pytest.approx(5 / 4 * rate / 0.005)
        assert torch.equal(search.student.gap, before) == (rate < 0.005 and search.bad == 0)
    assert torch.equal(search.noises.x, calibration.train.x)


def test_every_call_is_counted() -> None:
    """Base and 2 checks, 4 steps, and 4 proposals unless the teacher is hard."""
    calibration = calibrate(sizes=(8, 8, 8))
    for radius, proposals in ((0.0, 0), (0.1, 4)):
        tuner = LD3(times_rounds=1, both_rounds=1, batch=4, check_every=2, radius=radius)
        assert tuner.fit(base(5), MODEL, calibration, 0).cost.calls == 5 * (1 + 2 + 4 + proposals)


def test_the_same_seed_gives_the_same_plan() -> None:
    calibration = calibrate(sizes=(12, 8, 8))
    tuner = LD3(times_rounds=1, both_rounds=1, batch=4, check_every=1)
    first, second, other = (tuner.fit(base(4), MODEL, calibration, seed).plan for seed in (0, 0, 1))
    assert torch.equal(first.times, second.times)
    assert torch.equal(first.model_times, second.model_times)
    assert not torch.equal(first.times, other.times)


def test_settings_are_checked() -> None:
    for wrong in ({"times_rounds": 0, "both_rounds": 0}, {"rate": 0.0}, {"decay": 1.5}, {"patience": 0}):
        with pytest.raises(InvalidInput):
            LD3(**wrong)
    with pytest.raises(InvalidInput, match="radius >= 0"):
        SoftNoises(torch.zeros(1, 2), -math.inf, 1.0)
