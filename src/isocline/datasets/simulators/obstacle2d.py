r"""Steady laminar flow past an obstacle in a channel, as images.

    (u . grad) u - nu Laplacian u + grad p = 0 ,   div u = 0     in (0, 2) x (0, 1) without the obstacle

with a parabola of mean 1 coming in, walls below and above, and p near 0 at the outflow (`channel_flow`). The obstacle is a
circle, a square, a diamond, a triangle with its tip ahead or behind, or a star-shaped one,

    log r = const + sum_{k=2}^5 a_k cos(k t) + b_k sin(k t) ,      a_k, b_k uniform in (-0.3 / k, 0.3 / k) ;

all have the same probability, and fit into a circle of random radius and place. What a model is given are the inputs of Ribeiro,
Rehman, Ahmed and Dengel (arXiv 2004.08826): distances to the obstacle, the regions of the flow, distances to the walls.
Near sharp corners the flow is singular, so that its error falls slowly with the size of triangles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite, require
from isocline.datasets.fields import DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.classical.obstacle import channel_flow, signed_distance
from isocline.equations.classical.taylor_hood import Array
from isocline.equations.spec import EquationSpec

LENGTHS = (2.0, 1.0)
SHAPES = ("circle", "square", "diamond", "tip ahead", "tip behind", "star")
CORNERS = {
    "square": (4, 1 / 8),
    "diamond": (4, 0.0),
    "tip ahead": (3, 1 / 2),
    "tip behind": (3, 0.0),
}  # number; the first's turn
CENTRE, SHIFT = (0.5, 0.5), 0.1
RADII = (0.1, 0.18)
WAVES = (2, 3, 4, 5)
LARGEST = 40.0  # Reynolds number of the widest obstacle


@dataclass(frozen=True)
class Obstacle2D(Simulator):
    """Geometry to velocity and pressure.

    Args:
        resolution: cells of the image along and across the channel.
        low: the smallest viscosity.
        high: the largest; drawn by its logarithm.
        size: of triangles at the obstacle, whose polygon has edges of about this length; 2.25 times that far from it.

    Raises:
        InvalidInput: the Reynolds number can exceed 40, where the flow need not be steady.

    Examples:
        >>> [f.name for f in Obstacle2D().spec.constant]
        ['distance', 'region', 'wall_distance', 'mask']
    """

    resolution: tuple[int, int] = (128, 64)
    low: float = 0.01
    high: float = 0.01
    size: float = 0.02

    equation: ClassVar[EquationSpec] = EquationSpec(
        "navier-stokes",
        lambda f, q, p: (
            f[0] * f[0].x + f[1] * f[0].y + f[2].x - p.nu * (f[0].xx + f[0].yy),
            f[0] * f[1].x + f[1] * f[1].y + f[2].y - p.nu * (f[1].xx + f[1].yy),
            f[0].x + f[1].y,
        ),
        ("velocity_x", "velocity_y", "pressure"),
        ("x", "y"),
        {"nu": "viscosity"},
    )  # fmt: skip

    def __post_init__(self) -> None:
        number = 2 * RADII[1] / self.low if self.low > 0 else math.inf
        require(
            number <= LARGEST, f"Reynolds numbers reach {number:.3g}; take low = {2 * RADII[1] / LARGEST:g} or more"
        )
        require(0 < self.size <= 0.05, f"triangles at the obstacle have sizes in (0, 0.05], got {self.size:g}")

    @property
    def spec(self) -> DataSpec:
        """``velocity`` and ``pressure``, zero inside the obstacle, to be predicted of what `constants` gives."""
        outputs = (FieldSpec("velocity", order=1), FieldSpec("pressure"))
        inputs = (FieldSpec(name, varies=False) for name in ("distance", "region", "wall_distance", "mask"))
        grid = (("x", "y"), (0.0, 0.0), LENGTHS, tuple(self.resolution), ("open", "wall"))
        nu = ParameterSpec("nu", self.low, self.high, log=True)
        return DataSpec("obstacle2d", (*outputs, *inputs), *grid, 1, 0.0, (nu,))  # type: ignore[arg-type]

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the one frame, (n, x, y, 2) and (n, x, y); the mesh does not depend on the image.

        Raises:
            ExtraMissing: scikit-fem is not installed.
            NotFinite: no steady flow was found; names the case.
        """
        sizes = tuple(resolution or self.spec.resolution)
        x, polygons = self.coordinates(cases, sizes).flatten(0, 1), self.polygons(cases)
        values = torch.zeros(len(cases), len(x), 3, dtype=torch.float64)
        for i, (polygon, nu) in enumerate(zip(polygons, cases.parameters["nu"].tolist(), strict=True)):
            wet = torch.from_numpy(signed_distance(polygon, x.numpy()) > 0)
            try:
                flow = channel_flow(polygon, nu, LENGTHS, (self.size, 2.25 * self.size))
            except (InvalidInput, NotFinite) as error:
                raise type(error)(f"case {cases.first + i}: {error}") from error
            values[i, wet] = flow(x[wet])
        values = values.unflatten(1, sizes)
        yield Frame(
            torch.zeros(len(cases), dtype=torch.float64), {"velocity": values[..., :2], "pressure": values[..., 2]}
        )

    def constants(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return the inputs, (n, x, y) each.

        ``distance`` is that to the obstacle, negative inside; ``region`` is 0 inside the obstacle and 1 in the flow, and in the
        outermost cells of the image 2 at the walls, 3 at the inflow, 4 at the outflow; ``wall_distance`` is that to the walls;
        ``mask`` is 1 outside of the obstacle.
        """
        sizes = tuple(resolution or self.spec.resolution)
        x = self.coordinates(cases, sizes)
        flat = x.flatten(0, 1).numpy()
        distance = torch.from_numpy(np.stack([signed_distance(p, flat) for p in self.polygons(cases)])).unflatten(
            1, sizes
        )
        mask = (distance > 0).double()
        region = mask.clone()
        region[:, 0], region[:, -1] = 3.0, 4.0
        region[:, :, 0] = region[:, :, -1] = 2.0
        wall = torch.minimum(x[..., 1], LENGTHS[1] - x[..., 1]).expand_as(distance).clone()
        return {"distance": distance, "region": region, "wall_distance": wall, "mask": mask}

    def polygons(self, cases: Cases) -> list[Array]:
        """Return the vertices of every obstacle, (B, 2) each, counterclockwise."""
        kinds = (len(SHAPES) * cases.uniform((), "shapes")).long().tolist()
        drawn = cases.uniform((3,), "places").numpy()
        waves = 2 * cases.uniform((2, len(WAVES)), "stars").numpy() - 1
        centres = np.asarray(CENTRE) + SHIFT * (2 * drawn[:, :2] - 1)
        radii = RADII[0] + (RADII[1] - RADII[0]) * drawn[:, 2]
        outlines = (
            _outline(SHAPES[kind], radius, wave) for kind, radius, wave in zip(kinds, radii, waves, strict=True)
        )
        return [c + divided(outline, self.size) for c, outline in zip(centres, outlines, strict=True)]


def divided(parts: list[Array], size: float) -> Array:
    """Return a closed curve's points (B, 2), at equal distances of about `size` within each part.

    Args:
        parts: curves (M, 2), each ending where the next begins.
        size: the distance.
    """
    found = []
    for part in parts:
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(part, axis=0).T))])
        at = np.linspace(0.0, along[-1], max(1, round(along[-1] / size)), endpoint=False)
        found.append(np.stack([np.interp(at, along, part[:, k]) for k in (0, 1)], 1))
    return np.concatenate(found)


def _outline(shape: str, radius: float, wave: Array) -> list[Array]:
    """Return the parts between corners of a shape around 0."""
    if shape in CORNERS:
        n, first = CORNERS[shape]
        turns = 2 * np.pi * (first + np.arange(n + 1) / n)
        corners = radius * np.stack([np.cos(turns), np.sin(turns)], 1)
        return [corners[k : k + 2] for k in range(n)]
    t = np.linspace(0.0, 2 * np.pi, 721)
    r = np.ones_like(t)
    if shape == "star":
        angles = np.asarray(WAVES)[:, None] * t
        sizes = 0.3 * wave / np.asarray(WAVES)
        r = np.exp(sizes[0] @ np.cos(angles) + sizes[1] @ np.sin(angles))
    return [radius / r.max() * r[:, None] * np.stack([np.cos(t), np.sin(t)], 1)]
