"""Files of the repository that repeat a fact agree with its source."""

import re
from pathlib import Path

import pytest

import isocline

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ]", requirement, maxsplit=1)[0]


def test_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == PROJECT["version"] == isocline.__version__


def test_the_changelog_has_a_place_for_what_comes() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert PROJECT["version"] == "0.1.0" or any(PROJECT["version"] in heading for heading in headings)


def test_every_tested_requirement_has_its_version() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = {name_of(r) for r in [*PROJECT["dependencies"], *extras["dev"], *extras["docs"]]}
    pinned = {name_of(line) for line in CONSTRAINTS.splitlines() if re.match(r"[\w-]+==", line)}
    assert wanted <= pinned, f"constraints.txt does not pin {', '.join(sorted(wanted - pinned))}"


def test_no_requirement_excludes_its_tested_version_or_brings_torchvision() -> None:
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    assert all("==" not in r and "torchvision" not in r for r in [*PROJECT["dependencies"], *extras])


def test_the_makefile_says_what_each_target_does() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)[0].split())
    assert phony == set(re.findall(r"^(\w+):.*##", text, re.MULTILINE))
