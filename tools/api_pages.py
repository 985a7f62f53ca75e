"""Pages that follow from the code: one for each room's public names, and the list of methods."""

from __future__ import annotations

from importlib import import_module
from itertools import groupby
from pathlib import Path

from isocline._core.registry import Method, methods
from tools.public_names import rooms


def write_api(folder: Path) -> None:
    """Write ``index.md`` and one page for each room that lists public names."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    homes = home_of_names()
    for room in rooms():
        (folder / f"{room}.rst").write_text(page(room, homes), encoding="utf-8")
    contents = "\n".join(rooms())
    text = f"# Reference\n\nThe public names, room by room.\n\n```{{toctree}}\n:maxdepth: 1\n\n{contents}\n```\n"
    (folder / "index.md").write_text(text, encoding="utf-8")


def home_of_names() -> dict[int, str]:
    """Return the room in which each object is described: the first that lists it, the package itself being last."""
    homes: dict[int, str] = {}
    for room in sorted(rooms(), key=lambda name: (name == "isocline", name.count("."), name)):
        for item in members(room).values():
            homes.setdefault(id(item), room)
    return homes


def members(room: str) -> dict[str, object]:
    """Return the public names of a room with what they stand for."""
    module = import_module(room)
    return {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}


def page(room: str, homes: dict[int, str]) -> str:
    """Return the page of one room; names described elsewhere are pointed to."""
    here = [name for name, item in members(room).items() if homes[id(item)] == room]
    text = [room, "=" * len(room), "", f".. automodule:: {room}"]
    text += [f"   :members: {', '.join(here)}" if here else "   :no-members:", ""]
    for name, item in members(room).items():
        if homes[id(item)] != room:
            text += [f"- ``{name}`` is described in :doc:`{homes[id(item)]}`"]
    return "\n".join(text) + "\n"


def write_methods(path: Path) -> None:
    """Write the list of methods, as the registry knows them, grouped by room."""
    text = ["# Methods", "", "Every published method in the library, from its own entry in the registry.", ""]
    for room, group in groupby(methods(), key=lambda method: method.room):
        text += [f"## {room}", "", *(line for method in group for line in section(method))]
    path.write_text("\n".join(text), encoding="utf-8")


def section(method: Method) -> list[str]:
    """Return the lines on one method: when to choose it, what implements it, how to cite it."""
    names = [f"`{v.name}`" + (f" (order {v.order:g})" if v.order else "") for v in method.variants.values()]
    number = f" [arXiv {method.arxiv}](https://arxiv.org/abs/{method.arxiv})." if method.arxiv else ""
    return [
        f"### {method.name}",
        "",
        method.when,
        "",
        f"*{method.title}*, {method.authors}, {method.year}.{number}",
        "",
        f"In `isocline.{method.room}`: {', '.join(names)}.",
        "",
        "```bibtex",
        method.bibtex(),
        "```",
        "",
    ]
