"""The registry of methods: filled by the methods themselves, read by ``isocline methods`` and ``isocline cite``.

A module that implements a published method defines one `Method` and marks the functions or classes that implement it:

    HEUN = Method("edm", "EDM samplers", "Elucidating the Design Space ...", "Karras, Aittala, Aila, Laine", 2022, "2206.00364",
                  room="plans.solvers", when="...")

    @HEUN.variant(order=2)
    def heun(process, times, ...): ...
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from isocline._core.errors import InvalidInput, nearest, require

T = TypeVar("T", bound=Callable[..., Any])
_METHODS: dict[str, Method] = {}


@dataclass(frozen=True)
class Variant:
    """One implementation of a method: its public name, the function or class, and its stated order of accuracy."""

    name: str
    implementation: Callable[..., Any]
    order: float | None


@dataclass(frozen=True)
class Method:
    """A published method.

    Args:
        key: the registry key, for example ``dpm-solver-pp``.
        name: what people call it.
        title: title of the paper.
        authors: surnames, separated by commas.
        year: year of the paper.
        arxiv: arXiv number, or an empty string.
        room: the room it lives in, for example ``plans.solvers``.
        when: one line on when to choose it.
    """

    key: str
    name: str
    title: str
    authors: str
    year: int
    arxiv: str
    room: str
    when: str
    variants: dict[str, Variant] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        require(
            bool(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.key)),
            f"a method key is lower-case-with-dashes: {self.key}",
        )
        known = _METHODS.get(self.key)
        require(known is None or known == self, f"two different methods are called {self.key!r}")
        _METHODS[self.key] = self

    def variant(self, *, order: float | None = None) -> Callable[[T], T]:
        """Mark a function or class as an implementation with a stated order (None where the paper states none)."""

        def mark(implementation: T) -> T:
            name = implementation.__name__
            self.variants[name] = Variant(name, implementation, order)
            return implementation

        return mark

    def bibtex(self) -> str:
        """Return the BibTeX entry of the paper."""
        names = " and ".join(name.strip() for name in self.authors.split(","))
        lines = [f"  title = {{{self.title}}}", f"  author = {{{names}}}", f"  year = {{{self.year}}}"]
        if self.arxiv:
            lines += [f"  eprint = {{{self.arxiv}}}", "  archivePrefix = {arXiv}"]
        return "@article{" + self.key + ",\n" + ",\n".join(lines) + "\n}"


def methods() -> list[Method]:
    """Return every method of the library, sorted by room and key; imports all rooms."""
    root = importlib.import_module("isocline")
    for module in pkgutil.walk_packages(root.__path__, "isocline."):
        if not module.name.startswith("isocline.cli"):
            importlib.import_module(module.name)
    return sorted(_METHODS.values(), key=lambda m: (m.room, m.key))


def method_named(key: str) -> Method:
    """Return the method with that key, or raise an error that names the nearest one."""
    known = {method.key: method for method in methods()}
    if key not in known:
        raise InvalidInput(f"there is no method {key!r}. {nearest(key, known)}")
    return known[key]
