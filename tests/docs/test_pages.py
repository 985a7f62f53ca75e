"""The pages work: each page's Python blocks are run in order, in one namespace and an empty folder.

A block that must not run (it needs a download, say) begins with ```` ```python no-run ````.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "docs/theory", "docs/tuners")
PAGES = [*(page for folder in FOLDERS for page in sorted(ROOT.glob(f"{folder}/*.md"))), ROOT / "README.md"]
FENCE = re.compile(r"^```python *(?P<mark>[\w-]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the code of each block that runs; an unknown mark is an error, so that none is skipped by a slip."""
    for match in FENCE.finditer(text):
        assert match["mark"] in ("", "no-run"), f"unknown mark {match['mark']!r} on a Python block"
        if not match["mark"]:
            yield text.count("\n", 0, match.start("code")), match["code"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    for line, code in blocks(page.read_text(encoding="utf-8")):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_every_python_block_is_found() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(FENCE.findall(text)) == len(re.findall(r"^\s*```\s*py", text, re.MULTILINE)), page.name


def test_blocks_keep_their_lines_and_skip_only_what_is_marked() -> None:
    text = "one\n```python\na = 1\n```\n```python no-run\nb\n```\n```bash\nc\n```\n```python\nd = 2\n```\n"
    assert list(blocks(text)) == [(2, "a = 1\n"), (11, "d = 2\n")]
