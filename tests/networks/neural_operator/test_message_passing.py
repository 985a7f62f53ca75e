import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.networks.neural_operator.message_passing import MessagePassingSolver

F64 = torch.float64
Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def solver(
    dimension: int = 2, channels: int = 2, *, bundle: int = 4, radius: float = 0.4, period: float | None = None
) -> MessagePassingSolver:
    torch.manual_seed(1)
    return MessagePassingSolver(
        dimension, channels, 2, frames=3, bundle=bundle, radius=radius, period=period, width=12, depth=2
    ).double()


def ragged(sizes: tuple[int, ...], dimension: int = 2, channels: int = 2, seed: int = 0) -> Case:
    random = torch.Generator().manual_seed(seed)
    total, cases = sum(sizes), len(sizes)
    frames = torch.randn(total, 3, channels, generator=random, dtype=F64)
    coordinates = torch.rand(total, dimension, generator=random, dtype=F64)
    time = torch.rand(cases, generator=random, dtype=F64)
    theta = torch.randn(cases, 2, generator=random, dtype=F64)
    return frames, coordinates, torch.tensor([0, *np.cumsum(sizes).tolist()]), time, theta


def naive(network: MessagePassingSolver, u: Tensor, x: Tensor, t: Tensor, theta: Tensor, dt: float) -> Tensor:
    """One case, node by node; the images of a periodic box are found by trying all of them."""
    n, box = len(x), network.period
    shifts = [0.0] if box is None else [-box, 0.0, box]
    images = torch.cartesian_prod(*[torch.tensor(shifts, dtype=F64)] * x.shape[1]).reshape(-1, x.shape[1])
    gaps = (x[:, None] - x[None])[:, :, None] + images
    gap = gaps.gather(2, gaps.norm(dim=3).argmin(2)[..., None, None].expand(-1, -1, 1, x.shape[1]))[:, :, 0]
    h = [network.encoder(torch.cat([u[i].reshape(-1), x[i], t.reshape(1), theta])) for i in range(n)]
    for layer in network.layers:
        message, update = layer.get_submodule("message"), layer.get_submodule("update")
        raw = []
        for i in range(n):
            messages = [
                message(torch.cat([h[i], h[j], (u[i] - u[j]).reshape(-1), gap[i, j], theta]))
                for j in range(n)
                if j != i and gap[i, j].norm() <= network.radius
            ]
            mean = sum(messages, torch.zeros_like(h[i])) / max(len(messages), 1)
            raw.append(h[i] + update(torch.cat([h[i], mean, theta])))
        h = list(nn.functional.instance_norm(torch.stack(raw).T[None])[0].T)
    result = []
    for i in range(n):
        d = network.decoder(h[i][None, None])[0]
        result.append(torch.stack([u[i, -1] + (step + 1) * dt * d[:, step] for step in range(network.bundle)]))
    return torch.stack(result)


@pytest.mark.parametrize("period", [None, 1.0])
@pytest.mark.parametrize("dimension", [1, 2])
def test_network_is_the_loop_over_nodes(dimension: int, period: float | None) -> None:
    u, x, offsets, t, theta = ragged((15,), dimension)
    network = solver(dimension, radius=0.2, period=period)
    expected = naive(network, u, x, t, theta[0], 0.3)
    torch.testing.assert_close(network(u, x, offsets, t, 0.3, parameters=theta), expected)


@pytest.mark.parametrize("sizes", [(12, 20, 5), (9, 0, 1, 4)])
def test_ragged_batch_is_the_cases_one_by_one(sizes: tuple[int, ...]) -> None:
    u, x, offsets, t, theta = ragged(sizes)
    network = solver()
    whole = network(u, x, offsets, t, 0.1, parameters=theta)
    for k, (b, e) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        own = torch.tensor([0, e - b])
        alone = network(u[b:e], x[b:e], own, t[k : k + 1], 0.1, parameters=theta[k : k + 1])
        torch.testing.assert_close(alone, whole[b:e])


def test_order_of_the_points_does_not_matter() -> None:
    u, x, offsets, t, theta = ragged((25,))
    network, order = solver(), torch.randperm(25, generator=torch.Generator().manual_seed(3))
    moved = network(u[order], x[order], offsets, t, 0.1, parameters=theta)
    torch.testing.assert_close(moved, network(u, x, offsets, t, 0.1, parameters=theta)[order])


def blind(network: MessagePassingSolver, dimension: int) -> MessagePassingSolver:
    """The same network with an encoder that does not see where a node is."""
    first = network.encoder[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight[:, 6 : 6 + dimension] = 0
    return network


@pytest.mark.parametrize("dimension", [1, 2])
def test_layers_commute_with_translations_of_a_periodic_grid(dimension: int) -> None:
    side = torch.arange(8, dtype=F64) / 8
    x = torch.cartesian_prod(*[side] * dimension).reshape(-1, dimension)
    u, _, offsets, t, theta = ragged((len(x),))
    shape, axes = (*[8] * dimension, 3, 2), tuple(range(dimension))
    rolled = u.reshape(shape).roll([3] * dimension, axes).reshape(u.shape)
    network = solver(dimension, radius=0.26, period=1.0)

    @torch.no_grad()
    def change() -> float:
        before = network(u, x, offsets, t, 0.1, parameters=theta).reshape(*shape[:dimension], 4, 2)
        after = network(rolled, x, offsets, t, 0.1, parameters=theta).reshape(before.shape)
        return float((before.roll([3] * dimension, axes) - after).abs().max())

    assert change() > 1e-4  # with its places the network does not commute
    network = blind(network, dimension)
    assert change() < 1e-12
    network.period = None  # walls are seen through the edges that end there
    assert change() > 1e-4


def test_translated_scattered_points_give_the_same() -> None:
    u, x, offsets, t, theta = ragged((30,))
    network = blind(solver(radius=0.3, period=1.0), 2)
    moved = (x + torch.tensor([0.37, 0.81], dtype=F64)) % 1
    after = network(u, moved, offsets, t, 0.1, parameters=theta)
    torch.testing.assert_close(after, network(u, x, offsets, t, 0.1, parameters=theta))


def test_far_nodes_are_not_seen_but_for_the_norm() -> None:
    u, x, offsets, t, theta = ragged((20,))
    network, edges = solver(), torch.tensor([[0, 1], [1, 0]])
    messages: list[Tensor] = []
    network.layers[0].register_forward_hook(lambda _m, _i, out: messages.append(out))
    other = u.clone()
    other[5] += 1
    for frames in (u, other):
        network(frames, x, offsets, t, 0.1, parameters=theta, edges=edges)
    changed = (messages[0] - messages[1]).abs().amax(1) > 1e-9
    assert changed.nonzero().flatten().tolist() == [5]


def test_edges_found_are_those_of_the_search() -> None:
    u, x, offsets, t, theta = ragged((12, 14))
    network = solver()
    edges = network.neighbours(x, offsets)
    assert edges.shape[1] > 0
    assert bool((edges[0] != edges[1]).all())
    given = network(u, x, offsets, t, 0.1, parameters=theta, edges=edges)
    assert torch.equal(given, network(u, x, offsets, t, 0.1, parameters=theta))
    assert not torch.allclose(given, network(u, x, offsets, t, 0.1, parameters=theta, edges=edges[:, ::3]))


def test_parameters_and_time_of_one_case_change_that_case_only() -> None:
    u, x, offsets, t, theta = ragged((10, 12))
    network = solver()
    before = network(u, x, offsets, t, 0.1, parameters=theta)
    for k in range(3):  # two parameters and the time
        moved, later = theta.clone(), t.clone()
        if k < 2:
            moved[1, k] += 0.5
        else:
            later[1] += 0.5
        change = (network(u, x, offsets, later, 0.1, parameters=moved) - before).detach().abs()
        assert float(change[:10].max()) < 1e-13
        assert float(change[10:].amax((1, 2)).min()) > 1e-6


def test_increments_grow_with_the_step() -> None:
    u, x, offsets, t, theta = ragged((10,))
    network = solver()
    short, long = (network(u, x, offsets, t, dt, parameters=theta) - u[:, -1:] for dt in (0.1, 0.25))
    torch.testing.assert_close(long, 2.5 * short)
    with torch.no_grad():
        last = network.decoder[2]
        assert isinstance(last, nn.Conv1d)
        last.weight.zero_()
        assert last.bias is not None
        last.bias.copy_(torch.tensor([1.0, -2.0]))
    ramp = network(u, x, offsets, t, 0.1, parameters=theta) - u[:, -1:]
    expected = torch.tensor([[0.1, -0.2], [0.2, -0.4], [0.3, -0.6], [0.4, -0.8]], dtype=F64)
    torch.testing.assert_close(ramp, expected.expand_as(ramp))


@pytest.mark.parametrize("width", [1, 4, 7, 16, 64, 128, 164])
def test_decoder_gives_every_length_up_to_the_width(width: int) -> None:
    for bundle in range(1, width + 1):
        network = MessagePassingSolver(1, 1, frames=1, bundle=bundle, radius=1.0, width=width, depth=1)
        h = torch.ones(1, 1, width)
        assert network.decoder(h).shape == (1, 1, bundle)


def test_decoder_of_the_published_size() -> None:
    first, _, second = MessagePassingSolver(1, 1, frames=25, bundle=25, radius=1.0, depth=1).decoder
    assert isinstance(first, nn.Conv1d)
    assert isinstance(second, nn.Conv1d)
    assert (first.kernel_size, first.stride, second.kernel_size) == ((16,), (3,), (14,))


def test_decoder_reads_all_features_for_short_bundles() -> None:
    for bundle in (1, 2, 5, 20, 25):
        network = MessagePassingSolver(1, 1, frames=1, bundle=bundle, radius=1.0, depth=1).double()
        h = torch.randn(1, 1, 128, dtype=F64, requires_grad=True)
        network.decoder(h).sum().backward()
        assert h.grad is not None
        assert int((h.grad == 0).sum()) <= 3  # a stride of up to 4 leaves the last few


def test_gradients_are_those_of_differences() -> None:
    u, x, offsets, t, theta = ragged((6,))
    network = solver()
    u, theta = u.requires_grad_(), theta.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, p: network(a, x, offsets, t, 0.3, parameters=p), (u, theta))


@pytest.mark.parametrize(("option", "value"), [("radius", 0.0), ("period", -1.0), ("bundle", 13), ("frames", 0)])
def test_bad_sizes_are_refused(option: str, value: float) -> None:
    good = {"frames": 2, "bundle": 2, "radius": 0.1, "width": 12}
    word = "sizes" if option == "frames" else option
    with pytest.raises(InvalidInput, match=word):
        MessagePassingSolver(1, 1, **{**good, option: value})  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    u, x, offsets, t, theta = ragged((5, 6))
    network = solver()
    with pytest.raises(InvalidInput, match="parameters"):
        network(u, x, offsets, t, 0.1)
    with pytest.raises(InvalidInput, match="parameters"):
        network(u, x, offsets, t, 0.1, parameters=theta[:1])
    with pytest.raises(InvalidInput, match="time"):
        network(u, x, offsets, t[:1], 0.1, parameters=theta)
