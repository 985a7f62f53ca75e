"""``isocline methods`` and ``isocline cite``."""

from __future__ import annotations

import json
import sys
from inspect import signature
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from isocline._core.registry import Method, Variant, method_named, methods


def list_methods(
    key: Annotated[Optional[str], typer.Argument(help="One method, in full.")] = None,  # noqa: UP045 - for typer
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the methods: key, room, stated order, paper, and when to choose each.

    One that is named is printed in full; a way of training with its five choices. Example: `isocline methods cem`
    """
    if key is not None:
        method = method_named(key)
        typer.echo(json.dumps(_plain(method), indent=1) if as_json else "\n".join(_lines(method)))
        return
    found = methods()
    if as_json:
        typer.echo(json.dumps([_plain(method) for method in found], indent=1))
        return
    table = Table(show_lines=False)
    for column in ("key", "room", "implementations (order)", "arXiv", "when to choose it"):
        table.add_column(column, overflow="fold", no_wrap=column in ("key", "arXiv"))
    for method in found:
        names = ", ".join(v.name if v.order is None else f"{v.name} ({v.order:g})" for v in method.variants.values())
        table.add_row(method.key, method.room, names, method.arxiv, method.when)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def cite(keys: Annotated[list[str], typer.Argument(help="Method keys, as `isocline methods` lists them.")]) -> None:
    """Print the BibTeX entries of methods."""
    typer.echo("\n\n".join(method_named(key).bibtex() for key in keys))


def _lines(method: Method) -> list[str]:
    """Return a method in full as text."""
    paper = f"{method.authors}, {method.year}" + (f", arXiv {method.arxiv}" if method.arxiv else "")
    shown = [
        f"{method.name} ({method.key}), isocline.{method.room}",
        f"{method.title}; {paper}",
        f"when: {method.when}",
    ]
    for variant in method.variants.values():
        order = "" if variant.order is None else f"  order {variant.order:g}"
        doc = (variant.implementation.__doc__ or "").strip().splitlines()[0]
        shown += ["", f"{variant.name}{signature(variant.implementation)}{order}", f"    {doc}"]
        shown += [f"    {name.replace('_', ' '):17} {value}" for name, value in _choices(variant).items()]
    return shown


def _choices(variant: Variant) -> dict[str, str]:
    """Return the choices a way of training is made of; nothing for other methods."""
    from isocline.objectives import Formulation

    shape = signature(variant.implementation)
    if shape.return_annotation not in ("Formulation", Formulation):
        return {}
    needed = {p.name: 1 for p in shape.parameters.values() if p.default is p.empty}
    formulation: Formulation = variant.implementation(**needed)
    return formulation.choices()


def _plain(method: Method) -> dict[str, object]:
    choices = {v.name: _choices(v) for v in method.variants.values() if _choices(v)}
    return {
        "key": method.key,
        "name": method.name,
        "title": method.title,
        "authors": method.authors,
        "year": method.year,
        "arxiv": method.arxiv,
        "room": method.room,
        "when": method.when,
        "implementations": {v.name: v.order for v in method.variants.values()},
        **({"choices": choices} if choices else {}),
    }
