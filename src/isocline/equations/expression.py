r"""A residual as a tree: what it says can be read, printed and taken apart.

The tree is had by running the residual once on nodes in place of numbers, so an equation is written once, as Python, and serves
residuals, solvers and documentation alike. A node is a number, a name (parameter or coordinate), a derivative of a field, a sum,
a product, a power, or a function such as ``sin``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from isocline._core.errors import InvalidInput, require
from isocline.derivatives import Unknown
from isocline.derivatives.spec import Index


@dataclass(frozen=True)
class Node:
    """A part of an equation.

    Args:
        kind: ``"number"``, ``"name"``, ``"field"``, ``"sum"``, ``"product"``, ``"power"`` or the name of a function.
        value: the number, the name, or a field's name and the multi-index of its derivative.
        parts: what it is made of.
    """

    kind: str
    value: Any = None
    parts: tuple[Node, ...] = ()

    def __add__(self, other: Any) -> Node:
        return Node("sum", parts=(*_members(self, "sum"), *_members(_node(other), "sum")))

    def __mul__(self, other: Any) -> Node:
        return Node("product", parts=(*_members(self, "product"), *_members(_node(other), "product")))

    def __radd__(self, other: Any) -> Node:
        return _node(other) + self

    def __rmul__(self, other: Any) -> Node:
        return _node(other) * self

    def __neg__(self) -> Node:
        return _node(-1.0) * self

    def __sub__(self, other: Any) -> Node:
        return self + -_node(other)

    def __rsub__(self, other: Any) -> Node:
        return _node(other) + -self

    def __pow__(self, other: Any) -> Node:
        return Node("power", parts=(self, _node(other)))

    def __truediv__(self, other: Any) -> Node:
        return self * _node(other) ** -1.0

    def __rtruediv__(self, other: Any) -> Node:
        return _node(other) / self

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.stack:
            return _Stack(tuple(_node(part) for part in args[0]))
        return Node(function.__name__, parts=tuple(_node(part) for part in args))

    @property
    def terms(self) -> tuple[Node, ...]:
        """What it is the sum of; products of sums are multiplied out."""
        if self.kind == "sum":
            return tuple(term for part in self.parts for term in part.terms)
        if self.kind == "product":
            found: tuple[Node, ...] = (Node("number", 1.0),)
            for part in self.parts:
                found = tuple(left * right for left in found for right in part.terms)
            return found
        return (self,)

    def fields(self) -> tuple[Node, ...]:
        """All derivatives of fields in it, as often as they occur."""
        own = (self,) if self.kind == "field" else ()
        return own + tuple(found for part in self.parts for found in part.fields())

    def names(self) -> frozenset[str]:
        """All parameters and coordinates in it."""
        own = {self.value} if self.kind == "name" else set()
        return frozenset(own).union(*(part.names() for part in self.parts))

    def number(self, values: Mapping[str, float]) -> float:
        """Return what it is worth where it has no field.

        Raises:
            InvalidInput: it has a field, a function, or a name without a value.
        """
        if self.kind == "number":
            return float(self.value)
        if self.kind == "name" and self.value in values:
            return float(values[self.value])
        parts = [part.number(values) for part in self.parts]
        if self.kind == "sum":
            return sum(parts)
        if self.kind == "product":
            return torch.tensor(parts, dtype=torch.float64).prod().item()
        if self.kind == "power":
            return float(parts[0] ** parts[1])
        raise InvalidInput(f"{self.value or self.kind} in an equation has no number here")

    def written(self, axes: Sequence[str]) -> str:
        """Return the formula on one line, derivatives as subscripts."""
        return _written(self, tuple(axes))


@dataclass(frozen=True)
class _Stack:
    """What ``torch.stack`` of nodes gives; only its sum over the first axis is of use."""

    parts: tuple[Node, ...]

    def sum(self, dim: int) -> Node:
        require(dim == 0, "parts of an equation are summed over the axis they were stacked on")
        return Node("sum", parts=self.parts)


def _node(item: Any) -> Node:
    if isinstance(item, Node):
        return item
    if isinstance(item, Unknown):
        found: Any = item.value
        return _node(found)
    return Node("number", float(item))


def _members(node: Node, kind: str) -> tuple[Node, ...]:
    return node.parts if node.kind == kind else (node,)


def tree(
    residual: Callable[..., Any], fields: Sequence[str], names: Sequence[str], parameters: Sequence[str]
) -> tuple[Node, ...]:
    """Return a residual's equations as trees.

    Args:
        residual: ``(u, q, p)``, as in `Problem`.
        fields: names of the unknowns.
        names: of the coordinates, time included.
        parameters: names of the parameters.

    Raises:
        InvalidInput: it does more with its arguments than arithmetic and functions of torch.

    Examples:
        >>> heat, = tree(lambda u, q, p: u.t - p.k * u.xx, ["u"], ["x", "t"], ["k"])
        >>> heat.written("xt")
        'u_t - k u_xx'
    """

    def reader(name: str) -> Callable[[Index], Any]:
        return lambda index: Node("field", (name, index))

    unknowns = tuple(Unknown(reader(name), tuple(names)) for name in fields)
    q = SimpleNamespace(**{name: Node("name", name) for name in names})
    p = SimpleNamespace(**{name: Node("name", name) for name in parameters})
    try:
        found = residual(unknowns[0] if len(unknowns) == 1 else unknowns, q, p)
        return tuple(map(_node, found if isinstance(found, (tuple, list)) else (found,)))
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidInput(f"the residual cannot be read as a formula: {error}") from error


def _written(node: Node, axes: tuple[str, ...]) -> str:
    if node.kind == "number":
        return f"{node.value:g}"
    if node.kind == "name":
        return str(node.value)
    if node.kind == "field":
        name, index = node.value
        return name + ("_" + "".join(axes[axis] for axis in index) if index else "")
    if node.kind == "sum":
        return _sum([_written(part, axes) for part in node.parts])
    if node.kind == "product":
        return _product(node, axes)
    if node.kind == "power":
        base, exponent = node.parts
        return f"{_bracketed(base, axes)}^{_bracketed(exponent, axes)}"
    return f"{node.kind}({', '.join(_written(part, axes) for part in node.parts)})"


def _sum(parts: Sequence[str]) -> str:
    text = parts[0]
    for part in parts[1:]:
        text += f" - {part[1:]}" if part.startswith("-") else f" + {part}"
    return text


def _product(node: Node, axes: tuple[str, ...]) -> str:
    factor, rest, below = 1.0, [], []
    for part in node.parts:
        if part.kind == "number":
            factor *= part.value
        elif part.kind == "power" and part.parts[1] == Node("number", -1.0):
            below.append(_bracketed(part.parts[0], axes))
        else:
            rest.append(_bracketed(part, axes))
    sign, size = ("-" if factor < 0 else ""), abs(factor)
    above = " ".join(([] if size == 1 and rest else [f"{size:g}"]) + rest)
    return sign + " / ".join([above, *below])


def _bracketed(node: Node, axes: tuple[str, ...]) -> str:
    text = _written(node, axes)
    return f"({text})" if node.kind in ("sum", "product") or text.startswith("-") else text
