"""Running statistics against those of all values at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets import Moments, Statistics
from tests.datasets.test_well import TWO, drawn

yaml = pytest.importorskip("yaml")


def test_pieces_in_any_grouping_give_the_moments_of_all() -> None:
    x = 1e4 + torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, left, right = Moments(), Moments(), Moments()
    for part in x.split([1, 9, 0, 490, 500]):
        whole.add(part)
    left.add(x[:300])
    right.add(x[300:])
    left.merge(right)
    for found in (whole, left):
        assert found.n == 1000
        assert torch.allclose(found.mean, x.mean(0), rtol=1e-13)
        # the mean square minus the squared mean would lose 8 of 16 digits here
        assert torch.allclose(found.std, x.std(0, unbiased=False), rtol=1e-11)
        assert torch.allclose(found.rms, x.square().mean(0).sqrt(), rtol=1e-13)


def test_nothing_merges_into_nothing() -> None:
    empty, other = Moments(), Moments()
    other.add(torch.ones(4, 2))
    other.merge(Moments())
    empty.merge(other)
    assert (empty.n, empty.mean.tolist(), empty.std.tolist()) == (4, [1.0, 1.0], [0.0, 0.0])


def test_stats_yaml_reads_back_by_kind_and_field(tmp_path: Path) -> None:
    given = drawn(n=6)
    v, p, s = (given["fields"][k].double() for k in ("v", "p", "s"))
    frames = torch.cat([v, p[..., None], s.flatten(-2)], -1)
    still = torch.cat([given["constants"]["b"], given["constants"]["a"][..., None]], -1)
    one, two = Statistics(TWO), Statistics(TWO)
    one.add(frames[:2], still[:2])
    two.add(frames[2:], still[2:])
    one.merge(two)
    found = yaml.safe_load(one.write(tmp_path / "stats.yaml").read_text())
    assert sorted(found) == ["mean", "mean_delta", "rms", "rms_delta", "std", "std_delta"]
    assert found["mean"]["p"] == pytest.approx(p.mean().item(), rel=1e-8)
    assert found["std"]["v"] == pytest.approx(v.flatten(0, -2).std(0, unbiased=False).tolist(), rel=1e-8)
    assert found["rms_delta"]["p"] == pytest.approx(p.diff(dim=1).square().mean().sqrt().item(), rel=1e-8)
    tensor = s.diff(dim=1).flatten(0, -3).mean(0).tolist()
    assert found["mean_delta"]["s"] == [pytest.approx(row, rel=1e-7) for row in tensor]
    assert found["mean"]["a"] == pytest.approx(given["constants"]["a"].double().mean().item(), rel=1e-8)
    assert "a" not in found["mean_delta"]


def test_every_number_is_read_as_one(tmp_path: Path) -> None:
    statistics = Statistics(TWO)
    scale = torch.tensor([0.0, 1e-30, 1e30, -5.0, 1.0, 2.0, 3.0])
    statistics.add(scale.expand(2, 3, 4, 6, 7))
    found = yaml.safe_load(statistics.write(tmp_path / "stats.yaml").read_text())
    flat = [*found["mean"]["v"], found["mean"]["p"], *found["mean"]["s"][0], *found["mean"]["s"][1]]
    assert flat == pytest.approx(scale.tolist(), rel=1e-6)
    assert all(isinstance(v, float) for v in flat)


def test_frozen_statistics_stay() -> None:
    statistics = Statistics(TWO)
    with pytest.raises(InvalidInput, match="no data"):
        statistics.as_dict()
    statistics.add(torch.randn(2, 3, 4, 6, 7))
    before = statistics.as_dict()
    statistics.frozen = True
    statistics.add(torch.randn(2, 3, 4, 6, 7))
    assert statistics.as_dict() == before
