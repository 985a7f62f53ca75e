"""The public names of isocline: what its rooms list in ``__all__``. Run this to renew ``tests/public_names.txt``.

A name in that file is a promise (see CONTRIBUTING.md, "Public names"): it goes only after a deprecation.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import isocline

SNAPSHOT = Path(__file__).resolve().parent.parent / "tests" / "public_names.txt"


def rooms() -> list[str]:
    """Return the dotted names of the package, its rooms and their public packages that list names, in order."""
    found = pkgutil.walk_packages(isocline.__path__, "isocline.")
    packages = ["isocline", *(m.name for m in found if m.ispkg and not any(p[0] == "_" for p in m.name.split(".")))]
    return sorted(name for name in packages if getattr(importlib.import_module(name), "__all__", None))


def public_names() -> list[str]:
    """Return every public name, dotted and sorted; a listed name that does not exist is an error."""
    names = []
    for room in rooms():
        module = importlib.import_module(room)
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        if missing:
            raise AttributeError(f"{room}.__all__ lists {', '.join(missing)}, which it does not have")
        names += [f"{room}.{name}" for name in module.__all__]
    return sorted(names)


def main() -> None:
    """Write the snapshot."""
    names = public_names()
    SNAPSHOT.write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{SNAPSHOT.name}: {len(names)} names")


if __name__ == "__main__":
    main()
