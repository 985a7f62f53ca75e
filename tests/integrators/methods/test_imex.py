from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import PID, Additive, KenCarp3, KenCarp4, KenCarp5, Rodas5P, Semilinear, Split, integrate
from isocline.integrators.methods.imex import coloured_weights, coupling_defect
from isocline.integrators.methods.tableau import trees

PAIRS = pytest.mark.parametrize("method", [KenCarp3(), KenCarp4(), KenCarp5()], ids=lambda m: type(m).__name__)


def test_every_edge_of_a_tree_is_coloured_both_ways() -> None:
    parts = KenCarp3().explicit.matrix, KenCarp3().tableau.matrix
    for order in range(1, 5):
        for tree in trees(order):
            assert len(list(coloured_weights(parts, tree))) == 2 ** (order - 1)


@PAIRS
def test_coupling_conditions_hold_up_to_the_order_and_not_beyond(method: Additive) -> None:
    parts = method.explicit.matrix, method.tableau.matrix
    b, error = np.array(method.tableau.b), np.array(method.tableau.error)
    assert coupling_defect(parts, b, method.order) < 1e-13
    assert coupling_defect(parts, b, method.order + 1) > 1e-3
    assert coupling_defect(parts, b - error, method.order - 1) < 1e-13
    assert coupling_defect(parts, b - error, method.order) > 1e-3
    for theta in (0.3, 0.7):
        inside = theta ** np.arange(1, len(method.tableau.powers) + 1) @ np.array(method.tableau.powers)
        assert coupling_defect(parts, inside, method.tableau.dense_order, theta) < 1e-13


def test_the_misprint_of_kencarp5_would_be_found() -> None:
    table = KenCarp5().tableau
    rows = [list(row) for row in table.a]
    rows[6][5] = -4269925059573 / 7827059040719
    with pytest.raises(InvalidInput, match=r"row sums of a differ from c by 2\.1e-12"):
        replace(table, a=rows)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InvalidInput, match="same c and b"):
        Additive(KenCarp3().tableau, explicit=KenCarp4().explicit)


def convection(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(t) - y.roll(1) * y


RATES = torch.tensor([0.0, 1.0, 1e2, 1e4], dtype=torch.float64)
Y0 = torch.tensor([1.0, -0.5, 0.3, 0.7], dtype=torch.float64)


@PAIRS
def test_split_semilinear_and_plain_terms_agree(method: Any) -> None:
    plain = integrate(
        lambda t, y: convection(t, y) - RATES * y, Y0, 0.0, 0.5, method=Rodas5P(), controller=PID(1e-8, 1e-8)
    )
    forms = {
        "split": Split(convection, lambda t, y: -RATES * y),
        "diagonal": Semilinear(-RATES, convection),
        "dense": Semilinear(-torch.diag(RATES), convection, dense=True),
    }
    found = {
        name: integrate(terms, Y0, 0.0, 0.5, method=method, controller=PID(1e-5, 1e-5)) for name, terms in forms.items()
    }
    for solution in found.values():
        assert solution.stats.accepted < 150  # an explicit method needs thousands
        torch.testing.assert_close(solution.y1, plain.y1, rtol=0.0, atol=2e-4)
    torch.testing.assert_close(found["diagonal"].y1, found["dense"].y1, rtol=1e-10, atol=1e-11)


def test_a_linear_part_costs_one_evaluation_a_stage() -> None:
    found = integrate(Semilinear(-RATES, convection), Y0, 0.0, 1.0, method=KenCarp4(), dt0=0.1)
    assert found.stats.nfe == 60
    split = integrate(Split(convection, lambda t, y: -RATES * y), Y0, 0.0, 1.0, method=KenCarp4(), dt0=0.1)
    assert split.stats.nfe > 60 + 10 * 6


def test_per_sample_split_with_a_dense_linear_part() -> None:
    matrix = torch.tensor([[-1.0, 2.0], [0.0, -300.0]], dtype=torch.float64)
    terms = Semilinear(matrix, lambda t, y: torch.sin(y) + 0 * t, dense=True)
    y0 = torch.tensor([[1.0, 0.5], [0.2, -2.0], [3.0, 1.0]], dtype=torch.float64)
    options: dict[str, Any] = {"method": KenCarp4(), "controller": PID(1e-5, 1e-5)}
    together = integrate(terms, y0, 0.0, 1.0, batching="per-sample", **options)
    for k in range(3):
        alone = integrate(terms, y0[k], 0.0, 1.0, **options)
        torch.testing.assert_close(together.y1[k], alone.y1, rtol=1e-12, atol=1e-12)


def test_gradients_of_split_terms() -> None:
    rate = torch.tensor([0.3, 20.0], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)

    def run(rate: Tensor, y0: Tensor) -> Tensor:
        terms = Split(lambda t, y: torch.sin(rate * y.roll(1)), lambda t, y: -rate * y**3)
        return integrate(terms, y0, 0.0, 0.3, method=KenCarp3(), dt0=0.1).y1

    assert torch.autograd.gradcheck(run, (rate, y0), atol=1e-7)
