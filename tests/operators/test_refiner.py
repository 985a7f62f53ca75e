import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, Window
from isocline.objectives.fields import mean_square
from isocline.operators import Channels, Draws, GridModel, Refine, Refiner, rollout
from tests.operators.beds import Told, Waves, spec

SOURCE = Waves(spec())
CHANNELS = Channels(parameters="vector")


class Oracle(nn.Module):
    """Answers exactly, knowing the true state; its first answer is off by `error`."""

    def __init__(self, truth: Tensor, levels: Tensor, error: float) -> None:
        super().__init__()
        self.truth, self.levels, self.error = truth, levels, error
        self.asked: list[float] = []

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        noisy, k = x[:, -self.truth.shape[1] :], round(float(condition[0, -1]) * len(self.levels))
        self.asked.append(k)
        return self.truth + self.error if k == 0 else (noisy - self.truth) / self.levels[k - 1]


def refiner(steps: int = 3, sigma_min: float = 1e-3) -> Refiner:
    torch.manual_seed(0)
    return Refiner(Told, SOURCE.spec, Window(), channels=CHANNELS, steps=steps, sigma_min=sigma_min)


def with_oracle(model: Refiner, batch: Batch, error: float) -> Oracle:
    truth = model.base.normalised(batch.target, batch).movedim(-1, 2).flatten(1, 2)
    oracle = Oracle(truth, model.levels, error)
    model.base.network = oracle
    return oracle


def test_levels_fall_geometrically_to_the_smallest() -> None:
    torch.testing.assert_close(refiner(4, 1e-4).levels.float(), torch.tensor([1e-1, 1e-2, 1e-3, 1e-4]))


def test_refinement_removes_the_error_of_the_first_prediction() -> None:
    model, batch = refiner(), SOURCE.batch(4, Window())
    oracle = with_oracle(model, batch, error=0.3)
    torch.testing.assert_close(model(batch), batch.target, rtol=1e-4, atol=1e-4)
    assert oracle.asked == [0, 1, 2, 3]


def test_one_step_is_the_formula() -> None:
    model, batch = refiner(steps=1, sigma_min=0.1), SOURCE.batch(4, Window())
    zero = torch.zeros(4, 1, 32, 1)
    first = model.predicted(batch, zero, 0)
    noise = model._noise(first, batch, 1)
    noisy = first + 0.1 * noise
    expected = batch.x + noisy - 0.1 * model.predicted(batch, noisy, 1)
    torch.testing.assert_close(model(batch), expected)


def test_the_truth_has_no_loss_and_all_levels_are_trained() -> None:
    class Both(nn.Module):
        """Has both targets right: the state where it is given none, the noise otherwise."""

        def __init__(self, truth: Tensor, levels: Tensor) -> None:
            super().__init__()
            self.truth, self.levels = truth, levels
            self.seen: set[int] = set()

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            k = (condition[:, -1] * len(self.levels)).round().long()
            self.seen |= set(k.tolist())
            sigma = torch.cat([torch.ones(1), self.levels.float()])[k][:, None, None]
            noise = (x[:, -1:] - self.truth) / sigma
            return torch.where(k[:, None, None] == 0, self.truth, noise)

    model, batch = refiner(sigma_min=0.01), SOURCE.batch(64, Window())
    both = Both(model.base.normalised(batch.target, batch).movedim(-1, 2).flatten(1, 2), model.levels)
    model.base.network = both
    assert float(Refine().loss(model, batch, mean_square, Draws(Stream(0)))) < 1e-6
    assert both.seen == {0, 1, 2, 3}


def test_noise_differs_between_steps_and_seeds_and_repeats() -> None:
    model, batch = refiner(sigma_min=0.5), SOURCE.batch(2, Window())
    assert torch.equal(model(batch), model(batch))
    other = Refiner(Told, SOURCE.spec, Window(), channels=CHANNELS, sigma_min=0.5, rng=1)
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(model(batch), other(batch))
    found = rollout(model, batch, 4)
    assert bool(found.frames.isfinite().all())
    first = [model._noise(batch.x, batch, 1), model._noise(batch.x, SOURCE.batch(2, Window(), step=5), 1)]
    assert not torch.allclose(*first)


def test_a_refiner_is_refused_what_it_cannot_do() -> None:
    with pytest.raises(InvalidInput, match="as a vector"):
        Refiner(Told, SOURCE.spec, Window(), channels=Channels())
    plain = GridModel(Told, SOURCE.spec, Window(), channels=CHANNELS)
    with pytest.raises(InvalidInput, match="trains a Refiner"):
        Refine().loss(plain, SOURCE.batch(2, Window()), mean_square, Draws(Stream(0)))
