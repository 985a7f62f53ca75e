"""Log-signatures: figures of pySigLib, identities, invariances and closed forms."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import logsignature, lyndon_words, signature
from isocline.integrators.logsignature import lyndon_coordinates, tensor_log

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def points(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def zigzag() -> Tensor:
    """A fixed path of five corners in three dimensions."""
    k = torch.arange(5, **DOUBLE)[:, None]
    return torch.sin((k + 1) * torch.tensor([1.0, 2.0, 3.0], **DOUBLE))


# pysiglib 4.0.0, log_sig(path, 3, method=2): Lyndon basis
PYSIGLIB = """
    -1.8003952594710348 -1.4533185377150513 0.5091678320972494 -0.36824914778477524 -0.7011467912790303
    -0.5558299257818096 -0.8480369759837673 0.20227131065474624 -0.12275099771273373 -0.3536963394438169
    -0.10780659478585039 -0.1809805985941887 0.12003058761358432 -0.13860195811719261
"""


def test_the_figures_of_pysiglib() -> None:
    expected = torch.tensor([float(x) for x in PYSIGLIB.split()], **DOUBLE)
    torch.testing.assert_close(logsignature(zigzag(), 3), expected, rtol=0, atol=1e-13)
    assert torch.equal(logsignature(zigzag(), 2), logsignature(zigzag(), 3)[:6])


def brute(path: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Iterated integrals as sums over ordered segments; ties carry the volume of their simplex, 1 / (multiplicities)!."""
    d, c = path.diff(dim=0), path.shape[-1]
    levels = [torch.zeros((c,) * k, **DOUBLE) for k in (1, 2, 3)]
    for k in (1, 2, 3):
        for order in combinations_with_replacement(range(len(d)), k):
            weight = math.prod(math.factorial(order.count(i)) for i in set(order))
            product = d[order[0]]
            for i in order[1:]:
                product = product[..., None] * d[i]
            levels[k - 1] += product / weight
    return levels[0], levels[1], levels[2]


def test_levels_are_iterated_sums() -> None:
    for seed in range(3):
        path = points(seed, 6, 3)
        for found, expected in zip(signature(path, 3), brute(path), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def outer(a: Tensor, b: Tensor) -> Tensor:
    return torch.tensordot(a, b, dims=0)


def test_chens_identity() -> None:
    path = points(1, 9, 3)
    (a1, a2, a3), (b1, b2, b3) = signature(path[:5], 3), signature(path[4:], 3)
    whole = signature(path, 3)
    torch.testing.assert_close(whole[0], a1 + b1)
    torch.testing.assert_close(whole[1], a2 + outer(a1, b1) + b2)
    torch.testing.assert_close(whole[2], a3 + outer(a2, b1) + outer(a1, b2) + b3)


def test_shuffle_products() -> None:
    s1, s2, s3 = signature(points(2, 7, 3), 3)
    torch.testing.assert_close(outer(s1, s1), s2 + s2.mT)
    # i with jk: ijk + jik + jki
    torch.testing.assert_close(outer(s1, s2), s3 + s3.permute(1, 0, 2) + s3.permute(2, 0, 1), rtol=0, atol=1e-12)


def test_the_logarithm_is_a_lie_series() -> None:
    _, l2, l3 = tensor_log(signature(points(3, 7, 3), 3))
    torch.testing.assert_close(l2, -l2.mT, rtol=0, atol=1e-13)
    # Dynkin: bracketing [[i, j], k] of all words of a Lie element of degree 3 gives 3 times the element
    dynkin = l3 - l3.permute(1, 0, 2) - l3.permute(2, 0, 1) + l3.permute(2, 1, 0)
    torch.testing.assert_close(dynkin, 3 * l3, rtol=0, atol=1e-12)


def expanded(word: tuple[int, ...], c: int) -> Tensor:
    """The bracket of a Lyndon word by its standard factorisation, as a tensor."""
    if len(word) == 1:
        return torch.eye(c, **DOUBLE)[word[0]]
    cut = next(i for i in range(1, len(word)) if all(word[i:] < word[j:] for j in range(i + 1, len(word))))
    a, b = expanded(word[:cut], c), expanded(word[cut:], c)
    return outer(a, b) - outer(b, a)


@pytest.mark.parametrize("c", [1, 2, 3, 4])
def test_coordinates_times_brackets_are_the_logarithm(c: int) -> None:
    path = points(4, 8, c)
    coordinates, levels = logsignature(path, 3), tensor_log(signature(path, 3))
    total = [torch.zeros_like(x) for x in levels]
    for word, x in zip(lyndon_words(c, 3), coordinates, strict=True):
        total[len(word) - 1] += x * expanded(word, c)
    for found, expected in zip(total, levels, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(lyndon_coordinates(levels), coordinates)


def test_the_number_of_coordinates_is_witts() -> None:
    for c in range(1, 7):
        assert len(lyndon_words(c, 3)) == c + c * (c - 1) // 2 + (c**3 - c) // 3


def test_invariances() -> None:
    path = points(5, 6, 3)
    whole = logsignature(path, 3)
    torch.testing.assert_close(logsignature(path + 7.0, 3), whole, rtol=0, atol=1e-12)
    middle = torch.lerp(path[:-1], path[1:], torch.rand(5, 1, generator=torch.Generator().manual_seed(0), **DOUBLE))
    refined = torch.stack([path[:-1], middle, middle], 1).flatten(0, 1)  # another speed, with pauses
    torch.testing.assert_close(logsignature(torch.cat([refined, path[-1:]]), 3), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(logsignature(path.flip(0), 3), -whole, rtol=0, atol=1e-12)
    there_and_back = torch.cat([path, path.flip(0)])
    torch.testing.assert_close(logsignature(there_and_back, 3), torch.zeros_like(whole), rtol=0, atol=1e-12)


def test_a_straight_line_has_depth_one() -> None:
    found = logsignature(torch.linspace(0, 1, 9, **DOUBLE)[:, None] * torch.tensor([2.0, -1.0, 0.5], **DOUBLE), 3)
    torch.testing.assert_close(found[:3], torch.tensor([2.0, -1.0, 0.5], **DOUBLE))
    assert float(found[3:].abs().max()) < 1e-14


def test_a_circle_has_its_area() -> None:
    angle = torch.linspace(0, 2 * math.pi, 4001, **DOUBLE)
    found = logsignature(torch.stack([torch.cos(angle), torch.sin(angle)], -1), 3)
    expected = torch.tensor([0.0, 0.0, math.pi, 0.0, -math.pi], **DOUBLE)
    # third level: the area, moved to where the circle starts, (1, 0)
    torch.testing.assert_close(found[:3], expected[:3], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[3:].abs().sort().values, torch.tensor([0.0, math.pi], **DOUBLE), rtol=0, atol=1e-5)


def test_batches_and_gradients() -> None:
    batch = points(6, 2, 3, 5, 2)
    found = logsignature(batch, 3)
    assert found.shape == (2, 3, 5)
    torch.testing.assert_close(found[1, 2], logsignature(batch[1, 2], 3), rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: logsignature(x, 3), points(7, 2, 5, 2).requires_grad_())
    assert logsignature(batch[..., :1, :], 3).abs().max() == 0.0  # one point


@pytest.mark.parametrize("depth", [0, 4])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(InvalidInput, match=f"depth is 1, 2 or 3, got {depth}"):
        signature(torch.zeros(3, 2), depth)
    with pytest.raises(InvalidInput, match=r"points must have shape \(\*, T, C\), got \(3,\)"):
        signature(torch.zeros(3), 2)
