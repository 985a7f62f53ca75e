r"""Panels: several time series of the same quantities, each with times of its own, read from a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing, InvalidInput, nearest, require

MISSING = ("", "na", "nan", "null", "none", "?")
DAY = 86400.0


@dataclass(frozen=True)
class Panel:
    """Time series of the same quantities.

    Args:
        names: of the series, n of them.
        columns: of the quantities, C of them.
        times: for each series (T_i,) float64, strictly increasing.
        values: for each series (T_i, C) float64, NaN where missing; each quantity of each series is observed at least once.
        dates: whether times are days since 1970, of a table with dates.

    Raises:
        InvalidInput: the parts do not fit together.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    times: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    dates: bool = False

    def __post_init__(self) -> None:
        require(bool(self.names), "a panel needs at least one series")
        require(len(self.names) == len(self.times) == len(self.values), "names, times and values differ in number")
        for name, t, x in zip(self.names, self.times, self.values, strict=True):
            where = f"series {name!r}"
            require(
                x.shape == (len(t), len(self.columns)),
                f"{where} has values of shape {tuple(x.shape)} at {len(t)} times",
            )
            require(len(t) >= 2, f"{where} has one row; a forecast needs at least two")
            require(bool((t.diff() > 0).all()), f"the times of {where} must increase")
            empty = x.isnan().all(0)
            require(
                not bool(empty.any()),
                f"{where} has no value at all in column {self.columns[int(empty.int().argmax())]!r}",
            )

    def __len__(self) -> int:
        return len(self.names)

    def shown(self, t: float) -> str:
        """Return a time as the table had it."""
        if not self.dates:
            return f"{t:.10g}"
        moment = datetime.fromtimestamp(t * DAY, timezone.utc)
        return moment.strftime(
            "%Y-%m-%d" if moment.hour == moment.minute == moment.second == 0 else "%Y-%m-%dT%H:%M:%S"
        )


def read_panel(path: str | Path, *, time: str, values: Sequence[str], series: str | None = None) -> Panel:
    """Return the panel in a .csv file with a header.

    Args:
        path: the file. Rows may come in any order.
        time: name of the column of times: numbers, or dates such as 2024-05-01, 2024/05/01, 20240501 or 2024-05-01T12:00.
        values: names of the columns of values; empty cells and NA are missing.
        series: name of the column that says to which series a row belongs; None for one series.

    Raises:
        DataMissing: there is no such file.
        BadFile: a cell is not a number, a time occurs twice; the text names row and column.
        InvalidInput: there is no such column, or a series has one row or no value.
    """
    if not Path(path).is_file():
        raise DataMissing(f"there is no file {path}")
    require(bool(values), "name at least one column of values")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    require(len(rows) >= 2, f"{path} has no rows below its header")
    header = [cell.strip() for cell in rows[0]]
    places = {name: _place(header, name, path) for name in (time, *values, *([series] if series else []))}
    table = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    require(bool(table), f"{path} has no rows below its header")
    for number, row in table:
        if len(row) != len(header):
            raise BadFile(f"{path}, row {number}: {len(row)} cells, and the header has {len(header)}")
    dates = _are_dates([row[places[time]].strip() for _, row in table])
    groups: dict[str, list[tuple[float, list[float], int]]] = {}
    for number, row in table:
        name = row[places[series]].strip() if series else Path(path).stem
        at = _time(row[places[time]], dates, f"{path}, row {number}, column {time!r}")
        found = [_value(row[places[v]], f"{path}, row {number}, column {v!r}") for v in values]
        groups.setdefault(name, []).append((at, found, number))
    times, tables = zip(*(_sorted(group, path, time) for group in groups.values()), strict=True)
    return Panel(tuple(groups), tuple(values), times, tables, dates)


def _place(header: list[str], name: str, path: str | Path) -> int:
    if name not in header:
        raise InvalidInput(f"{path} has no column {name!r}. {nearest(name, header)}")
    return header.index(name)


def _sorted(group: list[tuple[float, list[float], int]], path: str | Path, column: str) -> tuple[Tensor, Tensor]:
    group.sort(key=lambda row: row[0])
    for before, after in pairwise(group):
        if before[0] == after[0]:
            rows = sorted((before[2], after[2]))
            raise BadFile(
                f"{path}, rows {rows[0]} and {rows[1]}: the same {column!r} twice in one series; keep one, or name --id"
            )
    return torch.tensor([t for t, _, _ in group], dtype=torch.float64), torch.tensor(
        [x for _, x, _ in group], dtype=torch.float64
    )


def _are_dates(cells: list[str]) -> bool:
    """Return whether times are dates: the first one is no number, or all are written as 20240501."""
    if all(len(cell) == 8 and cell.isdigit() and "1800" <= cell[:4] < "2200" for cell in cells):
        return True
    try:
        float(cells[0])
    except ValueError:
        return True
    return False


def _time(cell: str, dates: bool, where: str) -> float:
    text = cell.strip()
    try:
        if not dates:
            found = float(text)
            if found - found == 0:
                return found
            raise ValueError
        compact = len(text) == 8 and text.isdigit()  # which Python reads from 3.11 on
        moment = datetime.fromisoformat(
            f"{text[:4]}-{text[4:6]}-{text[6:]}" if compact else text.replace("Z", "+00:00").replace("/", "-")
        )
    except ValueError:
        raise BadFile(
            f"{where}: {text!r} is not {'a date such as 2024-05-01' if dates else 'a finite number'}"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() / DAY


def _value(cell: str, where: str) -> float:
    text = cell.strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        found = float(text)
    except ValueError:
        raise BadFile(f"{where}: {text!r} is not a number; leave a missing value empty") from None
    if found - found != 0:
        raise BadFile(f"{where}: the value is not finite")
    return found
