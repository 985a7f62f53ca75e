"""Progress: silent when nobody watches, late when somebody does, gone afterwards."""

import io
import sys

import pytest

from isocline._core import progress as module
from isocline._core.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Bar:
    """Records what a rich bar would be told."""

    task_ids = (0,)

    def __init__(self) -> None:
        self.shown: list[tuple[float, str]] = []
        self.stopped = False

    def update(self, task: int, *, completed: float, description: str) -> None:
        assert task == 0
        self.shown.append((completed, description))

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """Replace the bar by a recording one; return those that were opened."""
    opened: list[Bar] = []

    def open_bar(description: str, total: float) -> Bar:
        opened.append(Bar())
        return opened[-1]

    monkeypatch.setattr(module, "_open_bar", open_bar)
    return opened


def test_nothing_is_printed_where_the_error_stream_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    with progress("working", 3) as bar:
        for _ in range(3):
            bar.advance(1, "note")
    assert bar.done == 3
    assert capfd.readouterr() == ("", "")


def test_a_short_task_shows_nothing_on_a_terminal(monkeypatch: pytest.MonkeyPatch, bars: list[Bar]) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("working", 3) as bar:
        bar.advance(3)
    assert bars == []


def test_a_bar_appears_after_two_seconds_and_counts_what_came_before(
    monkeypatch: pytest.MonkeyPatch, bars: list[Bar]
) -> None:
    clock = iter([0.0, 1.9, 2.1])
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("working", 4) as bar:
        bar.advance(1)
        assert bars == []
        bar.advance(1, "loss 0.5")
        bar.advance(2)
    assert bars[0].shown == [(2.0, "working loss 0.5"), (4.0, "working")]
    assert bars[0].stopped


def test_an_error_closes_the_bar_and_is_passed_on(monkeypatch: pytest.MonkeyPatch, bars: list[Bar]) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(module, "PATIENCE", -1.0)

    def fail() -> None:
        with progress("working", 1) as bar:
            bar.advance(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert bars[0].stopped


def test_the_real_bar_writes_to_the_error_stream_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    monkeypatch.setenv("TERM", "xterm")
    with progress("working", 2) as bar:
        bar.advance(1, "half")
    assert "working half" in terminal.getvalue()
    assert capsys.readouterr().out == ""
