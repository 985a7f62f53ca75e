"""Progress that is silent when nobody is watching."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 2.0  # seconds before a bar appears


class Progress:
    """Counts work; shows a bar only on a terminal and only after two seconds. Use through `progress`."""

    def __init__(self, description: str, total: float) -> None:
        self.description, self.total, self.done = description, total, 0.0
        self._start = time.monotonic()
        self._bar = None
        self._watched = sys.stderr.isatty()

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Report `amount` more of the total; `note` is shown beside the description."""
        self.done += amount
        if self._bar is None and self._watched and time.monotonic() - self._start > PATIENCE:
            self._bar = _open_bar(self.description, self.total)
        if self._bar is not None:
            text = f"{self.description} {note}".rstrip()
            self._bar.update(self._bar.task_ids[0], completed=self.done, description=text)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def progress(description: str, total: float) -> Iterator[Progress]:
    """Count work of size `total` under `description`.

    >>> with progress("tuning", 3) as bar:
    ...     bar.advance(3)
    """
    bar = Progress(description, total)
    try:
        yield bar
    finally:
        bar.close()


def _open_bar(description: str, total: float):  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(description, total=total)
    bar.start()
    return bar
