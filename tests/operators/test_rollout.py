from dataclasses import replace

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.datasets.fields import Batch, Window
from isocline.operators import OperatorModel, rollout
from tests.operators.beds import Waves, spec

SOURCE = Waves(spec())


class Exact(OperatorModel):
    """Knows that a frame is the one before, shifted."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.spec, self.window = SOURCE.spec, window

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        return torch.stack([batch.x[:, -1].roll(k, 1) for k in range(1, self.window.future + 1)], 1)


@pytest.mark.parametrize("window", [Window(1, 1), Window(2, 3), Window(4, 5)])
def test_an_exact_stepper_rolls_out_the_truth_with_its_times(window: Window) -> None:
    batch = SOURCE.batch(3, Window(window.past, 13))
    found = rollout(Exact(window), replace(batch, y=None), 13)
    torch.testing.assert_close(found.frames, batch.target, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.t, batch.t)
    assert found.calls == -(-13 // window.future)
    assert found.lost.tolist() == [13] * 3


def test_a_lost_case_ends_and_the_others_go_on() -> None:
    class Bad(Exact):
        def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
            found = super().forward(batch)
            late = (batch.t[:, 0] > SOURCE.spec.dt * 25).float() * torch.tensor([0.0, 1.0])
            return found / (1 - late[:, None, None, None])

    batch = SOURCE.batch(2, Window(1, 40))
    found = rollout(Bad(Window()), batch, 40)
    first = int(found.lost[1])
    assert 0 < first < 40
    assert int(found.lost[0]) == 40
    assert bool(found.frames[0].isfinite().all())
    assert bool(found.frames[1, :first].isfinite().all())
    assert bool(found.frames[1, first:].isnan().all())


def test_windows_are_shown_as_they_come() -> None:
    seen: list[int] = []
    rollout(Exact(Window(1, 4)), SOURCE.batch(1, Window()), 10, callback=lambda k, frames: seen.append(k))
    assert seen == [0, 4, 8]


def test_nothing_to_roll_out_is_said() -> None:
    with pytest.raises(InvalidInput, match="at least one step"):
        rollout(Exact(Window()), SOURCE.batch(1, Window()), 0)
    with pytest.raises(InvalidInput, match="steady problem"):
        rollout(Exact(Window(0)), SOURCE.batch(1, Window(0)), 1)
