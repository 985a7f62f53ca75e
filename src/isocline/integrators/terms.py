r"""Terms: what drives the state.

    ODE          dy = f(t, y) dt
    Semilinear   dy = (L y + N(t, y)) dt                L linear, stiff and cheap to exponentiate

A term is *bound* to its arguments, to the packing of the state and to a counter before the loop starts; methods then see plain
functions of tensors, and no evaluation can go uncounted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, require
from isocline.integrators.packing import Packing

Field = Callable[..., Any]
T = TypeVar("T", bound="Terms")


@dataclass(frozen=True)
class Each:
    """An argument with one row for each sample, shape (B, *).

    Where samples have steps of their own, the field is given the rows of the samples that are still under way.
    """

    rows: Tensor


class Counter:
    """Counts evaluations at the boundary of the vector field."""

    def __init__(self) -> None:
        self.evaluations = 0


@dataclass(frozen=True)
class Binding:
    """What a vector field is called with besides time and state."""

    args: Any = None
    packing: Packing | None = None
    counter: Counter | None = None
    rows: Tensor | None = None

    def call(self, function: Field, t: Tensor, y: Tensor) -> Tensor:
        """Return ``function(t, y)``, or ``function(t, y, args)`` where there are arguments, packed and counted."""
        return self._checked(self._raw(function, t, y), y)

    def called(self, function: Field, t: Tensor, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the same for a function that returns a tensor of another shape, for a state that is one tensor."""
        if self.packing is not None and self.packing.spec is not None:
            raise InvalidInput("a matrix of diffusions needs a state that is one tensor")
        out = self._raw(function, t, y)
        if not isinstance(out, Tensor) or out.shape != shape or out.dtype != y.dtype:
            seen = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise InvalidInput(f"the diffusion returned {seen}; expected {y.dtype} {tuple(shape)}")
        return out

    def _raw(self, function: Field, t: Tensor, y: Tensor) -> Any:
        if self.counter is not None:
            self.counter.evaluations += 1
        state = y if self.packing is None else self.packing.unpack(y)
        return function(t, state) if self.args is None else function(t, state, self.rows_of(self.args))

    def rows_of(self, args: Any) -> Any:
        """Return the arguments with the rows of the samples under way in place of `Each`."""
        return pytree.tree_map(self._rows, args, is_leaf=lambda x: isinstance(x, Each))

    def _rows(self, leaf: Any) -> Any:
        if not isinstance(leaf, Each):
            return leaf
        return leaf.rows if self.rows is None else leaf.rows[self.rows]

    def _checked(self, out: Any, y: Tensor) -> Tensor:
        packed = out if self.packing is None else self.packing.pack(out)
        if not isinstance(packed, Tensor):
            raise InvalidInput(f"the vector field returned {type(packed).__name__}, not the structure of the state")
        if packed.shape != y.shape:
            raise InvalidInput(
                f"the vector field returned shape {tuple(packed.shape)} for a state of shape {tuple(y.shape)}; "
                "where samples have steps of their own, pass values with one row a sample as args=Each(rows)"
            )
        if packed.dtype != y.dtype:
            raise InvalidInput(f"the vector field returned {packed.dtype} for a state of {y.dtype}; cast one of them")
        return packed


class Terms(Protocol):
    """What a method needs to know of an equation."""

    @property
    def binding(self) -> Binding:
        """What its functions are called with."""
        ...

    def functions(self) -> tuple[Any, ...]:
        """Return the callables whose parameters gradients are wanted for."""
        ...


def bound(terms: T, args: Any, packing: Packing, counter: Counter | None = None) -> T:
    """Return the terms ready for a method: with arguments, packing and, where evaluations are counted, a counter."""
    return replace(terms, binding=Binding(args, packing, counter))  # type: ignore[type-var]


def restricted(terms: T, rows: Tensor) -> T:
    """Return bound terms that see only some of the samples; the counter is shared."""
    return replace(terms, binding=replace(terms.binding, rows=rows))  # type: ignore[type-var]


@dataclass(frozen=True)
class ODE:
    """The ordinary differential equation ``dy = f(t, y) dt``.

    Args:
        field: ``f(t, y)``, or ``f(t, y, args)`` where `integrate` is given arguments; returns the structure of ``y``. ``t`` is a
            tensor in the precision of ``y``, of shape () or, where samples have steps of their own, (B, 1, ..., 1).

    Examples:
        >>> import torch
        >>> from isocline.integrators import ODE, integrate
        >>> decay = ODE(lambda t, y: -y)
        >>> round(float(integrate(decay, torch.ones(1, dtype=torch.float64), 0.0, 1.0).y1), 4)
        0.3679
    """

    field: Field
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the packed derivative at packed `y`; counts as one evaluation."""
        return self.binding.call(self.field, t, y)

    def functions(self) -> tuple[Any, ...]:
        """Return the vector field."""
        return (self.field,)


@dataclass(frozen=True)
class Semilinear:
    """The equation ``dy = (L y + N(t, y)) dt`` with a diagonal or dense linear part.

    Args:
        linear: ``L``: the diagonal, a tensor that broadcasts against ``y`` (spectral methods), or a square matrix (n, n) that
            acts on the last axis of ``y``.
        nonlinear: ``N(t, y)`` or ``N(t, y, args)``.
        dense: whether `linear` is a matrix.
    """

    linear: Tensor
    nonlinear: Field
    dense: bool = False
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)

    def __post_init__(self) -> None:
        square = self.linear.ndim == 2 and self.linear.shape[0] == self.linear.shape[1]
        require(not self.dense or square, f"a dense linear part is a square matrix, got {tuple(self.linear.shape)}")

    def rest(self, t: Tensor, y: Tensor) -> Tensor:
        """Return ``N(t, y)``; counts as one evaluation."""
        return self.binding.call(self.nonlinear, t, y)

    def apply(self, y: Tensor) -> Tensor:
        """Return ``L y``; not counted."""
        return y @ self.linear.mT if self.dense else self.linear * y

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return ``L y + N(t, y)``, so that any method can integrate the same equation."""
        return self.apply(y) + self.rest(t, y)

    def functions(self) -> tuple[Any, ...]:
        """Return the nonlinear part; `linear` is an ordinary tensor."""
        return (self.nonlinear, self.linear)
