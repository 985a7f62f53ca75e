from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, Mismatch
from isocline.datasets.fields import Batch, FieldSpec, Window
from isocline.networks.neural_operator import GNO, MGNO, spaced_levels
from isocline.objectives.fields import mean_square
from isocline.operators import (
    Channels,
    Normaliser,
    PointDeepONet,
    PointLowRank,
    PointMGNO,
    PointModel,
    by_case,
    fit,
    rollout,
)
from isocline.training import Settings
from tests.operators.beds import Waves, spec

SOURCE = Waves(spec())


WINDOW = Window(1, 2)


def model(window: Window = WINDOW) -> PointModel:
    torch.manual_seed(0)
    normaliser = Normaliser.of(SOURCE.spec, [SOURCE.batch(16, window)])
    return PointModel(lambda a, b: GNO(1, a, b, radius=1.0, width=8, depth=2), SOURCE.spec, window, normaliser)


def as_points(batch: Batch, kept: list[Tensor]) -> Batch:
    """Return a batch on some points of its grid, others for each case."""

    def rows(value: Tensor) -> Tensor:
        return torch.cat([v.movedim(-2, 0)[k] for v, k in zip(value, kept, strict=True)])

    counts = torch.tensor([0, *[len(k) for k in kept]])
    places = torch.cat([batch.coordinates[k] for k in kept])
    assert batch.constants is not None
    constants = torch.cat([v[k] for v, k in zip(batch.constants, kept, strict=True)])
    spec = replace(batch.spec, grid="points")
    return replace(
        batch,
        spec=spec,
        x=rows(batch.x),
        y=rows(batch.target),
        coordinates=places,
        constants=constants,
        offsets=counts.cumsum(0),
    )


@pytest.mark.parametrize("window", [Window(1, 2), Window(2, 1)])
def test_a_grid_is_a_set_of_points(window: Window) -> None:
    network, batch = model(window), SOURCE.batch(3, window)
    on_grid = network(batch)
    assert on_grid.shape == batch.target.shape
    every = as_points(batch, [torch.arange(32)] * 3)
    on_points = network(every)
    torch.testing.assert_close(on_points, torch.cat([f.movedim(1, 0) for f in on_grid]))
    for case, frames in enumerate(by_case(on_points, every.offsets)):  # type: ignore[arg-type]
        torch.testing.assert_close(frames[0], on_grid[case])


def test_cases_with_other_points_do_not_see_each_other() -> None:
    network, batch = model(), SOURCE.batch(3, Window(1, 2))
    kept = [torch.arange(32), torch.arange(0, 32, 2), torch.tensor([1, 5, 6, 20])]
    together = by_case(network(as_points(batch, kept)), torch.tensor([0, 32, 48, 52]))
    for k in range(3):
        one = replace(
            batch, x=batch.x[k : k + 1], y=batch.target[k : k + 1], t=batch.t[k : k + 1], dt=batch.dt[k : k + 1],
            parameters=batch.parameters[k : k + 1], constants=batch.constants[k : k + 1],  # type: ignore[index]
        )  # fmt: skip
        alone = network(as_points(one, kept[k : k + 1]))
        torch.testing.assert_close(together[k][0].movedim(0, 1), alone)


def multipole(inputs: int, outputs: int) -> nn.Module:
    return PointMGNO(MGNO(1, inputs, outputs, width=8, cycles=2), *spaced_levels(32, 2 * torch.pi, 1), seed=3)


@pytest.mark.parametrize(
    "make",
    [multipole, lambda a, b: PointLowRank(1, a, b, width=8, depth=2), lambda a, b: PointDeepONet(1, a, b, width=8)],
)
def test_the_other_networks_on_points(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network, batch = PointModel(make, SOURCE.spec, WINDOW), SOURCE.batch(2, WINDOW)
    on_grid = network(batch)
    assert on_grid.shape == batch.target.shape
    assert float((on_grid - batch.x).detach().std(2).min()) > 1e-4  # what it adds is no constant
    every = as_points(batch, [torch.arange(32)] * 2)
    torch.testing.assert_close(network(every), torch.cat([f.movedim(1, 0) for f in on_grid]))
    kept = [torch.arange(0, 32, 2), torch.arange(1, 30)]
    together = network(as_points(batch, kept)).split([16, 29])
    for k in range(2):
        names = ("x", "y", "t", "dt", "parameters", "constants")
        one = replace(batch, **{name: getattr(batch, name)[k : k + 1] for name in names})
        torch.testing.assert_close(network(one), on_grid[k : k + 1])
        torch.testing.assert_close(network(as_points(one, kept[k : k + 1])), together[k])


def test_it_is_trained_and_rolled_out_on_points(tmp_path) -> None:  # type: ignore[no-untyped-def]
    class Points(Waves):
        def draw(self, *args, **kwargs) -> Batch:  # type: ignore[no-untyped-def]
            batch = super().draw(*args, **kwargs)
            return as_points(batch, [torch.arange(k % 3, 32, 2) for k in range(len(batch))])

    network = model(Window())
    before = network.network.lift.weight.detach().clone()  # type: ignore[union-attr]
    settings = Settings(steps=30, batch=4, rate=1e-2, warmup=2, average=0.5)
    fitted = fit(network, Points(spec()), settings, tmp_path, objective=mean_square)
    assert not torch.equal(before, network.network.lift.weight)  # type: ignore[union-attr]
    losses = fitted.trained.losses
    assert losses[-1][1] < losses[0][1]
    batch = as_points(SOURCE.batch(2, Window(1, 4)), [torch.arange(32), torch.arange(0, 32, 2)])
    done = rollout(network, batch, 4)
    assert done.frames.shape == (48, 4, 1)
    assert done.lost.tolist() == [4, 4]


def test_a_lost_case_on_points_ends_and_the_other_goes_on() -> None:
    class Breaks(nn.Module):
        def forward(self, places: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
            found = torch.zeros(len(places), 1)
            found[offsets[1] + 1] = float("nan")
            return found

    network = PointModel(lambda a, b: Breaks(), SOURCE.spec, Window())
    batch = as_points(SOURCE.batch(2, Window(1, 3)), [torch.arange(4), torch.arange(6)])
    done = rollout(network, batch, 3)
    assert done.lost.tolist() == [3, 0]
    assert bool(done.frames[:4].isfinite().all())
    assert bool(done.frames[4:].isnan().all())


def test_weights_share_the_volume_unless_they_are_given() -> None:
    seen: list[Tensor] = []

    class Looks(nn.Module):
        def forward(self, places: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
            seen.append(weights)
            return torch.zeros(len(places), 1)

    batch = as_points(SOURCE.batch(2, Window()), [torch.arange(32), torch.arange(8)])
    PointModel(lambda a, b: Looks(), SOURCE.spec, Window())(batch)
    PointModel(lambda a, b: Looks(), SOURCE.spec, Window(), weights=lambda x, offsets: x[:, 0])(batch)
    sums = [float(part.sum()) for part in seen[0].split([32, 8])]
    assert sums == pytest.approx([2 * torch.pi] * 2, rel=1e-5)
    assert torch.equal(seen[1], batch.coordinates[:, 0])


def test_what_points_cannot_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no leads"):
        PointModel(lambda a, b: nn.Identity(), SOURCE.spec, Window(), channels=Channels(leads=True))
    batch = SOURCE.batch(1, Window())
    renamed = replace(batch.spec, fields=(FieldSpec("h"), FieldSpec("k", varies=False)))
    with pytest.raises(Mismatch, match="has the fields"):
        model(Window())(replace(batch, spec=renamed))
