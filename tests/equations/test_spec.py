import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.derivatives import laplacian
from isocline.equations import Box, Dirichlet, Initial
from isocline.equations.spec import EquationSpec

BURGERS = EquationSpec("burgers", lambda u, q, p: u.t + u * u.x - p.nu * u.xx, ("u",), ("x",), {"nu": "viscosity"})
FLOW = EquationSpec(
    "flow",
    lambda w, q, p: (
        w[0].t + w[0] * w[0].x + w[1] * w[0].y + w[2].x / p.rho - p.nu * laplacian(w[0]) - torch.sin(4 * q.y),
        w[1].t + w[0] * w[1].x + w[1] * w[1].y + w[2].y / p.rho - p.nu * laplacian(w[1]),
        w[0].x + w[1].y,
    ),
    ("u", "v", "p"),
    ("x", "y"),
    {"nu": "viscosity", "rho": "density"},
)


def test_formulas_are_those_of_a_textbook() -> None:
    assert BURGERS.formula == ("u_t + u u_x - nu u_xx = 0",)
    assert FLOW.formula == (
        "u_t + u u_x + v u_y + p_x / rho - nu (u_xx + u_yy) - sin(4 y) = 0",
        "v_t + u v_x + v v_y + p_y / rho - nu (v_xx + v_yy) = 0",
        "u_x + v_y = 0",
    )


@pytest.mark.parametrize(
    ("residual", "formula"),
    [
        (lambda u, q, p: 2 - u, "2 - u"),
        (lambda u, q, p: -(u + 1) * u, "-(u + 1) u"),
        (lambda u, q, p: 1 / (1 + u**2), "1 / (1 + u^2)"),
        (lambda u, q, p: torch.exp(-q.x) * u.xx - u.x.x, "exp(-x) u_xx - u_xx"),
        (lambda u, q, p: u / 2 - p.a, "0.5 u - a"),
    ],
)
def test_arithmetic_is_written_out(residual, formula: str) -> None:  # type: ignore[no-untyped-def]
    text = EquationSpec("e", residual, ("u",), ("x",), {"a": ""}).formula[0].removesuffix(" = 0")
    assert text.replace(" 2^-1", "") in (formula, formula.replace("0.5 u", "u / 2"))


def test_the_linear_part_has_the_coefficients_and_the_rest_is_left() -> None:
    assert BURGERS.linear({"nu": 0.1}) == {("u", "u", (0, 0)): 0.1}
    assert BURGERS.linear({}) == {}  # a parameter that varies is no constant coefficient
    spec = EquationSpec(
        "ks",
        lambda u, q, p: 2 * u.t + u * u.x + u.xx + p.nu * (u.xxxx - 3 * u) + torch.sin(q.x),
        ("u",),
        ("x",),
        {"nu": ""},
    )
    assert spec.linear({"nu": 4.0}) == {("u", "u", (0, 0)): -0.5, ("u", "u", (0, 0, 0, 0)): -2.0, ("u", "u", ()): 6.0}


def test_a_system_names_whose_rate_is_meant() -> None:
    spec = EquationSpec(
        "wave", lambda w, q, p: (w[0].t - w[1], w[1].t - p.c**2 * w[0].xx), ("u", "v"), ("x",), {"c": "speed"}
    )
    assert spec.linear({"c": 3.0}) == {("u", "v", ()): 1.0, ("v", "u", (0, 0)): 9.0}


def test_values_are_those_of_the_residual() -> None:
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    known = {(): x.sin(), (0,): x.cos(), (0, 0): -x.sin(), (1,): x**2}
    (found,) = BURGERS.values(lambda name, index: known[index], {"x": x}, {"nu": 0.3})
    torch.testing.assert_close(found, x**2 + x.sin() * x.cos() + 0.3 * x.sin())


def test_it_becomes_a_problem() -> None:
    box = Box(x=(-1, 1), t=(0, 1))
    conditions = [Initial(lambda q: -torch.sin(torch.pi * q.x)), Dirichlet("x", 0.0)]
    problem = BURGERS.problem(box, conditions, {"nu": 0.01})
    assert problem.name == "burgers"
    assert sorted(problem.spec.indices) == [(), (0,), (0, 0), (1,)]
    with pytest.raises(InvalidInput, match="needs numbers for nu"):
        BURGERS.problem(box, conditions)


def test_steady_equations_are_known() -> None:
    poisson = EquationSpec("poisson", lambda u, q, p: laplacian(u) + q.x, ("u",), ("x", "y"))
    assert poisson.steady
    assert not BURGERS.steady
    with pytest.raises(InvalidInput, match="form u_t"):
        poisson.linear({})


def test_what_is_no_formula_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be read as a formula"):
        EquationSpec("bad", lambda u, q, p: u.value.clamp(min=0) + u.t, ("u",), ("x",))
    with pytest.raises(InvalidInput, match="axes are those of space"):
        EquationSpec("bad", lambda u, q, p: u.t, ("u",), ("x", "t"))
