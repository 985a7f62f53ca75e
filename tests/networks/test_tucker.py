"""Tucker kernels and layers: equal to dense ones, compression, exports."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, Mismatch
from isocline.networks import FNO, SpectralConv
from isocline.networks.tucker import (
    Compression,
    TuckerConv,
    TuckerKernel,
    TuckerLinear,
    TuckerSpectralConv,
    compress,
    factorised_fno,
    random_start,
    to_dense,
    to_small_convolutions,
    tucker_layer,
    with_compression,
)
from isocline.networks.tucker.algebra import fold, hosvd, mode_product, mode_products, unfold
from isocline.training import Settings, train
from tests.networks.exported import run_onnx

DOUBLE: Any = {"dtype": torch.float64}
LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(6, 7, 3, padding=1), (2, 6, 10)),
    "stride and dilation": (lambda: nn.Conv2d(6, 7, 3, stride=2, padding=(1, 2), dilation=(2, 1)), (2, 6, 9, 8)),
    "no bias, no padding": (lambda: nn.Conv2d(6, 7, (3, 2), bias=False), (2, 6, 9, 8)),
    "same": (lambda: nn.Conv2d(6, 7, (3, 5), padding="same"), (2, 6, 9, 8)),
    "circular": (lambda: nn.Conv2d(6, 7, (3, 5), padding=(1, 2), padding_mode="circular"), (2, 6, 9, 8)),
    "same, reflect": (lambda: nn.Conv2d(6, 7, (3, 4), padding="same", padding_mode="reflect"), (2, 6, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(6, 7, 2, padding="valid"), (1, 6, 4, 3, 5)),
    "one image": (lambda: nn.Conv2d(6, 7, 3, padding=1), (6, 9, 8)),
    "linear": (lambda: nn.Linear(6, 7), (2, 5, 6)),
    "linear, one": (lambda: nn.Linear(6, 7, bias=False), (6,)),
    "Fourier 1d": (lambda: SpectralConv(6, 7, (3,)), (2, 6, 8)),
    "Fourier 2d": (lambda: SpectralConv(6, 7, (2, 3)), (2, 6, 8, 7)),
    "Fourier 3d": (lambda: SpectralConv(6, 7, (2, 2, 2)), (2, 6, 4, 3, 5)),
}
each = pytest.mark.parametrize("name", LAYERS)


def made(name: str) -> tuple[Any, Tensor]:
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    return build().double(), torch.randn(shape, **DOUBLE)


def close(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------------ algebra


def test_mode_products_are_sums_over_indices() -> None:
    torch.manual_seed(0)
    x, a, b = torch.randn(3, 4, 5), torch.randn(2, 3), torch.randn(6, 5)
    close(mode_product(x, a, 0), torch.einsum("ijk,ai->ajk", x, a), 1e-5)
    close(mode_products(x, [a, b], [0, 2]), torch.einsum("ijk,ai,bk->ajb", x, a, b), 1e-5)
    close(unfold(x, 1)[2], x[:, 2].flatten(), 0)
    for mode in range(3):
        close(fold(unfold(x, mode), mode, x.shape), x, 0)


@pytest.mark.parametrize("tolerance", [1e-6, 0.05, 0.3])
def test_the_higher_order_svd_keeps_its_tolerance_with_the_smallest_ranks_of_each_tail(tolerance: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 7, 6, **DOUBLE) * torch.logspace(0, -4, 8, **DOUBLE)[:, None, None]
    x = x * torch.logspace(0, -3, 7, **DOUBLE)[:, None]
    core, factors = hosvd(x, (0, 1, 2), tolerance, (1, 1, 1), x.shape)
    assert (x - mode_products(core, factors, (0, 1, 2))).norm() <= tolerance * x.norm()
    for mode, u in enumerate(factors):
        close(u.mT @ u, torch.eye(u.shape[1], **DOUBLE), 1e-13)
        tails = torch.linalg.svdvals(unfold(x, mode)).square().flip(0).cumsum(0).flip(0).sqrt()
        tau = float(tolerance * x.norm() / 3**0.5)
        assert u.shape[1] == len(tails) or tails[u.shape[1]] <= tau
        assert tails[u.shape[1] - 1] > tau


# ------------------------------------------------------------------------------------------------ layers


@each
def test_at_full_rank_a_layer_is_the_dense_one(name: str) -> None:
    layer, x = made(name)
    tucker: Any = compress(layer, tolerance=0.0)
    close(tucker(x), layer(x))
    close(tucker.weight, layer.weight)


@each
def test_exports_are_the_same_function(name: str) -> None:
    layer, x = made(name)
    tucker: Any = random_start(layer, 3, rng=0)
    for export in (to_dense, to_small_convolutions):
        close(export(tucker)(x), tucker(x), 1e-10)
        single, small = export(tucker.float()), x.float()
        close(single(small), tucker(small), 1e-5)
        tucker.double()
    assert type(to_dense(tucker)) is type(layer)
    assert all("tucker" not in type(m).__module__ for m in to_small_convolutions(tucker).modules())


@each
def test_gradients_are_those_of_the_dense_weight(name: str) -> None:
    """By the chain rule from the gradient of the dense layer, mode by mode."""
    layer, x = made(name)
    tucker: Any = random_start(layer, 3, rng=0)
    kernel: Any = tucker.kernel
    dense: Any = to_dense(tucker)
    (tucker(x) ** 3).sum().backward()
    (dense(x) ** 3).sum().backward()
    g, (u, v) = dense.weight.grad, (f.detach() for f in kernel.factors)
    close(kernel.core.grad, torch.einsum("oi...,oa,ib->ab...", g, u, v), 1e-9)
    spread = torch.einsum("ab...,ib->ai...", kernel.core.detach(), v)
    close(kernel.factors[0].grad, torch.einsum("oi,ai->oa", g.flatten(1), spread.flatten(1)), 1e-9)
    if tucker.bias is not None:
        close(tucker.bias.grad, dense.bias.grad, 1e-9)


def test_modes_of_space_can_have_factors_too() -> None:
    layer, x = made("stride and dilation")
    kernel = TuckerKernel.of(layer.weight, ranks=(4, 4, 2, 2), modes=(0, 1, 2, 3))
    tucker: Any = tucker_layer(layer, kernel)
    assert kernel.ranks == (4, 4, 2, 2)
    assert kernel.shape == tuple(layer.weight.shape)
    for export in (to_dense, to_small_convolutions):
        close(export(tucker)(x), tucker(x))


def test_layers_without_a_tucker_form_are_refused() -> None:
    layer = nn.Conv2d(8, 8, 3, groups=2)
    with pytest.raises(InvalidInput, match="2 groups has no Tucker kernel"):
        tucker_layer(layer, TuckerKernel.of(layer.weight))
    with pytest.raises(InvalidInput, match="no convolution without groups"):
        compress(layer)
    with pytest.raises(InvalidInput, match="a ReLU has no Tucker form"):
        tucker_layer(nn.ReLU(), TuckerKernel.of(layer.weight))


def test_a_kernel_proves_itself() -> None:
    eye = torch.eye(4)
    with pytest.raises(InvalidInput, match="does not fit a core"):
        TuckerKernel(torch.zeros(3, 4), [eye, eye])
    with pytest.raises(InvalidInput, match="is not orthonormal"):
        TuckerKernel(torch.zeros(4, 4), [eye, 2 * eye])
    with pytest.raises(InvalidInput, match="as many factors"):
        TuckerKernel(torch.zeros(4, 4), [eye])
    with pytest.raises(InvalidInput, match="first two modes"):
        TuckerKernel(torch.zeros(4, 4), [eye], (1,))


# ------------------------------------------------------------------------------------------------ networks


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.Flatten(), nn.Linear(144, 10)
    )


def test_compress_keeps_the_tolerance_and_leaves_the_network_alone() -> None:
    model: Any = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    small: Any = compress(model, tolerance=0.3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for old, new in zip(model, small, strict=True):
        if isinstance(new, TuckerConv | TuckerLinear):
            assert (new.weight - old.weight).norm() <= 0.3 * old.weight.norm()
    assert Compression.of(small).stored < Compression.of(compress(model, tolerance=0.01)).stored


def test_where_and_rank_say_what_to_change() -> None:
    small: Any = compress(network(), tolerance=0.0, rank=0.25, where=lambda name, layer: name == "2")
    (layer,) = Compression.of(small).layers
    assert (layer.name, layer.shape, layer.ranks) == ("2", (16, 16, 3, 3), (4, 4))
    assert layer.stored == 4 * 4 * 9 + 2 * 16 * 4
    assert Compression.of(random_start(network(), (5, 2), rng=0)).layers[0].ranks == (5, 2)
    for rank in (0, 0.0, 1.5, (3, 0)):
        with pytest.raises(InvalidInput, match="rank"):
            compress(network(), rank=rank)
    with pytest.raises(InvalidInput, match="tolerance"):
        compress(network(), tolerance=-1.0)


def test_subclasses_shared_layers_modes_and_frozen_layers() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, shared, nn.MultiheadAttention(8, 2)).eval().requires_grad_(False)
    small: Any = compress(model)
    assert small[0] is small[1]
    assert not small[0].training
    assert not any(p.requires_grad for p in small.parameters())
    assert type(small[2].out_proj) is type(model[2].out_proj)


def test_a_random_start_has_the_size_of_the_dense_kernel_and_its_own_numbers() -> None:
    model: Any = network()
    starts: list[Any] = [random_start(model, 0.5, rng=seed) for seed in (0, 0, 1)]
    a, b, c, old = (m[0].weight for m in (*starts, model))
    assert float((a.norm() / old.norm()).detach()) == pytest.approx(1, rel=1e-5)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_state_brings_its_ranks() -> None:
    saved: Any = random_start(network(), 0.25, rng=0)
    other: Any = random_start(network(), 0.5, rng=1)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    parameters = list(other.parameters())
    other.load_state_dict(torch.load(file, weights_only=True))
    assert Compression.of(other) == Compression.of(saved)
    assert all(a is b for a, b in zip(other.parameters(), parameters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), saved.parameters(), strict=True))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(other(x), saved(x))
    with pytest.raises(Mismatch, match="another kernel"):
        TuckerKernel.of(torch.eye(3)).load_state_dict(TuckerKernel.of(torch.eye(4)).state_dict())


def test_exports_keep_names_of_other_parameters_and_drop_what_does_not_pay() -> None:
    model: Any = random_start(network(), 1.0, rng=0)
    assert type(list(to_small_convolutions(model).children())[2]) is nn.Conv2d
    assert set(to_dense(model).state_dict()) == set(network().state_dict())


@pytest.mark.parametrize("modes", [(4,), (3, 3)])
def test_a_compressed_operator_runs_at_other_resolutions(modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    small: Any = random_start(FNO(1, 1, modes, width=8, depth=2), 0.5, rng=0)
    for n in (8, 20):
        x = torch.randn(2, 1, *(n,) * len(modes))
        close(to_small_convolutions(small)(x), small(x), 1e-5)


# ------------------------------------------------------------------------------------------------ reports


def test_compression_counts_every_parameter_once() -> None:
    model: Any = random_start(network(), 0.25, rng=0, where=lambda name, layer: name != "0")
    found = Compression.of(model)
    assert found.stored + found.others == sum(p.numel() for p in model.parameters())
    assert found.dense + found.others == sum(p.numel() for p in network().parameters())
    assert found.saved == 1 - found.stored / found.dense
    assert found.note() == f"kernels {100 * found.stored / found.dense:.1f} %"
    assert "ranks (4, 4), 272 of 2304" in str(found)
    with pytest.raises(InvalidInput, match="no Tucker layer"):
        Compression.of(network())


def test_the_training_loop_logs_it(tmp_path: Path) -> None:
    model: Any = random_start(network(), 0.25, rng=0)
    x, seen = torch.randn(4, 3, 8, 8), list[tuple[int, dict[str, float]]]()
    log = with_compression(model, lambda step, figures: seen.append((step, figures)))
    loss = lambda net, batch, step, part: net(batch).square().mean()  # noqa: E731
    train(model, lambda step, part: x, loss, Settings(steps=20, batch=4), tmp_path, logs=[log])
    ((step, figures),) = seen
    assert step == 20
    assert figures["kernel parameters"] == Compression.of(model).stored
    assert figures["rank/2/0"] == 4
    assert {"loss", "rate", "seconds", "kernel saved"} <= set(figures)


@pytest.mark.slow
@pytest.mark.parametrize("export", [lambda m: m, to_dense, to_small_convolutions])
def test_runs_in_onnx(export: Any, tmp_path: Path) -> None:
    model, x = export(random_start(network(), 0.25, rng=0)), torch.randn(2, 3, 8, 8)
    close(run_onnx(model, x, tmp_path / "model.onnx"), model(x).detach(), 1e-5)


def test_a_factorised_operator_is_smaller_and_learns() -> None:
    torch.manual_seed(0)
    net = factorised_fno(1, 1, (4,), width=16, depth=2, rank=0.25)
    kernels = [m.kernel for m in net.modules() if isinstance(m, TuckerSpectralConv)]
    assert [k.ranks for k in kernels] == [(4, 4)] * 2
    x = torch.randn(8, 1, 32)
    assert torch.allclose(net(x), to_dense(net)(x), atol=1e-5)
    torch.manual_seed(0)
    again = factorised_fno(1, 1, (4,), width=16, depth=2, rank=0.25)
    assert torch.equal(net(x), again(x))
    smooth = torch.fft.irfft(torch.fft.rfft(x)[..., :4], n=32)  # the low frequencies
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        loss = (net(x) - smooth).square().mean() / smooth.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.05
