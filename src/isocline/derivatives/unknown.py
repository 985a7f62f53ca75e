"""Equations as they are written: ``u.t + u * u.x - nu * u.xx``.

An `Unknown` is one component of a field at points. In arithmetic and in torch functions it stands for its values (N,), and its
attributes are its derivatives, which are `Unknown`s too, so that ``u.x.x`` and ``u.xx`` are the same. `traced` runs a residual
once on made-up values and notes which derivatives it used, so that no other is ever computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline.derivatives.spec import Index, Spec, check_names, index_of

Summed: TypeAlias = Callable[[Index, tuple[int, ...]], Tensor]


class Unknown:
    """One component of a field, or a derivative of it, at N points.

    Args:
        read: gives the values (N,) of a derivative.
        names: of the coordinates.
        index: which derivative this is.
        summed: gives ``(index, axes) -> (N,)``, the sum of second derivatives along axes, where that is known other than by adding
            them up.

    Examples:
        >>> u = Unknown({(): torch.tensor([2.0]), (0,): torch.tensor([3.0])}.__getitem__, ("x", "t"))
        >>> u * u.x + torch.sin(0 * u)
        tensor([6.])
    """

    def __init__(
        self,
        read: Callable[[Index], Tensor],
        names: tuple[str, ...],
        index: Index = (),
        summed: Summed | None = None,
    ) -> None:
        self._read, self._names, self._index, self._summed = read, names, index, summed

    @property
    def value(self) -> Tensor:
        """The values, (N,)."""
        return self._read(self._index)

    def __getattr__(self, name: str) -> Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return d(self, name)
        except InvalidInput as error:
            raise AttributeError(f"{error} For a tensor's method use the function, such as torch.square(u).") from None

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return function(*_plain(args), **{key: _plain(item) for key, item in (kwargs or {}).items()})

    def __add__(self, other: Any) -> Tensor:
        return self.value + _plain(other)

    def __radd__(self, other: Any) -> Tensor:
        return _plain(other) + self.value

    def __sub__(self, other: Any) -> Tensor:
        return self.value - _plain(other)

    def __rsub__(self, other: Any) -> Tensor:
        return _plain(other) - self.value

    def __mul__(self, other: Any) -> Tensor:
        return self.value * _plain(other)

    def __rmul__(self, other: Any) -> Tensor:
        return _plain(other) * self.value

    def __truediv__(self, other: Any) -> Tensor:
        return self.value / _plain(other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _plain(other) / self.value

    def __pow__(self, other: Any) -> Tensor:
        return self.value ** _plain(other)

    def __neg__(self) -> Tensor:
        return -self.value


def _plain(item: Any) -> Any:
    if isinstance(item, Unknown):
        return item.value
    return type(item)(map(_plain, item)) if isinstance(item, (list, tuple)) else item


def d(u: Unknown, *names: str | int) -> Unknown:
    """Return a derivative: ``d(u, "x")``, ``d(u, "x", 2)`` (twice in x), ``d(u, "x", "y")``, ``d(u, "x", 2, "t")``.

    Raises:
        InvalidInput: `u` is no unknown, or a name is not one of its coordinates.
    """
    require(
        isinstance(u, Unknown),
        "d takes an unknown or its derivative, not a computed tensor; expand by the product rule",
    )
    axes: list[int] = []
    for name in names:
        if isinstance(name, int):
            require(bool(axes) and name >= 1, "a number in d(u, 'x', 2) follows a name and says how often")
            axes += axes[-1:] * (name - 1)
        else:
            axes += index_of(name, u._names)
    return Unknown(u._read, u._names, tuple(sorted((*u._index, *axes))), u._summed)


def laplacian(u: Unknown, names: Sequence[str] | None = None) -> Tensor:
    """Return the sum of second derivatives, (N,), over `names`; None means every coordinate except one called ``t``."""
    require(isinstance(u, Unknown), "laplacian takes an unknown or its derivative, not a computed tensor")
    if names is None:
        axes = [axis for axis, name in enumerate(u._names) if name != "t"]
    else:
        axes = [axis for name in names for axis in index_of((name,), u._names)]
    require(len(axes) > 0, "the Laplacian needs at least one coordinate")
    if u._summed is not None:
        return u._summed(u._index, tuple(axes))
    return torch.stack([u._read(tuple(sorted((*u._index, axis, axis)))) for axis in axes]).sum(0)


class Coordinates(SimpleNamespace):
    """Columns of points by name."""

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__"):
            raise AttributeError(name)
        known = ", ".join(found for found in vars(self) if not found.startswith("_"))
        raise AttributeError(f"there is no coordinate {name!r}; the coordinates are {known}")


def coordinates(x: Tensor, names: Sequence[str]) -> Coordinates:
    """Return points x (N, d) as named columns (N,): ``coordinates(x, "xt").t``."""
    require(
        x.dim() == 2 and x.shape[1] == len(names), f"points {tuple(x.shape)} do not fit the coordinates {tuple(names)}"
    )
    return Coordinates(_points=x, **dict(zip(names, x.unbind(1), strict=True)))


def traced(
    residual: Callable[..., Any],
    names: Sequence[str],
    *arguments: Any,
    components: int = 1,
    summed: Summed | None = None,
) -> Spec:
    """Return which derivatives a residual uses, found by running it once on made-up numbers.

    A residual that branches on values is traced along one branch only; when it later asks for another derivative, the error
    names that one.

    Args:
        residual: called as ``residual(u, *arguments)``; `u` is one `Unknown`, or a tuple of them where `components` > 1.
        names: of the coordinates.
        arguments: what else it takes. Coordinates fit when they are of 1 or of 2 points.
        components: number of unknowns.
        summed: what `laplacian` takes in place of second derivatives, which are then not noted; two numbers a call.

    Examples:
        >>> spec = traced(lambda u, nu: u.t + u * u.x - nu * u.xx, "xt", 0.1)
        >>> sorted(spec.indices)
        [(), (0,), (0, 0), (1,)]
    """
    require(components >= 1, f"an equation has at least one unknown, got {components}")
    check_names(names)
    asked: set[Index] = set()

    def read(index: Index) -> Tensor:
        asked.add(index)
        return torch.tensor([0.5, 0.75], dtype=torch.get_default_dtype())

    unknowns = tuple(Unknown(read, tuple(names), (), summed) for _ in range(components))
    _plain(residual(unknowns[0] if components == 1 else unknowns, *arguments))
    return Spec(frozenset(asked), tuple(names))
