"""``isocline methods`` and ``isocline cite``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from isocline._core.registry import Method, method_named, methods


def list_methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the methods: key, room, stated order, paper, and when to choose each."""
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


def _plain(method: Method) -> dict[str, object]:
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
    }
