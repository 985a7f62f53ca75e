"""What decides in every study: bars, intervals, slopes, the exit code, the stored tables."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import numpy as np
import pytest

from isocline._core.estimate import Estimate
from studies import verdict
from studies.verdict import Claim, Panel, Study, above, below, main, near, slope, spread

GOOD, BAD = below("small", 1.0, 2.0), below("small", 3.0, 2.0)


def test_the_examples_are_right() -> None:
    assert doctest.testmod(verdict).failed == 0


def test_a_bar_is_met_by_the_whole_interval_or_not_at_all() -> None:
    wide, narrow = Estimate(1.0, 0.5, 1.5), Estimate(1.0, 0.95, 1.05)
    assert near("x", narrow, 1.0, 0.1).holds
    assert not near("x", wide, 1.0, 0.1).holds
    assert below("x", wide, 1.5).holds
    assert not below("x", wide, 1.4).holds
    assert above("x", wide, 0.5).holds
    assert not above("x", wide, 0.6).holds


@pytest.mark.parametrize(
    "make", [lambda x: near("x", x, 0.0, 1e9), lambda x: below("x", x, 1e9), lambda x: above("x", x, -1e9)]
)
def test_nan_fails_every_bar(make: object) -> None:
    assert callable(make)
    assert not make(math.nan).holds
    assert make(0.0).holds


def test_the_slope_of_a_noisy_line_lies_in_its_interval_and_a_curve_has_a_wide_one() -> None:
    x = np.geomspace(1, 1000, 30)
    noise = np.random.default_rng(0).normal(size=30)
    found = slope(x, 3 * x**-1.5 * np.exp(0.05 * noise))
    assert found.low < -1.5 < found.high
    assert found.high - found.low < 0.05
    curved = slope(x, x**-1.5 + 0.01)
    assert curved.high - curved.low > 0.1


def test_a_spread_is_the_range_even_of_equal_values() -> None:
    third = 1 / 3
    found = spread([third] * 7)
    assert found.low == found.value == found.high == third
    assert spread([1.0, 2.0, 6.0]) == Estimate(3.0, 1.0, 6.0, 1.0, 3)


@pytest.mark.parametrize(("claims", "code"), [([GOOD], 0), ([GOOD, BAD], 1), ([BAD], 1), ([], 1)])
def test_one_failed_claim_is_an_error_and_so_is_none(
    claims: list[Claim], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("some_study", None, lambda quick: Study(claims), ["--quick"]) == code
    out = capsys.readouterr().out
    assert ("FAIL: some_study" in out) == bool(code)
    assert out.count("| FAIL |") == sum(not claim.holds for claim in claims)


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    quick_seen = []

    def run(quick: bool) -> Study:
        quick_seen.append(quick)
        return Study([below("small", np.float64(1.0), 2.0), BAD])

    assert main("some_study", None, run, ["--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert quick_seen == [False]
    assert [claim["holds"] for claim in found["claims"]] == [True, False]
    assert not found["holds"]


def test_a_picture_is_drawn_only_where_one_is_wanted(tmp_path: Path) -> None:
    drawn = []

    def panels() -> list[Panel]:
        drawn.append(1)
        return [Panel("title", "x", "y", {"line": ([1.0, 2.0], [3.0, 4.0])})]

    main("some_study", None, lambda quick: Study([GOOD], panels), [])
    assert not drawn
    main("some_study", None, lambda quick: Study([GOOD], panels), ["--picture", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_full_form_alone_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- some_study -->\nold\n<!-- end of some_study -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(verdict, "STORED", tmp_path)
    monkeypatch.setattr(verdict, "PAGE", page)
    with pytest.raises(SystemExit):
        main("some_study", None, lambda quick: Study([GOOD]), ["--store", "--quick"])
    panel = Panel("title", "x", "y", {"line": ([1.0, 2.0], [3.0, 4.0])})
    main("some_study", None, lambda quick: Study([GOOD], lambda: [panel]), ["--store"])
    assert page.read_text(encoding="utf-8") == (
        f"before\n<!-- some_study -->\n{verdict.table([GOOD])}\n<!-- end of some_study -->\nafter\n"
    )
    assert verdict.stored("some_study") == [GOOD]
