"""Where the figures of a training run go while it runs, beside ``loss.csv``, which is always written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from isocline._core.errors import ExtraMissing

Log = Callable[[int, dict[str, float]], None]  # (step, {"loss": ..., "rate": ..., "seconds": ...})


class TensorBoard:
    """Writes scalars for TensorBoard: ``tensorboard --logdir FOLDER``.

    Args:
        folder: where the event files go.

    Raises:
        ExtraMissing: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ExtraMissing("TensorBoard logs need tensorboard: pip install 'isocline[fabric]'") from error
        self._writer: Any = SummaryWriter(str(folder))

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        """Write one scalar for each figure."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
