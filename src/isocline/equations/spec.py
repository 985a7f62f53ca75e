r"""A family of equations, written once: for residuals, solvers and documentation.

An evolution equation ``u_t = ...`` is taken apart into what is linear with constant coefficients, which Fourier methods treat
exactly, and the rest:

    d_t u_i = sum_{j, a} c_{i j a} D^a u_j + N_i(u, D u, ..., x, t; p) .
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from isocline._core.errors import require
from isocline.derivatives import Unknown
from isocline.derivatives.spec import Index
from isocline.equations.conditions import Condition, Equation
from isocline.equations.expression import Node, tree
from isocline.equations.problem import Problem, rows
from isocline.points import Domain


@dataclass(frozen=True, eq=False)
class EquationSpec:
    """Equations of one kind; numbers are put in later.

    Args:
        name: of the family.
        residual: ``(u, q, p)`` as in `Problem`; zero where the equations hold.
        fields: names of the unknowns.
        axes: names of the coordinates of space.
        parameters: what each parameter means, by name.

    Raises:
        InvalidInput: the residual fails on these names, or cannot be read as a formula.

    Examples:
        >>> heat = EquationSpec("heat", lambda u, q, p: u.t - p.k * u.xx, ("u",), ("x",), {"k": "conductivity"})
        >>> heat.formula
        ('u_t - k u_xx = 0',)
        >>> heat.linear({"k": 2.0})
        {('u', 'u', (0, 0)): 2.0}
    """

    name: str
    residual: Equation
    fields: tuple[str, ...]
    axes: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.fields) and bool(self.axes), f"{self.name}: an equation needs fields and axes")
        require("t" not in self.axes, f"{self.name}: t is time, the axes are those of space")
        _ = self.tree

    @property
    def names(self) -> tuple[str, ...]:
        """The coordinates: those of space, then ``t``."""
        return (*self.axes, "t")

    @cached_property
    def tree(self) -> tuple[Node, ...]:
        """The equations, one tree each."""
        return tree(self.residual, self.fields, self.names, tuple(self.parameters))

    @property
    def formula(self) -> tuple[str, ...]:
        """The equations, one line each."""
        return tuple(f"{node.written(self.names)} = 0" for node in self.tree)

    @property
    def steady(self) -> bool:
        """Whether neither time nor a derivative in time occurs."""
        time = len(self.axes)
        derivatives = any(time in found.value[1] for node in self.tree for found in node.fields())
        return not derivatives and not any("t" in node.names() for node in self.tree)

    def problem(
        self,
        domain: Domain,
        conditions: Sequence[Condition] = (),
        parameters: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Problem:
        """Return the equations on a domain, with conditions and numbers: a `Problem`."""
        missing = set(self.parameters) - set(parameters or {})
        require(not missing, f"{self.name} needs numbers for {', '.join(sorted(missing))}")
        more = {"components": len(self.fields), "name": self.name, **more}
        return Problem(domain, self.residual, conditions, parameters, **more)

    def linear(self, parameters: Mapping[str, float]) -> dict[tuple[str, str, Index], float]:
        """Return the coefficients ``c`` of the part that is linear with constant coefficients.

        Args:
            parameters: numbers; those left out are taken to vary, so that their terms count to the rest.

        Returns:
            Coefficients by the field whose rate it is, the field in the term, and the derivative in space.

        Raises:
            InvalidInput: an equation is not of the form ``u_t + ... = 0``.
        """
        found: dict[tuple[str, str, Index], float] = {}
        for name, scale, terms in self._rates:
            for term in terms:
                inside = self._linear(term, parameters)
                if inside is not None:
                    key = (name, *inside[0])
                    found[key] = found.get(key, 0.0) - inside[1] / scale
        return found

    @cached_property
    def _rates(self) -> tuple[tuple[str, float, tuple[Node, ...]], ...]:
        """For every equation: whose rate it gives, the factor of the rate, the other terms."""
        time = (len(self.axes),)
        found = []
        for text, node in zip(self.formula, self.tree, strict=True):
            terms = node.terms
            rates = [t for t in terms if any(f.value[1] == time for f in t.fields())]
            require(len(rates) == 1 and len(rates[0].fields()) == 1, f"{text} does not have the form u_t + ... = 0")
            rate, others = rates[0], tuple(term for term in terms if term is not rates[0])
            (one,) = rate.fields()
            require(
                not any(len(self.axes) in f.value[1] for t in others for f in t.fields()),
                f"{text} has more than one derivative in time",
            )
            factor = Node("product", parts=tuple(part for part in rate.parts if part != one))
            scale = factor.number({})
            found.append((one.value[0], scale, others))
        return tuple(found)

    @staticmethod
    def _linear(term: Node, parameters: Mapping[str, float]) -> tuple[tuple[str, Index], float] | None:
        """Return a term's derivative and its coefficient, where it is one derivative times known numbers."""
        fields = term.fields()
        if len(fields) != 1 or not term.names() <= set(parameters):
            return None
        parts = term.parts if term.kind == "product" else (term,)
        if fields[0] not in parts:
            return None
        rest = Node("product", parts=tuple(p for p in parts if p != fields[0]))
        return fields[0].value, rest.number(parameters)

    def values(self, read: Callable[[str, Index], Tensor], q: Any, p: Any) -> tuple[Tensor, ...]:
        """Return the residual of fields whose derivatives `read` gives, by name and multi-index (time is the last axis).

        Args:
            read: ``("u", (0, 0)) -> Tensor`` of any shape.
            q: coordinates by name, as attributes or in a mapping; of shapes that fit.
            p: parameters, likewise.
        """

        def reader(name: str) -> Callable[[Index], Tensor]:
            return lambda index: read(name, index)

        unknowns = tuple(Unknown(reader(name), self.names) for name in self.fields)
        u = unknowns[0] if len(unknowns) == 1 else unknowns
        found = self.residual(u, _attributes(q), _attributes(p))
        return tuple(row.value if isinstance(row, Unknown) else row for row in rows(found))


def _attributes(item: Any) -> Any:
    return SimpleNamespace(**item) if isinstance(item, Mapping) else item
