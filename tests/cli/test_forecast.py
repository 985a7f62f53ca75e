"""``isocline forecast``: files, report, an earlier model, and one clear line for every bad table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isocline.cli.app import app, main

RUN = CliRunner()


def table(folder: Path, rows: int = 120) -> Path:
    path = folder / "table.csv"
    lines = [
        f"{'ab'[k % 2]},{k * 0.5},{math.sin(k / 4):.4f}" if k % 7 else f"{'ab'[k % 2]},{k * 0.5}," for k in range(rows)
    ]
    path.write_text("\n".join(["name,when,x", *lines]) + "\n")
    return path


def test_it_writes_forecast_picture_model_and_report(tmp_path: Path) -> None:
    source, out = table(tmp_path), tmp_path / "out"
    words = [str(source), "--time", "when", "--value", "x", "--id", "name"]
    found = RUN.invoke(
        app, ["forecast", *words, "--horizon", "6", "--seconds", "2", "--points", "5", "--out", str(out), "--json"]
    )
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["horizon"] == 6.0
    assert 0 <= report["error"]["coverage"]["value"] <= 1
    assert "nothing was trained" in report["how"]
    rows = list(csv.DictReader((out / "forecast.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert {row["id"] for row in rows} == {"a", "b"}
    assert all(float(row["low"]) <= float(row["median"]) <= float(row["high"]) for row in rows)
    assert (out / "forecast.png").read_bytes().startswith(b"\x89PNG")
    model = ["--model", str(out / "forecaster.safetensors"), "--points", "5", "--out", str(tmp_path / "again")]
    again = RUN.invoke(app, ["forecast", *words, *model])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "forecast.csv").read_text() == (out / "forecast.csv").read_text()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("time,value\n1,2\n1,3\n", 1, "the same 'time' twice"),
        ("time,value\n1,2\n2,abc\n", 1, "'abc' is not a number"),
        ("time,value\n1,2\n", 2, "has one row"),
        ("time,value\n1,\n2,\n", 2, "no value at all"),
    ],
)
def test_bad_tables_get_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    code: int,
    message: str,
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    monkeypatch.setattr("sys.argv", ["isocline", "forecast", str(path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == code
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "out").exists()
