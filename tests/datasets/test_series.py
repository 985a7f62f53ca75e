"""Series check themselves; values are dropped at the asked rate; `.ts` files are read; switching paths have their covariance."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline._core.stream import Stream
from isocline.datasets import Series, basic_motions, drop_values, italy_power_demand, japanese_vowels, ou_switching
from isocline.datasets.ou_switching import SIGMA, SPAN, THETA
from isocline.datasets.series import held_out
from isocline.datasets.ts_files import read_ts

NAN = math.nan
HEADER = "#about\n@problemName Toy\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n"


# ---------------------------------------------------------------------------------------------------- series


def series(times: Tensor | None = None, values: Tensor | None = None, labels: Tensor | None = None) -> Series:
    return Series(
        torch.arange(3.0) if times is None else times,
        torch.zeros(2, 3, 1) if values is None else values,
        torch.tensor([0, 1]) if labels is None else labels,
    )


PADDED = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, NAN]])
SHORT = torch.tensor([[[0.0], [NAN], [1.0]], [[0.0], [1.0], [NAN]]])


def test_series_of_unequal_length_are_padded_with_nan() -> None:
    padded = series(PADDED, SHORT)
    part = padded.take(torch.tensor([1]))
    assert part.times.tolist()[0][:2] == [0.0, 0.5]
    assert part.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"times": torch.tensor([0.0, 2.0, 1.0])}, "must increase"),
        ({"times": torch.tensor([0.0, 1.0, 1.0])}, "must increase"),
        ({"times": torch.tensor([0.0, 1.0, math.inf])}, "finite"),
        ({"times": torch.tensor([0.0, 1.0, NAN])}, "share must not be NaN"),
        ({"times": torch.tensor([[0.0, NAN, 2.0], [0.0, 1.0, 2.0]])}, "NaN only at the end"),
        ({"times": torch.tensor([[NAN, NAN, NAN], [0.0, 1.0, 2.0]])}, "at least one time"),
        ({"times": PADDED}, "padded times"),
        ({"times": torch.arange(4.0)}, r"need times \(T,\) or \(N, T\), got \(4,\)"),
        ({"times": torch.arange(3)}, "floating-point"),
        ({"values": torch.full((2, 3, 1), math.inf)}, "must be finite"),
        ({"values": torch.zeros(2, 3)}, r"\(N, T, C\)"),
        ({"values": torch.zeros(0, 3, 1), "labels": torch.zeros(0, dtype=torch.int64)}, "no series"),
        ({"labels": torch.tensor([0])}, "as many labels"),
        ({"labels": torch.tensor([0, -1])}, "at least 0"),
        ({"labels": torch.tensor([0.0, 1.0])}, "integers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, Tensor], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        series(**parts)


def test_a_label_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 class names and a label 1"):
        Series(torch.arange(3.0), torch.zeros(2, 3, 1), torch.tensor([0, 1]), ("only",))


@given(n=st.integers(4, 60), classes=st.integers(1, 4), share=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_a_split_has_every_series_once_and_its_share_of_every_class(
    n: int, classes: int, share: float, seed: int
) -> None:
    labels = torch.arange(n) % classes
    mask = held_out(labels, share, seed)
    for label in range(classes):
        assert abs(int(mask[labels == label].sum()) - share * int((labels == label).sum())) <= 0.5 + 1e-9
    if 0 < int(mask.sum()) < n:
        whole = Series(torch.arange(2.0), torch.arange(n).float()[:, None, None].expand(n, 2, 1), labels)
        first, second = whole.split(share, seed)
        assert sorted([*first.values[:, 0, 0].tolist(), *second.values[:, 0, 0].tolist()]) == list(range(n))


# ---------------------------------------------------------------------------------------------------- missing values


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_the_rate_of_missing_values_is_the_rate(rate: float) -> None:
    gone = drop_values(torch.zeros(200, 30, 5), rate, 3).isnan().double()
    deviation = math.sqrt(rate * (1 - rate) / gone.numel())
    assert abs(float(gone.mean()) - rate) <= 4 * deviation
    assert float((gone.mean((0, 1)) - rate).abs().max()) <= 4 * deviation * math.sqrt(5)  # every channel alike
    assert float((gone.mean((0, 2)) - rate).abs().max()) <= 4.5 * deviation * math.sqrt(30)  # and every time


def test_values_are_dropped_independently() -> None:
    gone = drop_values(torch.zeros(3000, 4, 2), 0.5, 0).isnan().double().flatten(1)
    covariance = torch.cov(gone.T) - torch.eye(8, dtype=torch.float64) / 4
    assert float(covariance.abs().max()) < 4.5 * 0.25 * math.sqrt(2 / 3000)


def test_a_higher_rate_drops_more_of_the_same_and_kept_values_stay() -> None:
    values = Stream(0).normal((20, 9, 3))
    few, many = (drop_values(values, rate, 1) for rate in (0.3, 0.7))
    assert bool((many.isnan() | ~few.isnan()).all())
    assert torch.equal(many[~many.isnan()], values[~many.isnan()])
    assert torch.equal(drop_values(values[:5], 0.3, 1).isnan(), few[:5].isnan())
    assert not torch.equal(drop_values(values, 0.3, 2).isnan(), few.isnan())


@pytest.mark.parametrize("rate", [-0.1, 1.1, NAN])
def test_a_rate_outside_of_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        drop_values(torch.zeros(1, 1, 1), rate, 0)


# ---------------------------------------------------------------------------------------------------- files


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.ts"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_channel_by_channel(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "1,2,?:4,5,6:up\n\n% a comment\n-1e-3 , 0:7,8: down\n")
    rows, labels, names = read_ts(path)
    assert labels == ["up", "down"]
    assert names == ("up", "down")
    assert torch.equal(rows[0].nan_to_num(9.0), torch.tensor([[1.0, 4.0], [2.0, 5.0], [9.0, 6.0]]))
    assert torch.equal(rows[1], torch.tensor([[-1e-3, 7.0], [0.0, 8.0]]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + "1,2:3:up\n", "line 7: a series needs channels of one length"),
        (HEADER + "1,2:3,4:left\n", "line 7: the label 'left' is not in the header"),
        (HEADER + "1,x:3,4:up\n", "line 7: could not convert"),
        (HEADER + "1,inf:3,4:up\n", "line 7: 'inf' is not a finite number"),
        (HEADER + "up\n", "line 7: a series needs channels"),
        (HEADER + "1,2:up\n1:2:down\n", "between 1 and 2 channels"),
        (HEADER, "holds no series"),
        ("1,2:up\n", "no line @data"),
        (HEADER.replace("timeStamps false", "timeStamps true"), "time stamps"),
        (HEADER.replace("@classLabel true up down", "@classLabel false"), "no class labels"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadFile, match=said) as error:
        read_ts(written(tmp_path, text))
    assert "toy.ts" in str(error.value)


def test_a_loader_reads_both_parts_and_pads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, rows in (("TRAIN", "1,2,?:4,5,6:up\n1,2:3,4:down\n"), ("TEST", "0,1:1,0:down\n")):
        (tmp_path / f"JapaneseVowels_{part}.ts").write_text(HEADER + rows)
    train, test = japanese_vowels(tmp_path)
    assert train.times.isnan().tolist() == [[False] * 3, [False, False, True]]
    assert train.values.isnan().sum().item() == 3
    assert test.times.tolist() == [0.0, 1.0]
    assert (train.labels.tolist(), test.labels.tolist(), train.names) == ([0, 1], [1], ("up", "down"))
    monkeypatch.setenv("ISOCLINE_DATA", str(tmp_path / "data"))
    with pytest.raises(DataMissing, match="run `isocline data fetch time-series`"):
        basic_motions()


def test_the_packaged_sets_have_their_published_sizes() -> None:
    try:
        motions, vowels, power = basic_motions(), japanese_vowels(), italy_power_demand()
    except DataMissing as error:
        pytest.skip(str(error))
    assert (len(motions.train), len(motions.test), *motions.train.values.shape[1:]) == (40, 40, 100, 6)
    assert (len(vowels.train), len(vowels.test), vowels.train.channels) == (270, 370, 12)
    lengths = torch.cat([part.times.isfinite().sum(1) for part in vowels])
    assert (int(lengths.min()), int(lengths.max())) == (7, 29)
    assert vowels.train.labels.bincount().tolist() == [30] * 9
    assert (len(power.train), len(power.test), *power.train.values.shape[1:]) == (67, 1029, 24, 1)


# ---------------------------------------------------------------------------------------------------- switching paths


def covariance(rate: float, gap: float) -> float:
    fast, slow = THETA, 2 * rate
    regimes = THETA / (fast**2 - slow**2) * (fast * math.exp(-slow * gap) - slow * math.exp(-fast * gap))
    return SIGMA**2 / (2 * THETA) * math.exp(-THETA * gap) + regimes


@pytest.mark.parametrize("seed", range(3))
def test_switching_paths_have_the_closed_covariance(seed: int) -> None:
    rates, n = (0.2, 1.0, 4.0), 6000
    found = ou_switching(n, seed, times=6, rates=rates, substeps=200)
    for label, rate in enumerate(rates):
        y = found.values[found.labels == label, :, 0].double()
        assert float(y.mean(0).abs().max()) < 4.5 / math.sqrt(len(y))
        for lag in (0, 1, 2):
            products = (y[:, : 6 - lag] * y[:, lag:]).mean(1)  # over times, then over independent paths
            error = float(products.std()) / math.sqrt(len(y))
            assert abs(float(products.mean()) - covariance(rate, lag * SPAN / 5)) < 4 * error + 0.01


def test_a_chain_that_never_switches_stays_in_its_regime() -> None:
    y = ou_switching(4000, 0, times=5, rates=(0.0,)).values[:, :, 0].double()
    inside = y - y.mean(1, keepdim=True).sign()
    assert abs(float(inside.std()) - SIGMA / math.sqrt(2 * THETA)) < 0.01


@pytest.mark.parametrize("settings", [{"times": 1}, {"rates": (-1.0,)}, {"rates": ()}, {"substeps": 0}])
def test_switching_paths_refuse_bad_sizes(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        ou_switching(4, 0, **settings)  # type: ignore[arg-type]
