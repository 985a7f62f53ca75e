"""The registry: keys, duplicates, variants, BibTeX, the nearest name."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isocline._core import registry
from isocline._core.errors import InvalidInput
from isocline._core.registry import Method, method_named, methods

Make = Callable[..., Method]
words = st.text("abcdefghijklmnopqrstuvwxyzABC-':,. ", min_size=1, max_size=30).map(str.strip).filter(bool)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Build methods in a registry of the test's own; the rooms are imported before, so none registers into it."""
    methods()
    monkeypatch.setattr(registry, "_METHODS", {})

    def build(key: str = "heun", **changes: object) -> Method:
        facts = {"name": "Heun", "title": "A title", "authors": "Karras, Aila", "year": 2022, "arxiv": "2206.00364"}
        return Method(key, **(facts | {"room": "plans.solvers", "when": "often"} | changes))  # type: ignore[arg-type]

    return build


def parsed(entry: str) -> tuple[str, dict[str, str]]:
    """Read one BibTeX entry by counting braces: key and fields."""
    head = re.match(r"@(\w+)\{([^,\s]+),", entry)
    assert head is not None, entry
    fields, rest = {}, entry[head.end() :]
    while name := re.match(r"\s*(\w+)\s*=\s*\{", rest):
        end, depth = name.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[end], 0)
            end += 1
        fields[name[1]] = rest[name.end() : end - 1]
        rest = rest[end:].lstrip(",")
    assert rest.strip() == "}", f"left over: {rest!r}"
    return head[2], fields


@pytest.mark.parametrize("key", ["", "Heun", "dpm_solver", "-heun", "heun-", "dpm--solver", "heun 2", "heun\n"])
def test_a_malformed_key_is_refused(make: Make, key: str) -> None:
    with pytest.raises(InvalidInput, match="lower-case-with-dashes"):
        make(key)
    assert methods() == []


@pytest.mark.parametrize("key", ["edm", "dpm-solver-pp", "4d", "a-1-b"])
def test_a_well_formed_key_is_registered(make: Make, key: str) -> None:
    method = make(key)
    assert methods() == [method]
    assert method_named(key) is method


def test_one_key_for_two_methods_is_refused_and_the_first_stays(make: Make) -> None:
    first = make("heun")
    with pytest.raises(InvalidInput, match="two different methods are called 'heun'"):
        make("heun", year=1900)
    assert method_named("heun") is first


def test_the_same_method_again_is_accepted(make: Make) -> None:
    assert make("heun") == make("heun")
    assert len(methods()) == 1


def test_methods_are_sorted_by_room_then_key(make: Make) -> None:
    for key, room in [("b", "plans.tuners"), ("c", "plans.solvers"), ("a", "plans.tuners"), ("d", "plans.grids")]:
        make(key, room=room)
    assert [m.key for m in methods()] == ["d", "c", "a", "b"]


def test_an_unknown_key_names_the_nearest(make: Make) -> None:
    make("dpm-solver")
    make("heun")
    with pytest.raises(InvalidInput, match=r"there is no method 'dpm-solvr'\. Did you mean 'dpm-solver'\?"):
        method_named("dpm-solvr")


def test_marking_a_variant_keeps_the_function_and_records_its_order(make: Make) -> None:
    method = make("heun")

    def heun() -> int:
        return 7

    assert method.variant(order=2)(heun) is heun
    assert method.variants["heun"].implementation is heun
    assert method.variants["heun"].order == 2


@given(title=words, authors=st.lists(words.filter(lambda w: "," not in w), min_size=1, max_size=4))
@settings(deadline=None)
def test_bibtex_gives_back_what_it_was_made_from(title: str, authors: list[str]) -> None:
    method = object.__new__(Method)  # outside the registry
    for name, value in {"key": "k-1", "title": title, "authors": ",".join(authors), "year": 2024, "arxiv": ""}.items():
        object.__setattr__(method, name, value)
    key, fields = parsed(method.bibtex())
    assert key == "k-1"
    assert fields == {"title": title, "author": " and ".join(authors), "year": "2024"}


def test_bibtex_names_the_arxiv_number_only_where_there_is_one(make: Make) -> None:
    assert parsed(make("a").bibtex())[1]["eprint"] == "2206.00364"
    assert "eprint" not in parsed(make("b", arxiv="").bibtex())[1]


def test_every_method_of_the_library_can_be_cited() -> None:
    for method in methods():
        key, fields = parsed(method.bibtex())
        assert key == method.key
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", method.arxiv), f"{key}: arXiv number {method.arxiv!r}"
        assert not re.search(r"(?<!\\)[&%#$_]", "".join(fields.values())), f"{key}: a character TeX reads as its own"
        assert 1700 < method.year <= 2100
        assert method.when, f"{key} does not say when to choose it"
        assert method.variants, f"{key} marks no implementation"
