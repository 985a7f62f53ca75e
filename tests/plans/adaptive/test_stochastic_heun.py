"""Stochastic Heun: a naive loop sample by sample, and geometric Brownian motion, whose paths are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.plans.adaptive import StepLimit
from isocline.plans.adaptive.brownian import BrownianPath
from isocline.plans.adaptive.stochastic_heun import Rule, Walk

GROWTH, SPREAD = 1.5, 1.0


class Watched(BrownianPath):
    """A path that adds up the increments of accepted steps: ``W`` at the end."""

    def __init__(self, batch: int, remember: bool = True) -> None:
        super().__init__(remember)
        self.total = torch.zeros(batch, 1, dtype=torch.float64)
        self.index = torch.arange(batch)

    def move(self, h: Tensor, w: Tensor, moved: Tensor) -> None:
        super().move(h, w, moved)
        self.total[self.index] += moved[:, None] * w

    def take(self, kept: Tensor) -> None:
        super().take(kept)
        self.index = self.index[kept]


def geometric(x: Tensor, t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the field of ``dx = GROWTH x ds + SPREAD x o dW`` with ``s = 1 - t``; ``x = exp(GROWTH s + SPREAD W)``."""
    return -GROWTH * x, SPREAD * x


def wavy(x: Tensor, t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sin(x) + t[:, None], (1 + t[:, None]) * torch.cos(x / 3)


def naive(x: Tensor, sample: int, rule: Rule, stream: Stream, bridge: bool) -> tuple[Tensor, int, int]:
    """Return the end state of one sample with its accepted and rejected steps; known points are a sorted list."""
    shape, here = (sample + 1, *x.shape[1:]), torch.zeros(1, dtype=torch.int64)
    t, h, low, now = 1.0, rule.first_step, x, 0.0
    known: list[tuple[float, Tensor]] = [(0.0, torch.zeros_like(x))]
    accepted = rejected = 0
    for step in range(10_000):
        z = stream.normal(shape, step=step, dtype=torch.float64)[sample:]
        start = next(w for s, w in known if s == now)
        aim = now + h
        before = max((p for p in known if p[0] < aim), key=lambda p: p[0])
        after = min((p for p in known if p[0] >= aim), key=lambda p: p[0], default=None)
        if not bridge:
            dw = math.sqrt(h) * z
        elif after is None:
            dw = before[1] + math.sqrt(aim - before[0]) * z - start
        else:
            share = (aim - before[0]) / (after[0] - before[0])
            mean = before[1] + share * (after[1] - before[1])
            dw = mean + math.sqrt((aim - before[0]) * (1 - share)) * z - start
        known.append((aim, start + dw))
        a, b = wavy(x, torch.tensor([t], dtype=torch.float64), here)
        euler = x - h * a + b * dw
        a, b = wavy(euler, torch.tensor([t - h], dtype=torch.float64), here)
        other = x - h * a + b * dw
        delta = torch.maximum(
            torch.tensor(rule.atol, dtype=torch.float64), rule.rtol * torch.maximum(euler.abs(), low.abs())
        )
        error = float(((other - euler) / 2 / delta).square().mean().sqrt())
        done = h == t
        if error <= 1:
            x, low, now, t, accepted = (euler + other) / 2, euler, aim, 0.0 if done else t - h, accepted + 1
            if done:
                return x, accepted, rejected
        else:
            rejected += 1
        h = min(t, rule.safety * h * error**-rule.exponent)
    raise AssertionError("the naive loop did not end")


@pytest.mark.parametrize("bridge", [True, False])
def test_a_naive_loop_gives_the_same_sample_by_sample(bridge: bool) -> None:
    rule, stream = Rule(rtol=0.05, atol=0.02, safety=0.95), Stream(4)
    x = Stream(1).normal((4, 3), dtype=torch.float64)
    walk = Walk(wavy, x, 1.0, 0.0, rule, BrownianPath(bridge))
    walk.run(stream)
    assert int(walk.rejected.sum()) > 10
    for b in range(4):
        expected, accepted, rejected = naive(x[b : b + 1], b, rule, stream, bridge)
        torch.testing.assert_close(walk.ends[b : b + 1], expected, rtol=1e-12, atol=1e-12)
        moved = int((torch.stack(walk.trace)[:, b].diff() < 0).sum())
        assert (moved, int(walk.rejected[b])) == (accepted, rejected)


def path_error(rule: Rule, seed: int) -> tuple[float, float]:
    """Return the relative RMS distance to Stratonovich's solution along the path that was drawn, and the steps it took."""
    path = Watched(400)
    walk = Walk(geometric, torch.ones(400, 1, dtype=torch.float64), 1.0, 0.0, rule, path)
    walk.run(Stream(seed))
    exact = torch.exp(GROWTH + SPREAD * path.total)
    steps = (torch.stack(walk.trace).diff(dim=0) < 0).sum(0).double().mean()
    return float(((walk.ends - exact) / exact).square().mean().sqrt()), float(steps)


@pytest.mark.parametrize("seed", range(5))
def test_equal_steps_have_strong_order_one(seed: int) -> None:
    rules = [Rule(rtol=1e9, safety=1.0, exponent=1e-12, first_step=h) for h in (1 / 50, 1 / 100)]
    (coarse, few), (fine, many) = (path_error(rule, seed) for rule in rules)
    assert (few, many) == (50, 100)
    assert 0.85 < math.log2(coarse / fine) < 1.15


def test_the_error_of_a_path_is_proportional_to_the_tolerance() -> None:
    """Steps that shrink where the noise is large do better than order one: a tenth of the error for 6.5 times the steps."""
    (coarse, few), (fine, many) = (path_error(Rule(rtol=tol, atol=tol), seed=0) for tol in (0.1, 0.01))
    assert 0.9 < math.log10(coarse / fine) < 1.1
    assert math.log(coarse / fine) > math.log(many / few)


@pytest.mark.parametrize("seed", range(5))
def test_the_bridge_keeps_the_law_of_the_noise_and_redrawing_does_not(seed: int) -> None:
    """``W(1)`` must be standard normal whatever was rejected; redrawn, its mean went to -1.14 and its variance to 0.2."""
    batch, x = 1000, torch.ones(1000, 1, dtype=torch.float64)
    totals = []
    for bridge in (True, False):
        path = Watched(batch, bridge)
        Walk(geometric, x, 1.0, 0.0, Rule(rtol=0.05, atol=0.05), path).run(Stream(seed))
        totals.append(path.total)
    assert abs(float(totals[0].square().mean()) - 1) < 4 * math.sqrt(2 / batch)
    assert abs(float(totals[0].mean())) < 4 / math.sqrt(batch)
    assert float(totals[1].mean()) < -0.5
    assert float(totals[1].var()) < 0.5


def test_no_noise_and_no_drift_take_few_steps() -> None:
    def still(x: Tensor, t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.zeros_like(x)

    x = torch.ones(3, 2, dtype=torch.float64)
    walk = Walk(still, x, 1.0, 0.0, Rule(), BrownianPath())
    walk.run(Stream(0))
    assert torch.equal(walk.ends, x)
    assert len(walk.trace) == 3  # the first step, and the rest
    assert float(walk.times.max()) == 0.0


def test_too_few_steps_name_the_slowest_sample() -> None:
    with pytest.raises(
        StepLimit, match=r"5 steps were not enough for 3 of 3 samples; sample \d reached t = 0.\d+ .*raise"
    ):
        Walk(wavy, torch.ones(3, 2).double(), 1.0, 0.0, Rule(max_steps=5), BrownianPath()).run(Stream(0))


def test_nan_names_sample_and_time() -> None:
    def breaks(x: Tensor, t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where((index == 2)[:, None] & (t[:, None] < 0.5), math.nan, 0.1 * x), 0.1 * torch.ones_like(x)

    with pytest.raises(NotFinite, match=r"for sample 2 in a step from t = 0\.99;"):
        Walk(breaks, torch.ones(3, 2).double(), 1.0, 0.0, Rule(), BrownianPath()).run(Stream(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rtol": 0.0}, "rtol must be positive"),
        ({"safety": 1.5}, r"safety must lie in \(0, 1\]"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_impossible_rules_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Rule(**settings)  # type: ignore[arg-type]
