r"""Reading ``.ts`` text files of labelled time series.

Lines that begin with ``#`` or ``%`` are comments; lines that begin with ``@`` are a header that ends with ``@data``. Each line
after it is one series,

    c_11,c_12,...:c_21,c_22,...:label

with one part for each channel; ``?`` is a missing value. Series may differ in length. Files that carry time stamps or no class
labels are refused.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing

Row = tuple[list[list[float]], str]  # the channels and the label of one series


def read_ts(path: Path) -> tuple[list[Tensor], list[str], tuple[str, ...]]:
    """Return the series, each (T_n, C) with NaN for missing values, their labels, and the names of the classes.

    Args:
        path: a ``.ts`` file with class labels and without time stamps.

    Raises:
        DataMissing: the file cannot be read.
        BadFile: the file is of another kind or damaged; the text names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataMissing(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not a text file") from error
    header, start = _header(path, lines)
    names = _classes(path, header)
    rows = [_row(path, number, text, names) for number, text in _data(lines, start)]
    if not rows:
        raise BadFile(f"{path} holds no series")
    channels = {len(row[0]) for row in rows}
    if len(channels) > 1:
        raise BadFile(f"{path}: the series have between {min(channels)} and {max(channels)} channels")
    return [torch.tensor(row[0]).mT.contiguous() for row in rows], [row[1] for row in rows], names


def _header(path: Path, lines: list[str]) -> tuple[dict[str, list[str]], int]:
    """Return the header's words by their key, in lower case, and the number of lines up to its end."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("@"):
            key, *words = line[1:].split()
            found[key.lower()] = words
            if key.lower() == "data":
                return found, number
    raise BadFile(f"{path} has no line @data; it is not a .ts file")


def _classes(path: Path, header: dict[str, list[str]]) -> tuple[str, ...]:
    if header.get("timestamps", ["false"])[0].lower() != "false":
        raise BadFile(f"{path} has time stamps, which are not read")
    flag, *names = header.get("classlabel", ["false"])
    if flag.lower() != "true" or not names:
        raise BadFile(f"{path} has no class labels")
    return tuple(names)


def _data(lines: list[str], start: int) -> list[tuple[int, str]]:
    text = enumerate((line.strip() for line in lines[start:]), start + 1)
    return [(number, line) for number, line in text if line and line[0] not in "#%"]


def _row(path: Path, number: int, text: str, names: tuple[str, ...]) -> Row:
    *parts, label = text.split(":")
    try:
        channels = [[_value(word) for word in part.split(",")] for part in parts]
    except ValueError as error:
        raise BadFile(f"{path}, line {number}: {error}") from error
    if not channels or len({len(channel) for channel in channels}) > 1:
        raise BadFile(f"{path}, line {number}: a series needs channels of one length and a label")
    if label.strip() not in names:
        raise BadFile(f"{path}, line {number}: the label {label.strip()!r} is not in the header")
    return channels, label.strip()


def _value(word: str) -> float:
    if word.strip() == "?":
        return math.nan
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word!r} is not a finite number; a missing value is ?")
    return value
