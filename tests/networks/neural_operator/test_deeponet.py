import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.networks.neural_operator.deeponet import CloudBranch, DeepONet, SensorBranch

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_sensors() -> DeepONet:
    torch.manual_seed(1)
    network = DeepONet(SensorBranch(6, 2, 5 * 3, width=8), 2, 3, basis=5, width=8).double()
    with torch.no_grad():
        network.bias.copy_(torch.tensor([0.3, -0.7, 1.1]))
    return network


def cloud(sizes: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = torch.rand(sum(sizes), 2, generator=seeded(seed), dtype=F64)
    a = torch.randn(sum(sizes), 1, generator=seeded(seed + 1), dtype=F64)
    w = torch.rand(sum(sizes), generator=seeded(seed + 2), dtype=F64)
    return x, a, w, torch.tensor([0, *np.cumsum(sizes).tolist()])


def test_network_is_the_sum_over_the_basis() -> None:
    network = with_sensors()
    a, y = torch.randn(4, 6, 2, generator=seeded(), dtype=F64), torch.rand(7, 2, generator=seeded(1), dtype=F64)
    b, t = network.branch(a).reshape(4, 5, 3), network.trunk(y).reshape(7, 5, 3)
    naive = torch.zeros(4, 7, 3, dtype=F64)
    for i in range(4):
        for q in range(7):
            naive[i, q] = sum((b[i, k] * t[q, k] for k in range(5)), network.bias)
    torch.testing.assert_close(network((a,), y), naive)


def test_own_points_of_each_case_are_those_of_the_shared_form() -> None:
    network = with_sensors()
    a, y = torch.randn(3, 6, 2, generator=seeded(), dtype=F64), torch.rand(9, 2, generator=seeded(1), dtype=F64)
    shared, own = network((a,), y), network((a,), y, torch.tensor([0, 4, 4, 9]))
    torch.testing.assert_close(own, torch.cat([shared[0, :4], shared[2, 4:]]))


def test_value_at_a_point_depends_on_no_other_point() -> None:
    network = with_sensors()
    a, y = torch.randn(2, 6, 2, generator=seeded(), dtype=F64), torch.rand(9, 2, generator=seeded(1), dtype=F64)
    whole = network((a,), y)
    torch.testing.assert_close(network((a,), y[[7, 2]]), whole[:, [7, 2]])
    torch.testing.assert_close(network((a[1:],), y), whole[1:])


def test_output_is_affine_in_the_coefficients() -> None:
    network = with_sensors()
    y = torch.rand(7, 2, generator=seeded(), dtype=F64)
    b, c = torch.randn(2, 4, 15, generator=seeded(1), dtype=F64)
    at = {name: network.combine(value, y) - network.bias for name, value in (("b", b), ("c", c), ("bc", 2 * b - 3 * c))}
    torch.testing.assert_close(at["bc"], 2 * at["b"] - 3 * at["c"])
    zero = network.combine(torch.zeros_like(b), y)
    torch.testing.assert_close(zero, network.bias.expand_as(zero))


def test_each_output_has_coefficients_of_its_own() -> None:
    network = with_sensors()
    y, b = torch.rand(7, 2, generator=seeded(), dtype=F64), torch.randn(1, 15, generator=seeded(1), dtype=F64)
    moved = b.clone().reshape(1, 5, 3)
    moved[:, :, 1] += 1
    change = (network.combine(moved.flatten(1), y) - network.combine(b, y)).detach().abs().amax((0, 1))
    assert (change > 1e-9).tolist() == [False, True, False]


def test_cloud_branch_is_the_loop_over_cases() -> None:
    torch.manual_seed(1)
    branch = CloudBranch(2, 1, 6, width=8).double()
    x, a, w, offsets = cloud((7, 0, 12))
    naive = []
    for i, j in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        terms = [w[k] * branch.phi(torch.cat([x[k], a[k]])) for k in range(i, j)]
        naive.append(branch.rho(sum(terms, torch.zeros(8, dtype=F64))))
    torch.testing.assert_close(branch(x, a, w, offsets), torch.stack(naive))
    order = torch.cat([torch.randperm(7, generator=seeded(3)), 7 + torch.randperm(12, generator=seeded(4))])
    torch.testing.assert_close(branch(x[order], a[order], w[order], offsets), branch(x, a, w, offsets))


def test_cloud_branch_converges_at_the_order_of_the_midpoint_rule() -> None:
    torch.manual_seed(1)
    network = DeepONet(CloudBranch(1, 1, 8, width=16), 1, 1, basis=8, width=8).double()
    y = torch.tensor([[0.2], [0.7]], dtype=F64)

    @torch.no_grad()
    def at(n: int, *, plain: bool = False) -> Tensor:
        s = (torch.arange(n, dtype=F64) + 0.5)[:, None] / n
        x, w = s**2, 2 * s[:, 0] / n  # nodes of density 1 / (2 sqrt(x))
        w = torch.full_like(w, 1 / n) if plain else w
        result: Tensor = network((x, torch.sin(3 * x), w, torch.tensor([0, n])), y)
        return result

    exact, sizes = at(2000), [8, 16, 32, 64]
    errors = [float((at(n) - exact).norm()) for n in sizes]
    assert abs(np.polyfit(np.log(sizes), np.log(errors), 1)[0] + 2) < 0.15
    assert float((at(2000, plain=True) - exact).norm()) > 10 * errors[0]


def pairs(n: int, places: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random a = sum_k c_k sin(k pi x) / k at 20 sensors, and its integral from 0 at the places."""
    k = torch.arange(1, 5)
    c = torch.randn(n, 4, generator=random) / k
    sensors = torch.linspace(0, 1, 20)
    a = c @ torch.sin(torch.pi * k[:, None] * sensors)
    return a[..., None], (c / (torch.pi * k)) @ (1 - torch.cos(torch.pi * k[:, None] * places))


def trained(seed: int, steps: int = 600) -> DeepONet:
    torch.manual_seed(seed)
    random = seeded(seed)
    network = DeepONet(SensorBranch(20, 1, 24, width=48, depth=1), 1, 1, basis=24, width=48, depth=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        y = torch.rand(32, generator=random)
        a, u = pairs(64, y, random)
        optimiser.zero_grad()
        loss = (network((a,), y[:, None])[..., 0] - u).square().mean()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


@pytest.mark.parametrize("seed", [5, *(pytest.param(s, marks=pytest.mark.slow) for s in range(6, 10))])
def test_integral_is_learnt_better_than_the_best_basis_of_two_functions(seed: int) -> None:
    network = trained(seed)
    y = torch.linspace(0, 1, 101)  # neither these places nor these functions were seen
    a, u = pairs(200, y, seeded(1000 + seed))
    with torch.no_grad():
        found = network((a,), y[:, None])[..., 0]
    best = torch.linalg.svdvals(u)[2:].norm()  # of all approximations of rank two, chosen with the true outputs
    assert float((found - u).norm()) < float(best)


def test_bad_input_is_refused() -> None:
    network = with_sensors()
    a, y = torch.zeros(3, 6, 2, dtype=F64), torch.zeros(9, 2, dtype=F64)
    with pytest.raises(InvalidInput, match="sensors"):
        network((a[:, 1:],), y)
    with pytest.raises(InvalidInput, match="offsets"):
        network((a,), y, torch.tensor([0, 9]))
    with pytest.raises(InvalidInput, match="coefficients"):
        network.combine(torch.zeros(3, 14, dtype=F64), y)
    with pytest.raises(InvalidInput, match="basis"):
        DeepONet(SensorBranch(6, 2, 5), 1, 1, basis=0)
