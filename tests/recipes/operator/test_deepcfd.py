"""DeepCFD as an operator: its name in the recipe, and training on its loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets import Arrays
from isocline.datasets.fields import Window
from isocline.networks import DeepCFD
from isocline.objectives import FlowLoss
from isocline.operators import GridModel, fit
from isocline.recipes.operator import OperatorConfig, load_operator, train_operator
from isocline.training import Settings

STEADY = Window(0, 1)


def steady(shape: tuple[int, int] = (12, 9)) -> Arrays:
    """Cases whose two fields are multiples of a picture, with mean zero, so that any constant scores 1 or more."""
    torch.manual_seed(0)
    pictures = torch.nn.functional.avg_pool2d(torch.randn(40, 1, shape[0] + 4, shape[1] + 4), 5, 1)[:, 0]
    return Arrays(
        {"u": pictures[:, None], "p": -3 * pictures[:, None]},
        constants={"picture": pictures},
        low=(0.0, 0.0),
        high=(1.0, 1.0),
        fractions=(0.6, 0.2, 0.2),
    )


def config(source: Arrays, width: int = 4) -> OperatorConfig:
    return OperatorConfig("deepcfd", width, source.spec, STEADY, "state")


def test_every_field_has_a_decoder_and_the_grid_decides_the_levels() -> None:
    model = config(steady()).build()
    assert isinstance(model, GridModel)
    network = model.network
    assert isinstance(network, DeepCFD)
    assert len(network.decoders) == 2
    weights = [
        w for name, w in network.state_dict().items() if name.startswith("encoder") and name.endswith("0.0.weight")
    ]
    assert [len(w) for w in weights] == [4, 8, 16]  # 9 points are halved three times


def test_it_is_stored_and_predicts_the_same(tmp_path: Path) -> None:
    source = steady()
    fitted, _ = train_operator(source, tmp_path, config(source), Settings(5, 8))
    batch = next(source.batches(STEADY, 4, "test"))
    with torch.no_grad():
        one, two = (model(batch) for model in (fitted.model, load_operator(tmp_path).model))
    assert torch.equal(one, two)


def test_it_trains_on_its_own_loss(tmp_path: Path) -> None:
    source = steady()
    torch.manual_seed(0)
    model = config(source).build()
    truth = next(source.batches(STEADY, source.cases("train"))).target
    loss = FlowLoss.of(truth.movedim(-1, 1))
    batch = next(source.batches(STEADY, 8, "test"))

    def unseen() -> float:
        with torch.no_grad():
            return float(loss.per_case(model(batch), batch.target).mean())

    before = unseen()
    fit(model, source, Settings(80, 8, 1e-2, 5, 0.9), tmp_path, objective=loss.per_case)
    assert unseen() < 0.7 * before


def test_other_data_are_refused() -> None:
    source = steady()
    rollout = replace(source.spec, times=3, dt=0.1)
    with pytest.raises(InvalidInput, match=r"steady fields in the plane; .* has 2 axes, 3 frames"):
        OperatorConfig("deepcfd", 4, rollout, STEADY, "state").build()
