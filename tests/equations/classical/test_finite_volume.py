"""Finite volumes: limiter, ghost cells, steps, conservation, cases that do not see each other, errors, gradients."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.equations.classical.euler import Euler
from isocline.equations.classical.finite_volume import FiniteVolume, Kind, averaged, extended, faces, limited
from isocline.equations.classical.shallow_water import ShallowWater

D = torch.float64


def gas(n: int, size: int, seed: int = 0) -> Tensor:
    """Return random primitive states (n, 4, size, size) with jumps from cell to cell."""
    z = torch.rand(n, 4, size, size, dtype=D, generator=torch.Generator().manual_seed(seed))
    return z + torch.tensor([0.5, -0.5, -0.5, 0.5], dtype=D).reshape(4, 1, 1)


def solver(size: int, kind: Kind, **more: float) -> FiniteVolume:
    return FiniteVolume(Euler(), (1 / size,) * 2, (kind,) * 2, **more)  # type: ignore[arg-type]


def test_the_limiter_is_that_of_its_table() -> None:
    a, b = torch.tensor([1.0, 2.0, -1.0, 1.0, 0.0]), torch.tensor([3.0, 2.0, -4.0, -1.0, 5.0])
    assert limited(a, b, 1.0).tolist() == [1.0, 2.0, -1.0, 0.0, 0.0]
    assert limited(a, b, 2.0).tolist() == [2.0, 2.0, -2.0, 0.0, 0.0]
    assert limited(a, b, 1.5).tolist() == [1.5, 2.0, -1.5, 0.0, 0.0]


def test_a_line_is_continued_exactly() -> None:
    w = torch.arange(8, dtype=D).reshape(1, 1, 8)
    left, right = faces(w, 0)
    expected = torch.arange(1.5, 6.5, dtype=D).reshape(1, 1, 5)
    assert torch.equal(left, expected)
    assert torch.equal(right, expected)


def test_ghost_cells() -> None:
    w = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).reshape(1, 2, 3)
    assert extended(w, 0, "periodic")[0, 0].tolist() == [2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0]
    assert extended(w, 0, "open")[0, 1].tolist() == [4.0, 4.0, 4.0, 5.0, 6.0, 6.0, 6.0]
    walls = extended(w, 0, "wall")[0]
    assert walls[0].tolist() == [2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 2.0]
    assert walls[1].tolist() == [-5.0, -4.0, 4.0, 5.0, 6.0, -6.0, -5.0]  # the velocity into the wall is mirrored


def test_averages_over_blocks() -> None:
    u = torch.rand(3, 2, 6, 9, dtype=D)
    torch.testing.assert_close(averaged(u, 3, 2)[1, 0, 1, 2], u[1, 0, 3:6, 6:9].mean())


@dataclass(frozen=True)
class Decay(FiniteVolume):
    """u' = -u, for the order of steps."""

    def rate(self, u: Tensor) -> Tensor:
        """Return -u."""
        return -u


@pytest.mark.parametrize(("order", "expected"), [(2, 1 - 0.5 + 0.125), (3, 1 - 0.5 + 0.125 - 0.125 / 6)])
def test_steps_are_taylor_polynomials_of_their_order(order: int, expected: float) -> None:
    u = Decay(ShallowWater(), (1.0,), ("periodic",), order=order).step(
        torch.ones(1, 2, 3, dtype=D), torch.tensor([0.5])
    )
    torch.testing.assert_close(u, torch.full_like(u, expected))


@pytest.mark.parametrize("order", [2, 3])
def test_periodic_flow_keeps_mass_momentum_and_energy(order: int) -> None:
    law = Euler()
    u = law.conserved(gas(2, 12))
    after = solver(12, "periodic", order=order).advance(u, 0.0, 0.1)
    assert float((after - u).abs().max()) > 0.1
    before = u.mean((2, 3))
    assert float((after.mean((2, 3)) - before).abs().max()) < 1e-12


def test_walls_keep_mass_and_energy_and_stop_the_flow_through_them() -> None:
    u = Euler().conserved(gas(2, 12))
    after = solver(12, "wall").advance(u, 0.0, 0.1)
    drift = (after - u).mean((2, 3)).abs().amax(0)
    assert float(drift[[0, 3]].max()) < 1e-12
    assert float(drift[[1, 2]].min()) > 1e-6  # walls push


def test_open_ends_let_waves_out() -> None:
    law = ShallowWater()
    w = torch.zeros(1, 2, 20, dtype=D)
    w[:, 0, :10], w[:, 0, 10:] = 2.0, 1.0
    after = law.primitive(FiniteVolume(law, (0.05,), ("open",)).advance(law.conserved(w), 0.0, 2.0))
    assert float(torch.diff(after).abs().max()) < 1e-3
    # what stays is the state between the rarefaction and the bore, which have left: v + 2 c is that of the left
    h, v = after[0, :, 0].tolist()
    assert abs(v + 2 * h**0.5 - 2 * 2**0.5) < 0.01
    assert abs(v - (h - 1) * (0.5 * (h + 1) / h) ** 0.5) < 0.03


def test_cases_do_not_see_each_other() -> None:
    u = Euler().conserved(gas(8, 8))
    u[4, 3] *= 20  # a hot case that takes many more steps
    together, alone = (solver(8, "periodic").advance(part, 0.0, 0.05) for part in (u, u[3:6]))
    assert float((together[3:6] - alone).abs().max()) < 1e-12


def test_a_negative_pressure_is_named_with_time_case_and_cell() -> None:
    w = gas(3, 8)
    w[1, 3, 2, 5] = -0.25
    with pytest.raises(NotFinite, match=r"the pressure is -0\.25 at t = 0\.5 in case 11, cell \(2, 5\)"):
        solver(8, "periodic").advance(Euler().conserved(w), 0.5, 1.0, first=10)


def test_a_run_that_breaks_down_says_when_and_where() -> None:
    w = gas(2, 8)
    w[1, 1, :4], w[1, 1, 4:], w[1, 3] = -60.0, 60.0, 0.01  # torn apart
    with pytest.raises(NotFinite, match=r"is .* at t = 0\.0\d+ in case 1, cell \(\d, \d\)"):
        solver(8, "open", cfl=1.0, theta=2.0).advance(Euler().conserved(w), 0.0, 1.0)


def test_gradients_flow_through_steps() -> None:
    law = ShallowWater()
    fv = FiniteVolume(law, (0.1, 0.1), ("periodic", "wall"))
    w = torch.rand(1, 3, 5, 5, dtype=D, generator=torch.Generator().manual_seed(3)) + 0.5
    u = law.conserved(w).requires_grad_()
    (found,) = torch.autograd.grad(fv.advance(u, 0.0, 0.04)[0, 0, 2, 2], u)
    # the number of steps is fixed by the states, not differentiated: compare at the same one
    shift = torch.zeros_like(w)
    shift[0, 1, 2, 1] = 1e-6
    ahead, behind = (fv.advance(law.conserved(w) + s * shift, 0.0, 0.04)[0, 0, 2, 2] for s in (1, -1))
    assert abs(float((ahead - behind) / 2e-6 - found[0, 1, 2, 1])) < 1e-6
    assert float(found.abs().sum()) > 0.1


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="theta lies between"):
        solver(8, "periodic", theta=3.0)
    with pytest.raises(InvalidInput, match="one or two axes"):
        FiniteVolume(ShallowWater(), (0.1,), ("periodic", "open"))
    with pytest.raises(InvalidInput, match="periodic, open or wall"):
        FiniteVolume(ShallowWater(), (0.1,), ("closed",))  # type: ignore[arg-type]
