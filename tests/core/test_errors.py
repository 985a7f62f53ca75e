"""Errors: one line each, caught by one name and by the built-in name."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isocline._core import errors

BUILTIN = {
    errors.InvalidInput: ValueError,
    errors.Mismatch: ValueError,
    errors.NotFinite: FloatingPointError,
    errors.DataMissing: FileNotFoundError,
    errors.BadFile: ValueError,
    errors.CannotWrite: OSError,
    errors.ExtraMissing: ImportError,
}
names = st.text(string.ascii_lowercase + "-", min_size=1, max_size=12)


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.__name__)
def test_an_error_is_caught_by_both_its_names_and_keeps_its_text(kind: type[errors.IsoclineError]) -> None:
    for name in (errors.IsoclineError, BUILTIN[kind]):
        with pytest.raises(name, match=r"^no x; pass y$"):
            raise kind("no x; pass y")


def test_every_error_of_the_module_is_in_the_list() -> None:
    found = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.IsoclineError)}
    assert found - {errors.IsoclineError} == set(BUILTIN)


def test_require_raises_only_when_the_condition_fails() -> None:
    errors.require(True, "unused")
    with pytest.raises(errors.InvalidInput, match=r"^the grid is empty$"):
        errors.require(False, "the grid is empty")


@given(st.sets(names, min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_a_known_name_is_its_own_nearest(choices: set[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(choices)))
    assert errors.nearest(name, choices) == f"Did you mean '{name}'?"


@given(st.permutations(["ddim", "euler", "heun"]))
@settings(deadline=None)
def test_the_hint_does_not_depend_on_the_order_of_the_choices(choices: list[str]) -> None:
    assert errors.nearest("hein", choices) == "Did you mean 'heun'?"
    assert errors.nearest("0", iter(choices)) == "Choose from: ddim, euler, heun."
