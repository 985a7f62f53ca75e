"""Refuse built pages that load anything from another host.

Links a reader may click are fine; scripts, styles, fonts, images and frames must come with the pages.

    python tools/check_docs.py docs/_build/html
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADING = {"stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "icon", "manifest"}
REMOTE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
IN_SCRIPT = re.compile(r"(?:\bimport\s*\(?|\bfrom|\bfetch\(|importScripts\()\s*[\"'`](https?://[^\"'`]+)")


class Assets(HTMLParser):
    """Collects the addresses a browser would load without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the attributes that load something."""
        values = {name: value or "" for name, value in attrs}
        self._inside = tag
        loads = [values.get("src", ""), values.get("poster", ""), values.get("data", "") if tag == "object" else ""]
        loads += [part.strip().split(" ")[0] for part in values.get("srcset", "").split(",")]
        if tag == "link" and LOADING & set(values.get("rel", "").lower().split()):
            loads.append(values.get("href", ""))
        self.found += [address for address in loads if REMOTE.match(address)]
        self.found += IN_STYLE.findall(values.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        """Leave a style or script."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Look into inline styles and scripts."""
        if self._inside == "style":
            self.found += IN_STYLE.findall(data)
        elif self._inside == "script":
            self.found += IN_SCRIPT.findall(data)


def remote_assets(path: Path) -> list[str]:
    """Return the remote addresses that one built file loads."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".html":
        parser = Assets()
        parser.feed(text)
        return parser.found
    return (IN_STYLE if path.suffix == ".css" else IN_SCRIPT).findall(text)


def main(folder: str) -> int:
    """Print what is wrong; return the exit status."""
    pages = [path for path in sorted(Path(folder).rglob("*")) if path.suffix in {".html", ".css", ".js"}]
    if not pages:
        print(f"there are no pages in {folder}")
        return 1
    bad = {path: found for path in pages if (found := remote_assets(path))}
    for path, found in bad.items():
        print(f"{path} loads {', '.join(sorted(set(found)))}")
    print(f"{len(pages)} files, {len(bad)} load from other hosts")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
