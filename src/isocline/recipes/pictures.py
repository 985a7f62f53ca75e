"""Pictures that several recipes draw: image grids and error curves. Figures are made without a display."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isocline._core import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ACCENT, GREY, GREEN = "#1f4e79", "#c55a11", "#7f7f7f", "#548235"


def tile(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Return one grey picture (H, W) in [0, 1] of `images` (N, 1, h, w) in [-1, 1], row by row."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    canvas = torch.ones(rows * (height + gap) - gap, columns * (width + gap) - gap)
    for k, image in enumerate(images[:, 0]):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = ((image + 1) / 2).clamp(0, 1)
    return canvas


def side_by_side(groups: Sequence[tuple[str, Tensor]], columns: int) -> Figure:
    """Return a figure with one titled image grid for each (title, images (N, 1, h, w))."""
    from matplotlib.figure import Figure

    across = len(groups) if len(groups) < 4 else 2
    down = -(-len(groups) // across)
    height, breadth = tile(groups[0][1], columns).shape
    picture = Figure(figsize=(4.6 * across, (4.6 * height / breadth + 0.35) * down), layout="constrained")
    for axes, (title, images) in zip(picture.subplots(down, across, squeeze=False).flat, groups, strict=False):
        axes.imshow(tile(images, columns).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return picture


def png(picture: Figure, dpi: int = 130) -> bytes:
    """Return the figure as PNG bytes."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save(picture: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG file, atomically."""
    return files.write_bytes(path, png(picture))


def inline(picture: Figure, alt: str) -> str:
    """Return an HTML image element that contains the figure."""
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png(picture)).decode()}">'
