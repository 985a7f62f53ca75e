"""Tables of series: what is read, and one clear line for everything that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline.datasets.panel import Panel, read_panel


def written(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_rows_in_any_order_with_gaps(tmp_path: Path) -> None:
    path = written(tmp_path, "id, t,x,y\nb,2.5,1,\na,1,2,3\n\na,0.5,NA,4\nb,1,5,6\n")
    panel = read_panel(path, time="t", values=["x", "y"], series="id")
    assert panel.names == ("b", "a")
    assert panel.times[1].tolist() == [0.5, 1.0]
    assert torch.equal(panel.values[1].nan_to_num(-1.0), torch.tensor([[-1.0, 4.0], [2.0, 3.0]], dtype=torch.float64))
    assert not panel.dates
    assert panel.shown(0.5) == "0.5"


@pytest.mark.parametrize(
    ("cells", "gap"),
    [
        (("2024-02-28", "2024-03-01"), 2.0),
        (("20240228", "20240301"), 2.0),
        (("2024/02/28", "2024/03/01"), 2.0),
        (("2024-05-01T12:00", "2024-05-02T00:00:00"), 0.5),
        (("2024-05-01T12:00:00Z", "2024-05-01T12:00:00-06:00"), 0.25),
    ],
)
def test_dates_are_days(tmp_path: Path, cells: tuple[str, str], gap: float) -> None:
    panel = read_panel(written(tmp_path, f"time,value\n{cells[0]},1\n{cells[1]},2\n"), time="time", values=["value"])
    assert panel.dates
    assert abs(float(panel.times[0].diff()) - gap) < 1e-9


def test_dates_are_shown_as_dates(tmp_path: Path) -> None:
    panel = read_panel(written(tmp_path, "time,value\n2024-02-28,1\n2024-03-01,2\n"), time="time", values=["value"])
    assert panel.shown(float(panel.times[0][0])) == "2024-02-28"
    assert panel.shown(float(panel.times[0][0]) + 0.25) == "2024-02-28T06:00:00"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("time,value\n1,2\n1,3\n", BadFile, "rows 2 and 3: the same 'time' twice"),
        (
            "time,value\n1,2\n2,abc\n",
            BadFile,
            "row 3, column 'value': 'abc' is not a number; leave a missing value empty",
        ),
        ("time,value\n1,2\n2,inf\n", BadFile, "row 3, column 'value': the value is not finite"),
        ("time,value\n1,2\nnan,3\n", BadFile, "row 3, column 'time': 'nan' is not a finite number"),
        ("time,value\n1,2\n", InvalidInput, "has one row"),
        ("time,value\n1,\n2,NA\n", InvalidInput, "no value at all in column 'value'"),
        ("time,valu\n1,2\n2,3\n", InvalidInput, "Did you mean 'valu'"),
        ("time,value\n1,2\n2\n", BadFile, "row 3: 1 cells, and the header has 2"),
        ("time,value\n2024-05-01,2\n2024-15-01,3\n", BadFile, "row 3, column 'time': '2024-15-01' is not a date"),
        ("", InvalidInput, "no rows below its header"),
        ("time,value\n,,\n", InvalidInput, "no rows below its header"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_panel(written(tmp_path, text), time="time", values=["value"])


def test_a_missing_file_and_missing_names(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="there is no file"):
        read_panel(tmp_path / "none.csv", time="t", values=["x"])
    with pytest.raises(InvalidInput, match="at least one column"):
        read_panel(written(tmp_path, "t\n1\n"), time="t", values=[])


def test_a_panel_checks_itself() -> None:
    t, x = torch.arange(3.0), torch.zeros(3, 1)
    cases: list[tuple[Any, str]] = [
        (((), ("x",), (), ()), "at least one series"),
        ((("a",), ("x",), (t,), ()), "differ in number"),
        ((("a",), ("x",), (t.flip(0),), (x,)), "must increase"),
        ((("a",), ("x", "y"), (t,), (x,)), "values of shape"),
    ]
    for parts, message in cases:
        with pytest.raises(InvalidInput, match=message):
            Panel(*parts)
