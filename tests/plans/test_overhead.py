"""What a step costs beside its network, counted: no timing here, so the numbers are exact and the same on every machine."""

from __future__ import annotations

import pytest
import torch

from benchmarks.counting import count
from benchmarks.samplers_overhead import PerStep, count_step, hand_run, isocline_run, noise_run
from tests.plans.helpers import normal

SHAPE = (16, 4, 64, 64)


@pytest.fixture(scope="module")
def steps() -> dict[str, PerStep]:
    x, output = normal(*SHAPE, dtype=torch.float32), normal(*SHAPE, seed=1, dtype=torch.float32)
    makers = {"ours": isocline_run, "noise": noise_run, "hand": hand_run}
    return {name: count_step(make, x, output) for name, make in makers.items()}


def test_the_counter_sees_what_is_there() -> None:
    x = torch.zeros(1000)

    def work() -> None:
        y = x * 2
        del y
        z = x * 3
        z.add_(1).view(10, 100)
        (z + 1).sum()

    found = count(work)
    assert found.operations == {
        "aten.mul.Tensor": 2,
        "aten.add_.Tensor": 1,
        "aten.view.default": 1,
        "aten.add.Tensor": 1,
        "aten.sum.default": 1,
    }
    assert found.storages == 4
    assert found.peak == 2 * 4000 + 4


def test_a_step_is_three_operations_in_place_like_the_loop_by_hand(steps: dict[str, PerStep]) -> None:
    assert steps["ours"].operations == steps["hand"].operations == 3
    assert steps["ours"].allocations == steps["hand"].allocations == 0


def test_another_network_output_costs_two_operations_and_one_buffer(steps: dict[str, PerStep]) -> None:
    assert steps["noise"].operations == 5
    assert steps["noise"].allocations == 1


def test_a_run_needs_few_latents_beside_its_input(steps: dict[str, PerStep]) -> None:
    assert steps["ours"].peak < 1.1
    assert steps["noise"].peak < 3.1  # the state and the two outputs a two-step method lives on
