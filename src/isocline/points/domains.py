r"""Where equations hold: boxes with named coordinates, balls, simplices, finite clouds.

A domain with a map from the unit cube has one that keeps volume, up to the factor ``|domain|``, so that a rule on the cube is a
rule on the domain:

    box      x = low + (high - low) u
    ball     x = c + r F(|z|)^{1/d} z / |z| ,   z = Phi^{-1}(u) ,   F the distribution of the length of d standard normals
    simplex  x = v_0 + sum_k u_1^{1/d} u_2^{1/(d-1)} ... u_k^{1/(d-k+1)} (v_k - v_{k-1})

Only the first is smooth up to the boundary: on balls and simplices rules converge, but the order of Gauss rules is lost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from scipy import special
from torch import Tensor

from isocline._core.errors import InvalidInput, nearest, require
from isocline._core.estimate import Estimate
from isocline._core.stream import Stream
from isocline.points.point_set import PointSet

TINY = 1e-290  # stands for smaller volumes; weights are shares of it

if TYPE_CHECKING:
    from isocline.points.boolean import Difference, Intersection, Union
    from isocline.points.boundary import Face


class Domain(ABC):
    """A region of ``R^d``: its named axes, bounds and volume, which points it contains, how the unit cube maps to it."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates, in the order of the columns of points."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The corners (d,) and (d,) of the smallest known box around the domain."""

    @property
    @abstractmethod
    def volume_estimate(self) -> Estimate:
        """The volume with its interval, of width zero where it is exact."""

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Return for points (N, d) whether they lie inside or on the boundary, bool (N,)."""

    def scale(self, u: Tensor) -> Tensor:
        """Return the images (N, d) of points (N, d) of the unit cube under the domain's map.

        Raises:
            InvalidInput: the domain has no such map.
        """
        raise InvalidInput(
            f"{type(self).__name__} has no map from the unit cube; draw with Uniform, or with Kept(sampler)"
        )

    def uniform(self, n: int, rng: Stream) -> Tensor:
        """Return `n` independent points (n, d) of the domain."""
        return self.scale(rng.uniform((n, self.d), dtype=torch.float64))

    @property
    def d(self) -> int:
        """Number of coordinates."""
        return len(self.names)

    @property
    def volume(self) -> float:
        """The volume, or its estimate."""
        return self.volume_estimate.value

    def axis(self, name: str) -> int:
        """Return the column of the coordinate with that name."""
        if name not in self.names:
            raise InvalidInput(f"the domain has no coordinate {name!r}. {nearest(name, self.names)}")
        return self.names.index(name)

    def faces(self) -> tuple[Face, ...]:
        """Return the parts of the boundary.

        Raises:
            InvalidInput: the boundary of such a domain is not known.
        """
        raise InvalidInput(f"the boundary of a {type(self).__name__} is not known; use the faces of its parts")

    def __or__(self, other: Domain) -> Union:
        from isocline.points.boolean import Union

        return Union(self, other)

    def __and__(self, other: Domain) -> Intersection:
        from isocline.points.boolean import Intersection

        return Intersection(self, other)

    def __sub__(self, other: Domain) -> Difference:
        from isocline.points.boolean import Difference

        return Difference(self, other)


class Box(Domain):
    """A box whose axes have names.

    Args:
        axes: for each name the interval, a pair of finite numbers, the smaller first.

    Raises:
        InvalidInput: there is no axis, or an interval is empty.

    Examples:
        >>> box = Box(x=(-1, 1), t=(0, 3))
        >>> box.names, box.volume, box.axis("t")
        (('x', 't'), 6.0, 1)
        >>> box.scale(torch.tensor([[0.5, 1.0]]))
        tensor([[0., 3.]])
        >>> Box(x=(1, 0))
        Traceback (most recent call last):
        isocline._core.errors.InvalidInput: the interval of x is empty: (1, 0); give (low, high) with low < high
    """

    def __init__(self, **axes: tuple[float, float]) -> None:
        require(len(axes) > 0, "a box needs an axis, for example Box(x=(0, 1))")
        for name, (low, high) in axes.items():
            require(math.isfinite(low) and math.isfinite(high), f"the interval of {name} is not finite: {(low, high)}")
            require(low < high, f"the interval of {name} is empty: {(low, high)}; give (low, high) with low < high")
        self.axes = {name: (float(low), float(high)) for name, (low, high) in axes.items()}

    @classmethod
    def cube(cls, d: int) -> Box:
        """Return the unit cube with axes x1 ... xd."""
        return cls(**{f"x{i + 1}": (0.0, 1.0) for i in range(d)})

    def __repr__(self) -> str:
        return f"Box({', '.join(f'{name}=({low:g}, {high:g})' for name, (low, high) in self.axes.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and list(self.axes.items()) == list(other.axes.items())

    def __hash__(self) -> int:
        return hash(tuple(self.axes.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return tuple(self.axes)

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The corners (d,) and (d,)."""
        low, high = torch.tensor(list(self.axes.values()), dtype=torch.float64).unbind(1)
        return low, high

    @property
    def volume_estimate(self) -> Estimate:
        """The corners (d,) and (d,) of a box around the domain."""
        return exactly(math.prod(high - low for low, high in self.axes.values()))

    def contains(self, x: Tensor) -> Tensor:
        """Return which points (N, d) lie inside or on the boundary, bool (N,)."""
        low, high = (bound.to(x) for bound in self.bounds)
        return ((x >= low) & (x <= high)).all(1)

    def scale(self, u: Tensor) -> Tensor:
        """Return the images (N, d) of points (N, d) of the unit cube."""
        low, high = (bound.to(u) for bound in self.bounds)
        return torch.minimum(low + (high - low) * u, high)  # rounding must not leave the box

    def faces(self, *names: str) -> tuple[Face, ...]:
        """Return the two faces of each named axis, of all axes where none is named: low, high, low, ..."""
        from isocline.points.boundary import box_faces

        return box_faces(self, tuple(self.axis(name) for name in names or self.names))


@dataclass(frozen=True)
class Ball(Domain):
    """The points at most `radius` away from `centre`.

    Examples:
        >>> disc = Ball((0.0, 0.0), 2.0)
        >>> round(disc.volume, 4), disc.contains(torch.tensor([[2.0, 0.0], [2.0, 0.1]])).tolist()
        (12.5664, [True, False])
    """

    centre: tuple[float, ...]
    radius: float = 1.0

    def __post_init__(self) -> None:
        require(len(self.centre) > 0, "the centre of a ball needs a coordinate")
        require(0 < self.radius < math.inf, f"the radius of a ball must be positive, got {self.radius}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return numbered(len(self.centre))

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The corners (d,) and (d,) of a box around the domain."""
        centre = torch.tensor(self.centre, dtype=torch.float64)
        return centre - self.radius, centre + self.radius

    @property
    def volume_estimate(self) -> Estimate:
        """The volume; in hundreds of dimensions, where it is no number of float64, `TINY` stands for it."""
        power = self.d / 2 * math.log(math.pi) + self.d * math.log(self.radius) - math.lgamma(self.d / 2 + 1)
        return exactly(max(math.exp(power), TINY))

    def contains(self, x: Tensor) -> Tensor:
        """Return which points (N, d) lie inside or on the boundary, bool (N,)."""
        slack = 1 + 4 * torch.finfo(x.dtype).eps  # a point of the boundary counts, rounded as it is
        return (x - x.new_tensor(self.centre)).norm(dim=1) <= self.radius * slack

    def scale(self, u: Tensor) -> Tensor:
        """Return the images (N, d) of points (N, d) of the unit cube."""
        z = normals_of(u)
        length = z.norm(dim=1, keepdim=True)
        share = torch.as_tensor(special.gammainc(self.d / 2, length.double().numpy() ** 2 / 2)).to(u)
        direction = z / length.clamp_min(torch.finfo(u.dtype).tiny)
        return u.new_tensor(self.centre) + self.radius * share ** (1 / self.d) * direction

    def faces(self) -> tuple[Face, ...]:
        """Return the sphere."""
        from isocline.points.boundary import sphere

        return (sphere(self),)


@dataclass(frozen=True)
class Simplex(Domain):
    """The convex hull of d + 1 vertices in ``R^d``: an interval, triangle, tetrahedron.

    Raises:
        InvalidInput: the number of vertices does not fit their dimension, or they lie in one plane.

    Examples:
        >>> Simplex(((0.0, 0.0), (2.0, 0.0), (0.0, 1.0))).volume
        1.0
    """

    vertices: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        d = len(self.vertices) - 1
        require(d > 0 and all(len(v) == d for v in self.vertices), f"{d + 1} vertices span a simplex in R^{d} only")
        longest = float(self.edges.norm(dim=1).max())
        require(self.volume * math.factorial(d) > 1e-12 * longest**d, "the vertices of the simplex lie in one plane")

    @property
    def corners(self) -> Tensor:
        """The vertices (d + 1, d)."""
        return torch.tensor(self.vertices, dtype=torch.float64)

    @property
    def edges(self) -> Tensor:
        """The edges (d, d) from the first vertex to the others."""
        return self.corners[1:] - self.corners[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return numbered(len(self.vertices) - 1)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The corners (d,) and (d,) of a box around the domain."""
        return self.corners.amin(0), self.corners.amax(0)

    @property
    def volume_estimate(self) -> Estimate:
        """The volume with its interval."""
        return exactly(abs(float(torch.linalg.det(self.edges))) / math.factorial(len(self.vertices) - 1))

    def barycentric(self, x: Tensor) -> Tensor:
        """Return the barycentric coordinates (N, d + 1) of points (N, d)."""
        rest = torch.linalg.solve(self.edges.T.to(x), (x - self.corners[0].to(x)).T).T
        return torch.cat([1 - rest.sum(1, keepdim=True), rest], 1)

    def contains(self, x: Tensor) -> Tensor:
        """Return which points (N, d) lie inside or on the boundary, bool (N,)."""
        return (self.barycentric(x) >= -64 * torch.finfo(x.dtype).eps).all(1)

    def scale(self, u: Tensor) -> Tensor:
        """Return the images (N, d) of points (N, d) of the unit cube."""
        return from_simplex(u, self.corners.to(u))

    def faces(self) -> tuple[Face, ...]:
        """Return the facets; facet k lies opposite to vertex k."""
        from isocline.points.boundary import facets

        return facets(self)


@dataclass(frozen=True, eq=False)
class PointCloud(Domain):
    """Finitely many points, for example the candidates that an active sampler chooses from.

    Args:
        x: (N, d), finite.
        w: (N,) non-negative weights whose sum is the volume; 1 / N each by default.

    Examples:
        >>> cloud = PointCloud(torch.rand(10, 2, dtype=torch.float64))
        >>> cloud.d, round(cloud.volume, 12)
        (2, 1.0)
    """

    x: Tensor
    w: Tensor | None = None

    def __post_init__(self) -> None:
        PointSet(self.x, self.w)
        require(len(self.x) > 0, "a point cloud needs a point")
        require(self.w is None or bool((self.w >= 0).all()), "the weights of a point cloud are not negative")

    @classmethod
    def of(cls, points: PointSet) -> PointCloud:
        """Return the cloud of the points of a set, with their weights."""
        return cls(points.x, points.w)

    @property
    def weights(self) -> Tensor:
        """The weights (N,)."""
        return torch.full_like(self.x[:, 0], 1 / len(self.x)) if self.w is None else self.w

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return numbered(self.x.shape[1])

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The corners (d,) and (d,) of a box around the domain."""
        return self.x.amin(0).double(), self.x.amax(0).double()

    @property
    def volume_estimate(self) -> Estimate:
        """The volume with its interval."""
        return exactly(float(self.weights.sum()))

    def contains(self, x: Tensor) -> Tensor:
        """Return which points (N, d) are members, equal in all bits."""
        members = set(map(tuple, self.x.to(x.dtype).tolist()))
        return torch.tensor([tuple(row) in members for row in x.tolist()], dtype=torch.bool, device=x.device)

    def uniform(self, n: int, rng: Stream) -> Tensor:
        """Return `n` different members, each weighing alike."""
        require(n <= len(self.x), f"{n} points cannot be drawn from a cloud of {len(self.x)}")
        return self.x[rng.permutation(len(self.x))[:n]]


def exactly(value: float) -> Estimate:
    """Return a number that is known."""
    return Estimate(value, value, value, level=1.0)


def numbered(d: int) -> tuple[str, ...]:
    """Return the names x, y, z of up to three coordinates, x1 ... xd of more."""
    return tuple("xyz"[:d]) if d <= 3 else tuple(f"x{i + 1}" for i in range(d))


def normals_of(u: Tensor) -> Tensor:
    """Return standard normal numbers for uniform ones, at most 8 in size."""
    tiny = 1e-16 if u.dtype == torch.float64 else 1e-7
    return torch.special.ndtri(u.clamp(tiny, 1 - tiny))


def from_simplex(u: Tensor, corners: Tensor) -> Tensor:
    """Return the images (N, D) of the cube's points (N, d) in the simplex of d + 1 corners (d + 1, D)."""
    d = u.shape[1]
    powers = 1 / torch.arange(d, 0, -1, dtype=u.dtype)
    return corners[0] + (u**powers).cumprod(1) @ corners.diff(dim=0)


def pairs(low: Tensor, high: Tensor) -> Iterator[tuple[float, float]]:
    """Yield the intervals of a box."""
    yield from zip(low.tolist(), high.tolist(), strict=True)
