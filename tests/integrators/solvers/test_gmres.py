from __future__ import annotations

import torch

from isocline._core.stream import Stream
from isocline.integrators.solvers.gmres import gmres


def systems(batch: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = Stream(0)
    matrices = torch.eye(n, dtype=torch.float64) + 0.4 * rng.child("a").normal((batch, n, n)).double() / n**0.5
    return matrices, rng.child("b").normal((batch, n)).double()


def test_solves_what_lu_solves() -> None:
    a, b = systems(4, 12)
    found = gmres(lambda v: (a @ v[..., None])[..., 0], b, 1e-13, 12)
    torch.testing.assert_close(found, torch.linalg.solve(a, b), rtol=1e-11, atol=1e-11)


def test_one_system_needs_no_batch_and_at_most_n_products() -> None:
    a, b = systems(1, 9)
    calls = []
    found = gmres(lambda v: calls.append(1) or a[0] @ v, b[0], 1e-12, 50)  # type: ignore[func-returns-value]
    torch.testing.assert_close(found, torch.linalg.solve(a[0], b[0]), rtol=1e-10, atol=1e-10)
    assert len(calls) <= 9


def test_eigenvalues_that_are_equal_count_once() -> None:
    b = torch.arange(1.0, 31.0, dtype=torch.float64)
    diagonal = torch.where(torch.arange(30) % 3 == 0, 100.0, torch.where(torch.arange(30) % 3 == 1, 10.0, 1.0)).double()
    calls = []
    found = gmres(lambda v: calls.append(1) or diagonal * v, b, 1e-10, 30)  # type: ignore[func-returns-value]
    assert len(calls) == 3
    torch.testing.assert_close(found, b / diagonal, rtol=1e-6, atol=1e-9)


def test_a_row_does_not_see_the_others() -> None:
    a, b = systems(3, 10)
    a[1] = torch.eye(10)  # solved after one product
    b[2] = 0.0  # solved before the first
    together = gmres(lambda v: (a @ v[..., None])[..., 0], b, 1e-6, 10)
    for k in range(3):
        alone = gmres(lambda v, k=k: (a[k : k + 1] @ v[..., None])[..., 0], b[k : k + 1], 1e-6, 10)  # type: ignore[misc]
        torch.testing.assert_close(together[k], alone[0], rtol=1e-14, atol=1e-14)
    assert torch.equal(together[2], torch.zeros(10, dtype=torch.float64))


def test_restarts_go_on_where_the_space_is_too_small() -> None:
    a, b = systems(2, 30)
    short = gmres(lambda v: (a @ v[..., None])[..., 0], b, 1e-10, 5)
    longer = gmres(lambda v: (a @ v[..., None])[..., 0], b, 1e-10, 5, restarts=20)
    exact = torch.linalg.solve(a, b)
    assert float((short - exact).norm()) > 1e-4 > 1e-8 > float((longer - exact).norm())
