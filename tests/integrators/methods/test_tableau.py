"""Tableaux prove themselves: what is right passes, what is damaged is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isocline._core.errors import InvalidInput
from isocline.integrators import RK4, ExplicitRungeKutta, Tableau
from isocline.integrators.methods.tableau import defect, density, elementary_weights, size, trees
from tests.contracts.integrators import INTEGRATORS

TABLEAUX = {e.name: e.method.tableau for e in INTEGRATORS if isinstance(e.method, ExplicitRungeKutta)}
EACH = pytest.mark.parametrize("table", TABLEAUX.values(), ids=TABLEAUX.keys())


def test_trees_are_as_many_as_there_are() -> None:
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert all(size(tree) == n for n in range(1, 9) for tree in trees(n))


def test_densities_of_tall_and_of_bushy_trees() -> None:
    tall: Any = ()
    for n in range(1, 8):
        bushy: Any = ((),) * (n - 1)
        assert density(bushy) == n
        assert density(tall) == np.prod(np.arange(1, n + 1))
        tall = (tall,)


def by_hand(a: np.ndarray, b: np.ndarray) -> list[float]:
    """The eight conditions up to order 4, as textbooks write them."""
    c = a.sum(1)
    return [
        b.sum() - 1,
        b @ c - 1 / 2,
        b @ c**2 - 1 / 3,
        b @ a @ c - 1 / 6,
        b @ c**3 - 1 / 4,
        (b * c) @ a @ c - 1 / 8,
        b @ a @ c**2 - 1 / 12,
        b @ a @ a @ c - 1 / 24,
    ]


def test_conditions_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(0)
    a, b = np.tril(rng.normal(size=(5, 5)), -1), rng.normal(size=5)
    assert len(elementary_weights(a, 4)) == 8
    assert defect(a, b, 4) == pytest.approx(max(map(abs, by_hand(a, b))), rel=1e-12)


@EACH
def test_the_stated_order_is_the_highest(table: Tableau) -> None:
    b, e = np.array(table.b), np.array(table.error)
    assert defect(table.matrix, b, table.order + 1) > 1e-6
    if table.error and table.order < 8:
        assert defect(table.matrix, b - e, table.embedded_order + 1) > 1e-6


@EACH
def test_a_damaged_coefficient_is_refused(table: Tableau) -> None:
    for what in ("a", "b", "c", "error", "powers"):
        for k in range(len(getattr(table, what))):
            with pytest.raises(InvalidInput, match=re.escape(table.name)):
                replace(table, **{what: damaged(getattr(table, what), k)})


def damaged(values: Any, k: int) -> Any:
    """Add 1e-6 to one number: the k-th, or the first one that is not zero in the k-th row."""
    changed = [list(v) if isinstance(v, tuple) else v for v in values]
    if isinstance(changed[k], list):
        place = next(i for i, v in enumerate(changed[k]) if v != 0.0)
        changed[k][place] += 1e-6
    else:
        changed[k] += 1e-6
    return tuple(tuple(v) if isinstance(v, list) else v for v in changed)


@EACH
def test_damage_that_keeps_all_sums_is_refused(table: Tableau) -> None:
    if table.order < 3:
        pytest.skip("sums are all that two stages have")
    for k in range(1, len(table.a) - table.late - table.last_is_solution):
        row = list(table.a[k])
        row[0] += 1e-6
        row[-1] -= 1e-6
        with pytest.raises(InvalidInput, match="order condition"):
            replace(table, a=(*table.a[:k], tuple(row), *table.a[k + 1 :]))


def test_an_order_that_is_too_high_is_refused() -> None:
    with pytest.raises(InvalidInput, match="weights violate an order condition up to 5"):
        replace(RK4().tableau, order=5)


def test_shapes_are_checked() -> None:
    with pytest.raises(InvalidInput, match="rows of a have lengths"):
        Tableau("odd", a=((1.0, 0.0),), b=(0.5, 0.5), order=2)
    with pytest.raises(InvalidInput, match="error estimate needs 2 weights"):
        Tableau("odd", a=((1.0,),), b=(0.5, 0.5), order=2, error=(1.0,), embedded_order=1)
    with pytest.raises(InvalidInput, match="reads stages that only the interpolant may"):
        replace(RK4().tableau, late=1)
