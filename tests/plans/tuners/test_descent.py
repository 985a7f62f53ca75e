import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.tuners import (
    DSS,
    LD3,
    Calibration,
    ConstantNoise,
    EndToEnd,
    NoiseSet,
    TimeAligner,
    Tuned,
    draw_noises,
    measure,
)
from isocline.plans.tuners.descent import Batches, Descent
from isocline.processes import EDM, Checkpointed, Data, Denoiser, Guided, wrap
from isocline.processes.exact import GaussianMixture
from isocline.processes.wrapper import Wrapper

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)
BASE = solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, 4))
TUNERS: dict[str, Callable[[], Any]] = {
    "EndToEnd": lambda: EndToEnd(steps=6, batch=4, check_every=3),
    "LD3": lambda: LD3(times_rounds=1, both_rounds=2, batch=4, radius=0.1),
    "DSS": lambda: DSS(steps=6, batch=4, path_steps=8, check_every=3),
    "TimeAligner": lambda: TimeAligner(steps=4, batch=4),
    "TimeAligner, constant noise": lambda: TimeAligner(ConstantNoise(parallel=True), steps=4, batch=4),
}
each = pytest.mark.parametrize("tuner", TUNERS)


def calibrate(sizes: tuple[int, int, int] = (8, 8, 8), model: Denoiser = MODEL, cond: Any = None) -> Calibration:
    teacher = solvers.heun(PROCESS, grids.karras(PROCESS, 20)).for_guidance(model.guidance)
    return draw_noises(teacher, model, (8,), sizes, Stream(0), cond=cond, dtype=torch.float64)


CALIBRATION = calibrate()


def fit(tuner: str, model: Denoiser = MODEL, calibration: Calibration = CALIBRATION, **options: Any) -> Tuned:
    return TUNERS[tuner]().fit(BASE.for_guidance(model.guidance), model, calibration, 3, **options)


@each
def test_the_held_out_noises_are_never_looked_at(tuner: str) -> None:
    poison = torch.full_like(CALIBRATION.held_out.x, math.nan)
    blind = replace(CALIBRATION, held_out=NoiseSet(poison, None, poison))
    assert fit(tuner, calibration=blind).plan == fit(tuner).plan


@each
def test_the_plan_with_the_best_validation_error_is_returned(tuner: str) -> None:
    tuned = fit(tuner)
    found = measure(tuned.plan, MODEL, CALIBRATION.validation).errors.mean().item()
    errors = [error for _, error in tuned.history]
    assert tuned.history[0][0] == 0
    assert errors[0] == pytest.approx(measure(BASE, MODEL, CALIBRATION.validation).errors.mean().item())
    assert found == pytest.approx(min(errors), rel=1e-7)


@each
def test_the_tuned_plan_survives_a_file(tuner: str, tmp_path: Any) -> None:
    plan = fit(tuner).plan
    loaded = Plan.load(plan.save(tmp_path / "plan.json"))
    x = CALIBRATION.held_out.x
    assert torch.equal(plan.run(MODEL, x).x, loaded.run(MODEL, x).x)
    assert loaded.provenance == plan.provenance


@each
def test_a_model_without_gradients_is_refused_in_one_line(tuner: str) -> None:
    class Frozen(Wrapper):
        @torch.no_grad()
        def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            return self.inner(x, t, cond)

    with pytest.raises(InvalidInput, match=r"^\w+ needs gradients through the model.*tuner without gradients") as error:
        fit(tuner, Frozen(MODEL))
    assert str(error.value).startswith(tuner.split(",")[0])
    assert "\n" not in str(error.value)


class Small(Wrapper):
    """A model for which more than two noises at a time are too many where gradients are kept."""

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        if torch.is_grad_enabled() and len(x) > 2:
            raise torch.OutOfMemoryError("no memory left")
        return self.inner(x, t, cond)


@each
def test_a_batch_that_does_not_fit_is_halved(tuner: str) -> None:
    with pytest.warns(RuntimeWarning, match="ran out of memory and goes on with batches of 2") as told:
        tuned = fit(tuner, Small(MODEL))
    assert len(told) == 1
    assert len(tuned.history) > 1


@each
def test_checkpoints_change_no_bit(tuner: str) -> None:
    plain, kept = fit(tuner), fit(tuner, Checkpointed(MODEL))
    assert kept.history == plain.history
    assert torch.equal(kept.plan.weights, plain.plan.weights)
    assert torch.equal(kept.plan.model_times, plain.plan.model_times)


@each
def test_time_that_is_over_keeps_the_best_plan(tuner: str) -> None:
    tuned = fit(tuner, seconds=0.0)
    assert len(tuned.history) <= 2
    assert tuned.cost.seconds < 5


@each
def test_a_fit_works_where_gradients_are_off(tuner: str) -> None:
    expected = fit(tuner)
    with torch.no_grad():
        assert fit(tuner).history == expected.history


CODES = 3 * Stream(1).normal((25, 8), dtype=torch.float64)


class Labelled(nn.Module):
    """A network that says what each sample's label means, whatever the state: the base is exact, for its own labels."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        return self.strength * CODES[cond] + 0 * x + 0 * time[:, None]


@each
def test_conditions_go_with_their_noises_and_guidance_stays(tuner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, losses, gradients = Labelled(), list[float](), Descent.gradients
    model = Guided(wrap(network, PROCESS, Data()), 2.0, torch.tensor(24))

    def recorded(descent: Descent, loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        losses.append(loss.item())
        return gradients(descent, loss, leaves)

    monkeypatch.setattr(Descent, "gradients", recorded)
    calibration = calibrate(model=model, cond=lambda n: Stream(n).permutation(8))
    tuned = fit(tuner, model, calibration)
    assert tuned.plan.guidance == 2.0
    assert losses[0] < 1e-9
    assert max(losses) < 1, "wrong labels would give losses above 1"
    assert min(error for _, error in tuned.history) < 1e-9
    assert network.strength.grad is None, "the user's network is none of a tuner's business"


def test_batches_visit_each_noise_once_in_a_pass_in_a_new_order() -> None:
    batches, seen = Batches("it", 10, 4, Stream(0)), list[list[int]]()
    for _ in range(6):
        batches.run(lambda index: seen.append(index.tolist()))
    assert [len(index) for index in seen] == [4] * 6
    passes = [sorted(seen[k] + seen[k + 1]) for k in (0, 2, 4)]
    assert all(len(set(p)) == 8 for p in passes)
    assert seen[:2] != seen[2:4]


def test_a_batch_of_one_that_does_not_fit_is_an_error() -> None:
    def full(index: Tensor) -> None:
        raise torch.OutOfMemoryError("no memory left")

    with pytest.warns(RuntimeWarning, match="batches of 1"), pytest.raises(torch.OutOfMemoryError):
        Batches("it", 4, 2, Stream(0)).run(full)


def test_a_loss_that_is_no_number_is_named() -> None:
    calibration = replace(CALIBRATION, train=replace(CALIBRATION.train, target=torch.full((8, 8), math.nan)))
    with pytest.raises(NotFinite, match="the loss of DSS became nan at step 0"):
        fit("DSS", calibration=calibration)


def test_where_time_ends_first_rates_fall_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, now, step = list[float](), [0.0], torch.optim.Adam.step

    def watched(optimizer: torch.optim.Adam, *args: Any) -> Any:
        rates.append(optimizer.param_groups[0]["lr"])
        now[0] += 1.0  # each step takes a second
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    monkeypatch.setattr("isocline.plans.tuners.descent.time.monotonic", lambda: now[0])
    EndToEnd(steps=1000, batch=4, rate=0.1).fit(BASE, MODEL, CALIBRATION, 0, seconds=9.5)
    expected = [0.05 * (1 + math.cos(math.pi * k / 9.5)) for k in range(10)]
    assert rates == pytest.approx(expected)
