from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch
from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, FieldSpec, Window
from isocline.objectives.fields import mean_square
from isocline.operators import MessagePassing, Normaliser, Pushforward, fit, rollout
from isocline.operators.strategies import Draws
from isocline.training import Settings
from tests.operators.beds import Waves, spec

SOURCE = Waves(spec())
WINDOW = Window(3, 4)
RADIUS = 2.5 / 32


def model(window: Window = WINDOW, **changed: object) -> MessagePassing:
    torch.manual_seed(0)
    normaliser = Normaliser.of(SOURCE.spec, [SOURCE.batch(16, window)])
    made = replace(SOURCE.spec, **changed)  # type: ignore[arg-type]
    return MessagePassing(made, window, normaliser, radius=RADIUS, width=16, depth=2)


def as_points(batch: Batch, kept: list[Tensor]) -> Batch:
    """Return a batch on some points of its grid, others for each case, in the order given."""

    def rows(value: Tensor) -> Tensor:
        return torch.cat([v.movedim(-2, 0)[k] for v, k in zip(value, kept, strict=True)])

    assert batch.constants is not None
    return replace(
        batch,
        spec=replace(batch.spec, grid="points"),
        x=rows(batch.x),
        y=rows(batch.target),
        coordinates=torch.cat([batch.coordinates[k] for k in kept]),
        constants=torch.cat([v[k] for v, k in zip(batch.constants, kept, strict=True)]),
        offsets=torch.tensor([0, *[len(k) for k in kept]]).cumsum(0),
    )


def one(batch: Batch, k: int) -> Batch:
    names = ("x", "y", "t", "dt", "parameters", "constants")
    return replace(batch, **{name: getattr(batch, name)[k : k + 1] for name in names})


def test_it_is_the_network_on_the_unit_circle() -> None:
    network, batch = model(), SOURCE.batch(1, WINDOW, seed=4)
    u, (s,) = (
        (batch.x[0, ..., 0] - network.normaliser.field_mean) / network.normaliser.field_std,
        network.normaliser.difference_std,
    )
    history = torch.stack([u, torch.zeros_like(u)], -1).transpose(0, 1)  # the constant field is zero
    edges = torch.tensor([[i, (i + k) % 32] for i in range(32) for k in (-2, -1, 1, 2)]).T
    theta = (batch.parameters - network.normaliser.parameter_mean) / network.normaliser.parameter_std
    newest = torch.tensor([float(batch.t[0, 0]) - SOURCE.spec.dt]) / (39 * SOURCE.spec.dt)
    places = torch.arange(32.0)[:, None] / 32
    out = network.network(history, places, torch.tensor([0, 32]), newest, 1.0, parameters=theta, edges=edges)
    rates = (out - history[:, -1:])[..., :1].transpose(0, 1)
    torch.testing.assert_close(network(batch)[0], batch.x[0, -1:] + s * rates, atol=1e-5, rtol=1e-5)


def test_a_bundle_is_a_window_of_frames() -> None:
    network = model(Window(2, 5))
    assert network(SOURCE.batch(3, Window(2, 1))).shape == (3, 5, 32, 1)
    assert network.network.bundle == 5


def test_increments_grow_with_the_frames_ahead_and_with_dt() -> None:
    network, batch = model(), SOURCE.batch(2, WINDOW)
    torch.nn.init.zeros_(network.network.decoder[-1].weight)  # type: ignore[arg-type]
    torch.nn.init.ones_(network.network.decoder[-1].bias)  # type: ignore[arg-type]
    slow = replace(batch, dt=batch.dt / 2)
    scale = network.normaliser.difference_std * torch.arange(1.0, 5.0)[None, :, None, None]
    torch.testing.assert_close(network(batch) - batch.x[:, -1:], scale.expand(2, 4, 32, 1))
    torch.testing.assert_close(network(slow) - batch.x[:, -1:], 0.5 * scale.expand(2, 4, 32, 1))


def test_a_grid_is_a_set_of_points() -> None:
    network, batch = model(), SOURCE.batch(3, WINDOW)
    on_grid = network(batch)
    assert on_grid.shape == batch.target.shape
    on_points = network(as_points(batch, [torch.arange(32)] * 3))
    torch.testing.assert_close(on_points, torch.cat([f.movedim(1, 0) for f in on_grid]))


def test_cases_do_not_see_each_other() -> None:
    network, batch = model(), SOURCE.batch(3, WINDOW)
    kept = [torch.arange(32), torch.arange(0, 32, 2), torch.tensor([1, 2, 5, 6, 20])]
    every = as_points(batch, kept)
    assert every.offsets is not None
    together = network(every)
    for k, (a, b) in enumerate(pairwise(every.offsets.tolist())):
        torch.testing.assert_close(together[a:b], network(as_points(one(batch, k), kept[k : k + 1])))


def test_the_order_of_points_does_not_matter() -> None:
    network, batch = model(), SOURCE.batch(2, WINDOW)
    order = [Stream(0, "order").permutation(32, step=k) for k in range(2)]
    shuffled = network(as_points(batch, order)).unflatten(0, (2, 32))
    plain = network(batch).movedim(1, -2)
    for k in range(2):
        torch.testing.assert_close(shuffled[k], plain[k][order[k]])


def test_it_is_told_time_and_parameters() -> None:
    network, batch = model(), SOURCE.batch(2, WINDOW)
    found = network(batch)
    for changed in (replace(batch, t=batch.t + 1), replace(batch, parameters=batch.parameters + 1)):
        assert float((network(changed) - found).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("boundary", ["periodic", "wall"])
def test_the_ends_meet_where_the_axis_is_periodic(boundary: str) -> None:
    network = model(boundary=(boundary,))
    network(SOURCE.batch(1, WINDOW))
    assert network._kept is not None
    met = {(int(a), int(b)) for a, b in network._kept[2].T}
    assert ((0, 31) in met) == (boundary == "periodic")
    assert (3, 5) in met
    assert (3, 6) not in met


def test_edges_are_found_once_while_the_points_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch, calls = model(), SOURCE.batch(2, WINDOW), []
    find = network.network.neighbours

    def counted(coordinates: Tensor, offsets: Tensor) -> Tensor:
        calls.append(len(coordinates))
        return find(coordinates, offsets)

    monkeypatch.setattr(network.network, "neighbours", counted)
    few = as_points(batch, [torch.arange(0, 32, 2), torch.arange(1, 32, 2)])
    for given in (batch, SOURCE.batch(2, WINDOW, seed=1), few, few, one(batch, 0)):
        network(given)
    assert calls == [64, 32, 32]


def test_it_is_rolled_out_in_bundles_on_grid_and_points() -> None:
    network, batch = model(), SOURCE.batch(2, Window(3, 10))
    done = rollout(network, batch, 10)
    assert (done.frames.shape, done.calls, done.lost.tolist()) == ((2, 10, 32, 1), 3, [10, 10])
    on_points = rollout(network, as_points(batch, [torch.arange(32)] * 2), 10)
    torch.testing.assert_close(on_points.frames.unflatten(0, (2, 32)).movedim(2, 1), done.frames)
    with torch.no_grad():
        torch.testing.assert_close(done.frames[:, :4], network(batch))


def test_pushforward_trains_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    network = model()
    strategy = Pushforward(2, warmup=10)
    settings = Settings(steps=40, batch=4, rate=5e-3, warmup=2, average=0.5)
    fitted = fit(network, SOURCE, settings, tmp_path, strategy=strategy, objective=mean_square)
    assert strategy.window(WINDOW).future == 12
    draws = [strategy.drawn(Draws(Stream(0), step)) for step in range(40)]
    assert set(draws[:5]) == {0}
    assert set(draws) == {0, 1, 2}
    test = SOURCE.batch(16, Window(3, 4), seed=9)
    still = mean_square(test.x[:, -1:].expand_as(test.target), test.target).mean()
    with torch.no_grad():
        assert float(mean_square(fitted.model(test), test.target).mean()) < 0.7 * float(still)


def test_what_it_cannot_do_is_refused() -> None:
    mixed = replace(
        SOURCE.spec, axes=("x", "y"), low=(0.0, 0.0), high=(1.0, 1.0), resolution=(4, 4), boundary=("periodic", "wall")
    )
    with pytest.raises(InvalidInput, match="all axes periodic, or none"):
        MessagePassing(mixed, WINDOW, radius=0.3)
    with pytest.raises(InvalidInput, match="needs a past frame"):
        model(Window(0, 1))
    with pytest.raises(InvalidInput, match="its window only"):
        model()(SOURCE.batch(2, WINDOW), lead=torch.ones(2))
    batch = SOURCE.batch(1, WINDOW)
    renamed = replace(batch.spec, fields=(FieldSpec("h"), FieldSpec("k", varies=False)))
    with pytest.raises(Mismatch, match="has the fields"):
        model()(replace(batch, spec=renamed))
