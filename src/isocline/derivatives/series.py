r"""Truncated Taylor series that go through torch functions like tensors.

A `Series` is a tensor along many curves at once, ``x_r(s) = x + sum_k x_{r,k} s^k``. The point x is shared. Curves of one degree
are a group: coefficient k is one tensor (R, ...) with an axis of curves in front, or without it where the group is a single curve.
Functions fall into four kinds:

    linear        f(x)_k = f(x_k)
    bilinear      f(x, y)_k = sum_i f(x_i, y_{k-i})
    elementwise   f(x)_k = sum_j f^(j)(x)/j! [(x(s) - x)^j]_k
    constant      comparisons, zeros_like: no derivative

A coefficient that is zero by structure is ``None`` and costs nothing. Anything else is refused by name. Fields must treat each
point on its own, as everywhere here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from isocline._core.errors import InvalidInput, require
from isocline.derivatives.composite import COMPOSITE
from isocline.derivatives.elementwise import RULES

Coefficient: TypeAlias = "Tensor | None"


@dataclass(frozen=True)
class Curves:
    """Taylor coefficients of curves of one degree.

    Args:
        coefficients: of order 1 to K; None is zero.
        many: whether each has an axis of curves in front of those of the value.
    """

    coefficients: Sequence[Coefficient]
    many: bool

    def map(self, function: Callable[[Tensor], Tensor]) -> Curves:
        """Apply a function to each coefficient that is not zero."""
        return Curves([None if c is None else function(c) for c in self.coefficients], self.many)


class Series:
    """A tensor with Taylor coefficients along groups of curves.

    Args:
        primal: the value at the point.
        groups: the curves.
    """

    def __init__(self, primal: Tensor, groups: Sequence[Curves]) -> None:
        self.primal, self.groups = primal, groups

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.primal.shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self.primal.dtype

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.primal.device

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.primal.dim()

    def dim(self) -> int:
        """Return the number of axes."""
        return self.primal.dim()

    def size(self, axis: int | None = None) -> Any:
        """Return the shape, or the length of one axis."""
        return self.primal.shape if axis is None else self.primal.shape[axis]

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return apply(function, tuple(args), dict(kwargs or {}))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(torch.Tensor, name, None)
        if name.startswith("__") or not callable(method):
            raise AttributeError(name)
        return lambda *args, **kwargs: apply(method, (self, *args), kwargs)

    def __len__(self) -> int:
        return len(self.primal)

    def __getitem__(self, key: Any) -> Series:
        return mapped(lambda x: x[key], self)

    def __add__(self, other: Any) -> Series:
        return add(self, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Series:
        return multiply(self, other)

    __rmul__ = __mul__

    def __neg__(self) -> Series:
        return Series(-self.primal, [g.map(torch.neg) for g in self.groups])

    def __sub__(self, other: Any) -> Series:
        return add(self, -other)

    def __rsub__(self, other: Any) -> Series:
        return add(-self, other)

    def __truediv__(self, other: Any) -> Series:
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Series:
        return divide(other, self)

    def __pow__(self, exponent: Any) -> Series:
        return elementwise(RULES["pow"], self, exponent)

    def __rpow__(self, base: float) -> Series:
        return elementwise(RULES["exp"], self * math.log(base))

    def __matmul__(self, other: Any) -> Series:
        return matmul(self, other)

    def __rmatmul__(self, other: Tensor) -> Series:
        return matmul(other, self)

    def __gt__(self, other: Any) -> Tensor:
        return self.primal > _value(other)

    def __lt__(self, other: Any) -> Tensor:
        return self.primal < _value(other)

    def __ge__(self, other: Any) -> Tensor:
        return self.primal >= _value(other)

    def __le__(self, other: Any) -> Tensor:
        return self.primal <= _value(other)


def _value(item: Any) -> Any:
    return item.primal if isinstance(item, Series) else item


def mapped(function: Callable[[Any], Any], x: Series) -> Series:
    """Apply a linear function that may look at shapes: to the value, and to each curve's coefficients."""
    return Series(function(x.primal), [g.map(torch.vmap(function) if g.many else function) for g in x.groups])


def linear(x: Series, weight: Tensor, bias: Tensor | None = None) -> Series:
    """Return ``x W^T + b``."""
    fits = isinstance(x, Series) and not isinstance(weight, Series)
    require(fits, "Taylor mode has no rule for weights that depend on x")
    return Series(F.linear(x.primal, weight, bias), [g.map(_once(x, lambda c: F.linear(c, weight))) for g in x.groups])


def _once(x: Series, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of coefficients (..., N, d), each point on its own; one that is the same at all points is used once."""

    def found(c: Tensor) -> Tensor:
        if x.ndim == 2 and c.stride(-2) == 0 and c.shape[-2] > 1:
            return function(c[..., :1, :]).expand(*c.shape[:-1], -1)
        return function(c)

    return found


def _aligned(c: Tensor, axes: int, many: bool) -> Tensor:
    """Return a coefficient with as many axes behind that of the curves, new ones first."""
    missing = axes + 1 - c.dim()
    return c.reshape(c.shape[0], *[1] * missing, *c.shape[1:]) if many and missing > 0 else c


def add(a: Any, b: Any, alpha: float = 1) -> Series:
    """Return ``a + alpha b``; either may be a tensor or a number."""
    b = b if alpha == 1 else alpha * b
    a, b = (a, b) if isinstance(a, Series) else (b, a)
    value = a.primal + _value(b)

    def total(parts: Sequence[Coefficient], many: bool) -> Coefficient:
        known = [_aligned(c, value.dim(), many) for c in parts if c is not None]
        if not known:
            return None
        found = known[0] if len(known) == 1 else known[0] + known[1]
        return found.expand(found.shape[0], *value.shape) if many else found.expand(value.shape)

    others = b.groups if isinstance(b, Series) else [Curves([None] * len(g.coefficients), g.many) for g in a.groups]
    pairs = zip(a.groups, others, strict=True)
    return Series(value, [Curves([total(c, g.many) for c in _pairs(g, h)], g.many) for g, h in pairs])


def _pairs(g: Curves, h: Curves) -> Iterable[tuple[Coefficient, Coefficient]]:
    return zip(g.coefficients, h.coefficients, strict=True)


def multiply(a: Any, b: Any) -> Series:
    """Return the elementwise product; either may be a tensor or a number."""
    a, b = (a, b) if isinstance(a, Series) else (b, a)
    if isinstance(b, Series):
        return _bilinear(_times, a, b)
    value = a.primal * b
    if not isinstance(b, Tensor) or b.dim() == 0:
        return Series(value, [g.map(_once(a, lambda c: c * b)) for g in a.groups])
    return Series(value, [g.map(lambda c, many=g.many: _aligned(c, value.dim(), many) * b) for g in a.groups])


def divide(a: Any, b: Any) -> Series:
    """Return the elementwise quotient."""
    inverse = elementwise(RULES["reciprocal"], b) if isinstance(b, Series) else 1 / b
    return multiply(a, inverse)


def _times(a: Tensor, b: Tensor, many_a: bool, many_b: bool) -> Tensor:
    axes = max(a.dim() - many_a, b.dim() - many_b)
    return _aligned(a, axes, many_a) * _aligned(b, axes, many_b)


def _bilinear(times: Callable[[Tensor, Tensor, bool, bool], Tensor], a: Series, b: Series) -> Series:
    """Return the Cauchy product; ``times(x, y, m, n)`` is told which of its factors have an axis of curves."""

    def product(g: Curves, h: Curves) -> Curves:
        x, y = [a.primal, *g.coefficients], [b.primal, *h.coefficients]
        found = [_sum(_terms(times, x, y, k, g.many)) for k in range(1, len(x))]
        return Curves(found, g.many)

    groups = [product(g, h) for g, h in zip(a.groups, b.groups, strict=True)]
    return Series(times(a.primal, b.primal, False, False), groups)


def _terms(
    times: Callable[[Tensor, Tensor, bool, bool], Tensor],
    x: list[Coefficient],
    y: list[Coefficient],
    k: int,
    many: bool,
) -> Iterable[Tensor]:
    for i in range(k + 1):
        left, right = x[i], y[k - i]
        if left is not None and right is not None:
            yield times(left, right, many and i > 0, many and i < k)


def _sum(terms: Iterable[Tensor]) -> Coefficient:
    total: Coefficient = None
    for term in terms:
        total = term if total is None else total + term
    return total


def _bilinear_by_vmap(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, bool, bool], Tensor]:
    def times(a: Tensor, b: Tensor, many_a: bool, many_b: bool) -> Tensor:
        if not (many_a or many_b):
            return function(a, b)
        return torch.vmap(function, in_dims=(0 if many_a else None, 0 if many_b else None))(a, b)

    return times


def matmul(a: Any, b: Any) -> Series:
    """Return the matrix product; either may be a tensor."""
    if isinstance(a, Series) and isinstance(b, Series):
        return _bilinear(_bilinear_by_vmap(torch.matmul), a, b)
    if isinstance(a, Series):
        return linear(a, b.T) if b.dim() == 2 and a.dim() >= 2 else mapped(lambda x: torch.matmul(x, b), a)
    return mapped(lambda x: torch.matmul(a, x), b)


def vecdot(a: Any, b: Any, dim: int = -1) -> Series:
    """Return the products of vectors along the last axis; directions that all points share are multiplied once."""
    both = isinstance(a, Series) and isinstance(b, Series) and a.ndim == b.ndim == 2 and dim in (-1, 1)
    require(both, "Taylor mode takes vecdot of two fields (N, d) along their last axis")
    return _bilinear(_dot, a, b)


def _dot(a: Tensor, b: Tensor, many_a: bool, many_b: bool) -> Tensor:
    """Return (N,), or (R, N) where a factor has an axis of curves in front."""
    a, b = (b, a) if many_b and not many_a else (a, b)
    short = [c[..., :1, :] if c.stride(-2) == 0 else c for c in (a, b)]
    if (many_a != many_b) and short[0].shape[-2] == 1:
        return short[0][:, 0] @ short[1].T
    found = (short[0] * short[1]).sum(-1)
    return found.expand(*found.shape[:-1], a.shape[-2])


def elementwise(rule: Callable[..., list[Tensor]], x: Series, *args: Any, **kwargs: Any) -> Series:
    """Compose with a function of one variable whose coefficients `rule` gives, by powers of ``x(s) - x``."""
    outer = rule(x.primal, max(len(g.coefficients) for g in x.groups), *args, **kwargs)
    return Series(outer[0], [_composed(outer, g) for g in x.groups])


def _composed(outer: list[Tensor], x: Curves) -> Curves:
    order = len(x.coefficients)
    found: list[Coefficient] = [None if c is None else outer[1] * c for c in x.coefficients]
    power = list(x.coefficients)
    for j in range(2, order + 1):
        power = _raised(power, x)
        for k in range(j, order + 1):
            term, known = power[k - 1], found[k - 1]
            if term is not None:
                found[k - 1] = outer[j] * term if known is None else known + outer[j] * term
    return Curves(found, x.many)


def _raised(power: list[Coefficient], x: Curves) -> list[Coefficient]:
    """Return the coefficients of a power of ``x(s) - x`` times one more of it."""

    def terms(k: int) -> Iterable[Tensor]:
        for i in range(1, k):
            left, right = power[i - 1], x.coefficients[k - i - 1]
            if left is not None and right is not None:
                yield left * right

    return [_sum(terms(k)) for k in range(1, len(x.coefficients) + 1)]


def joined(function: Callable[..., Any], parts: list[Any], *args: Any, **kwargs: Any) -> Series:
    """Apply cat, stack or where: linear in all parts together; a plain tensor among them has no derivative."""
    first = next(part for part in parts if isinstance(part, Series))
    values = [torch.as_tensor(_value(part), dtype=first.dtype, device=first.device) for part in parts]

    def at(g: int, k: int) -> Coefficient:
        many = first.groups[g].many
        known = [part.groups[g].coefficients[k] if isinstance(part, Series) else None for part in parts]
        lengths = [c.shape[:1] for c in known if c is not None]
        if not lengths:
            return None
        zero = [v.new_zeros(()).expand(*(lengths[0] if many else ()), *v.shape) for v in values]
        full = [z if c is None else c for c, z in zip(known, zero, strict=True)]
        at_one = lambda *x: function(list(x), *args, **kwargs)  # noqa: E731
        return (torch.vmap(at_one) if many else at_one)(*full)

    groups = [Curves([at(g, k) for k in range(len(c.coefficients))], c.many) for g, c in enumerate(first.groups)]
    return Series(function(values, *args, **kwargs), groups)


def _where(mask: Any, a: Any, b: Any) -> Series:
    require(not isinstance(mask, Series), "where takes a mask of booleans")
    return joined(lambda parts: torch.where(mask, *parts), [a, b])


def _split(
    x: Series, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Series, ...]:
    pieces = len(function(x.primal, *args, **kwargs))
    return tuple(mapped(lambda y, i=i: function(y, *args, **kwargs)[i], x) for i in range(pieces))  # type: ignore[misc]


def _dropout(x: Series, p: float = 0.5, training: bool = True, inplace: bool = False) -> Series:
    require(
        not training or p == 0, "derivatives through random masks are not those of one field; call field.eval() first"
    )
    return x


def _einsum(equation: str, *operands: Any) -> Series:
    parts = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    places = [place for place, part in enumerate(parts) if isinstance(part, Series)]
    require(len(places) <= 2, "Taylor mode takes einsum with at most two operands that depend on x")

    def filled(*values: Tensor) -> Tensor:
        whole = list(parts)
        for place, value in zip(places, values, strict=True):
            whole[place] = value
        return torch.einsum(equation, *whole)

    if len(places) == 1:
        return mapped(filled, parts[places[0]])
    return _bilinear(_bilinear_by_vmap(filled), parts[places[0]], parts[places[1]])


SHAPES = frozenset(
    {"__getitem__", "clone", "contiguous", "cumsum", "diff", "expand", "expand_as", "flatten", "flip", "gather"}
    | {"index_select", "mean", "movedim", "narrow", "permute", "repeat", "reshape", "roll", "select", "squeeze", "sum"}
    | {"swapaxes", "take_along_dim", "tile", "transpose", "unflatten", "unsqueeze", "view", "view_as"}
)
PIECES = frozenset({"chunk", "split", "tensor_split", "unbind"})
CONSTANTS = frozenset(
    {"eq", "ge", "gt", "le", "lt", "ne", "full_like", "ones_like", "zeros_like", "new_ones", "new_zeros", "new_full"}
    | {"new_tensor", "numel", "is_floating_point", "is_complex"}
)
SPECIAL: dict[str, Callable[..., Any]] = {
    "linear": linear,
    "add": add,
    "sub": lambda a, b, alpha=1: add(a, (-alpha) * b),
    "subtract": lambda a, b: a - b,
    "rsub": lambda a, b: b - a,
    "mul": multiply,
    "multiply": multiply,
    "div": divide,
    "divide": divide,
    "true_divide": divide,
    "neg": lambda x: -x,
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "einsum": _einsum,
    "linalg_vecdot": vecdot,
    "where": _where,
    "dropout": _dropout,
    "cat": lambda parts, *args, **kwargs: joined(torch.cat, list(parts), *args, **kwargs),
    "concat": lambda parts, *args, **kwargs: joined(torch.cat, list(parts), *args, **kwargs),
    "stack": lambda parts, *args, **kwargs: joined(torch.stack, list(parts), *args, **kwargs),
}


def apply(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function of torch on series."""
    written = getattr(function, "__name__", str(function))
    name = written if written in SHAPES else written.strip("_")
    if name in SPECIAL:
        return SPECIAL[name](*args, **kwargs)
    first = args[0] if args else None
    if not isinstance(first, Series):
        raise InvalidInput(_refusal(name))
    if name in RULES:
        kwargs.pop("inplace", None)
        return elementwise(RULES[name], first, *args[1:], **kwargs)
    if name in COMPOSITE:
        return COMPOSITE[name](*args, **kwargs)
    if name in CONSTANTS:
        return function(*(_value(item) for item in args), **kwargs)
    rest = tuple(_value(item) if name.endswith("_as") else item for item in args[1:])
    if any(isinstance(item, Series) for item in rest):
        raise InvalidInput(_refusal(name))
    if name in PIECES:
        return _split(first, function, rest, kwargs)
    if name in SHAPES:
        return mapped(lambda x: function(x, *rest, **kwargs), first)
    raise InvalidInput(_refusal(name))


def _refusal(name: str) -> str:
    return f"Taylor mode has no rule for {name}; pass backend=nested_autograd, or write the field without it"
