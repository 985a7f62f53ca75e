"""The look-alikes of torchdiffeq: its results (figures of torchdiffeq 0.2.5), its gradients, and clear refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.compat import odeint, odeint_adjoint, odeint_event

DOUBLE = {"dtype": torch.float64}
Y0, T = torch.tensor([1.0, -0.5], **DOUBLE), torch.tensor([0.0, 0.4, 1.1, 2.0], **DOUBLE)
WEIGHTS = torch.tensor([[0.5, 1.0], [1.0, 0.0], [-1.0, 2.0], [0.7, 0.3]], **DOUBLE)
BOTH = pytest.mark.parametrize("solve", [odeint, odeint_adjoint])

# last states at t = 2: one step an interval, steps of 0.1 with cubic interpolation, one step an interval backwards
FIXED = {
    "euler": [
        (-0.5599640905866013, -1.0119650919878753),
        (0.01780849182989406, -0.9494684636521089),
        (0.8816682897302797, 1.5609138530978046),
    ],
    "midpoint": [
        (0.06959612061519987, -0.7548839289113376),
        (0.08484733621191545, -0.970585081122053),
        (0.6619258749988065, 1.587244708887233),
    ],
    "heun2": [
        (0.12299350494538173, -0.8317421469816884),
        (0.0857866203930734, -0.972243224761188),
        (0.47242840258754537, 1.4115585833433193),
    ],
    "heun3": [
        (0.09071364148704092, -0.9814542600999556),
        (0.08567156674524265, -0.9747074100398427),
        (0.5624906920252772, 1.5057779075893754),
    ],
    "rk4": [
        (0.09242592473626486, -0.9802035177618765),
        (0.08563545292245356, -0.9746765725523435),
        (0.5817391358092829, 1.493552748210464),
    ],
}


class Field(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([0.3, 0.2], **DOUBLE))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1] * torch.cos(t) - self.k[0] * y[0], -y[0] + torch.sin(2 * t) * y[1] ** 2 * self.k[1]])


FIELD = Field().requires_grad_(False)


def close(found: Tensor, stated: Any, tolerance: float) -> bool:
    return float((found - torch.tensor(stated, **DOUBLE)).abs().max()) < tolerance


@pytest.mark.parametrize("method", list(FIXED))
def test_fixed_steps_give_the_numbers_of_torchdiffeq(method: str) -> None:
    intervals, small, back = FIXED[method]
    assert close(odeint(FIELD, Y0, T, method=method)[-1], intervals, 1e-13)
    options = {"step_size": 0.1, "interp": "cubic"}
    assert close(odeint(FIELD, Y0, T, method=method, options=options)[-1], small, 1e-13)
    assert close(odeint(FIELD, Y0, T.flip(0), method=method)[-1], back, 1e-13)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "tsit5", "bosh3", "fehlberg2", "adaptive_heun"])
def test_methods_that_choose_their_steps_meet_the_tolerance(method: str) -> None:
    true = odeint(FIELD, Y0, T, method="dopri8", rtol=1e-12, atol=1e-12)
    found = odeint(FIELD, Y0, T, method=method, rtol=1e-6, atol=1e-8)
    assert found.shape == (4, 2)
    assert torch.equal(found[0], Y0)
    assert float((found - true).abs().max()) < (1e-4 if method == "fehlberg2" else 5e-6)
    assert close(true[-1], (0.0856343, -0.9746745), 1e-7)  # torchdiffeq's dopri5 at 1e-6: 0.0856343377, -0.9746745563


@pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams"])
def test_adams_methods_take_their_order(method: str) -> None:
    t = torch.linspace(0, 2, 3, **DOUBLE)
    errors = [
        float(
            (odeint(lambda t, y: -y, torch.ones(1, **DOUBLE), t, method=method, options=options)[-1] - math.exp(-2))
            .abs()
            .max()
        )
        for options in ({"step_size": 0.05, "max_order": 3}, {"step_size": 0.05, "max_order": 5})
    ]
    assert errors[1] < 0.1 * errors[0]


@BOTH
def test_gradients_are_those_of_torchdiffeq_for_times_state_and_parameters(solve: Any) -> None:
    field, t, y0 = Field(), T.clone().requires_grad_(), Y0.clone().requires_grad_()
    (WEIGHTS * solve(field, y0, t, rtol=1e-10, atol=1e-12)).sum().backward()
    assert close(t.grad, (0.04740370, -0.94168967, 0.53175293, 0.19711458), 2e-8)
    assert close(y0.grad, (-0.47157034, 1.82465998), 2e-8)
    assert close(field.k.grad, (0.59860965, 1.07968262), 2e-8)


@BOTH
def test_gradients_of_times_are_products_with_the_field(solve: Any) -> None:
    t, y0 = T.clone().requires_grad_(), Y0.clone().requires_grad_()
    field = Field()
    ys = solve(field, y0, t, rtol=1e-9, atol=1e-9)
    (WEIGHTS * ys).sum().backward()
    ys, field = ys.detach(), field.requires_grad_(False)
    for i in (1, 2, 3):
        assert abs(float(t.grad[i] - (WEIGHTS[i] * field(T[i], ys[i])).sum())) < 1e-12
    later = y0.grad - WEIGHTS[0]  # without what the loss says about the first state itself
    assert abs(float(t.grad[0] + (later * field(T[0], Y0)).sum())) < 1e-12


@BOTH
def test_a_shift_of_all_times_of_an_autonomous_equation_changes_nothing(solve: Any) -> None:
    t = T.clone().requires_grad_()
    weight = torch.tensor(0.5, **DOUBLE)
    solve(lambda t, y: torch.sin(y) * weight, Y0, t, **({"adjoint_params": ()} if solve is odeint_adjoint else {}))[
        -1
    ].sum().backward()
    assert abs(float(t.grad.sum())) < 1e-7
    assert float(t.grad.abs().max()) > 1e-3


@BOTH
def test_tuples_go_in_and_come_out(solve: Any) -> None:
    y0 = (torch.ones(2, 3, **DOUBLE), torch.full((), 2.0, **DOUBLE, requires_grad=True))

    def field(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return -y[0], -2 * y[1]

    a, b = solve(field, y0, T, **({"adjoint_params": ()} if solve is odeint_adjoint else {}))
    assert (a.shape, b.shape) == ((4, 2, 3), (4,))
    assert float((b.detach() - 2 * torch.exp(-2 * T)).abs().max()) < 1e-7
    b[-1].backward()
    assert abs(float(y0[1].grad) - math.exp(-4)) < 1e-7


def test_the_error_of_a_tuple_is_that_of_its_worst_tensor() -> None:
    """A large tensor at rest does not dilute the error of a small one, as it would in one mean over all."""
    still, calls = torch.ones(1000, **DOUBLE), [0]

    def field(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        calls[0] += 1
        return torch.zeros_like(y[0]), torch.cos(10 * t).expand(1)

    def small(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(10 * t).expand(1)

    both = odeint(field, (still, torch.zeros(1, **DOUBLE)), T, rtol=1e-5, atol=1e-5)[1]
    alone = odeint(small, torch.zeros(1, **DOUBLE), T, rtol=1e-5, atol=1e-5)
    assert float((both - torch.sin(10 * T)[:, None] / 10).abs().max()) < 1e-4
    assert float((alone - both).abs().max()) < 1e-4


def test_one_time_gives_the_first_state() -> None:
    assert torch.equal(odeint(FIELD, Y0, T[:1]), Y0[None])


def test_single_precision_stays_single() -> None:
    found = odeint(lambda t, y: -y, Y0.float(), T, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32
    assert float((found - Y0 * torch.exp(-T)[:, None]).abs().max()) < 1e-4


# ------------------------------------------------------------------------------------------------ events


def test_an_event_is_found_where_torchdiffeq_finds_it() -> None:
    t, y = odeint_event(FIELD, Y0, T[:1], event_fn=lambda t, y: y[0] + 0.2, rtol=1e-10, atol=1e-12)
    assert abs(float(t) - 5.557115447) < 1e-8
    assert close(y[-1], (-0.2, -10.45155607), 1e-7)
    assert torch.equal(y[0], Y0)


@pytest.mark.parametrize("back", [False, True])
def test_the_time_and_the_state_of_an_event_have_gradients(back: bool) -> None:
    """Free fall from h with v = 0: t = sqrt(2 h / g), speed g t at the ground; in reverse at the same distance in time."""
    h, g = torch.tensor(10.0, **DOUBLE, requires_grad=True), torch.tensor(9.81, **DOUBLE, requires_grad=True)
    y0, t0 = torch.stack([h, torch.zeros((), **DOUBLE)]), torch.tensor([0.5], **DOUBLE, requires_grad=True)
    fall = lambda t, y: torch.stack([y[1], -g])  # noqa: E731
    t, y = odeint_event(fall, y0, t0, event_fn=lambda t, y: y[0], reverse_time=back, rtol=1e-9, atol=1e-9)
    sign, passed = (-1 if back else 1), math.sqrt(20 / 9.81)
    assert abs(float(t.detach()) - 0.5 - sign * passed) < 1e-7
    found = torch.autograd.grad(t, (h, g, t0), retain_graph=True)
    for derivative, exact in zip(found, (sign * passed / 20, -sign * passed / (2 * 9.81), 1.0), strict=True):
        assert abs(float(derivative) - exact) < 1e-6
    (speed,) = torch.autograd.grad(y[-1, 1], h)
    assert abs(float(speed) + sign * 9.81 * passed / 20) < 1e-6


def test_of_several_events_the_first_counts() -> None:
    t, _ = odeint(
        lambda t, y: torch.ones_like(y),
        torch.zeros(1, **DOUBLE),
        T[:2],
        event_fn=lambda t, y: torch.cat([y - 3.0, 2.0 - y]),
    )
    assert abs(float(t) - 2.0) < 1e-9


# ------------------------------------------------------------------------------------------------ options and refusals


def test_options_do_what_they_say() -> None:
    calls: list[float] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        calls.append(float(t))
        return torch.where(t < 1.0, -y, y)

    y0, t = torch.ones(1, **DOUBLE), torch.tensor([0.0, 2.0], **DOUBLE)
    assert abs(float(odeint(field, y0, t, options={"jump_t": torch.tensor([1.0])})[-1]) - 1) < 1e-7
    few = len(calls)
    odeint(field, y0, t)
    assert len(calls) - few > few
    calls.clear()
    odeint(FIELD, Y0, t, options={"step_t": [0.7], "first_step": 0.1})
    odeint(
        lambda t, y: field(t, y), y0, t, method="euler", options={"grid_constructor": lambda f, y, t: [0.0, 0.5, 2.0]}
    )
    assert calls == [0.0, 0.5]
    with pytest.raises(NotFinite, match="the cap on steps was reached"):
        odeint(FIELD, Y0, t, options={"max_num_steps": 2})
    loose = odeint(FIELD, Y0, T, options={"norm": lambda y: y.abs().max() * 1e-4})
    true = odeint(FIELD, Y0, T, rtol=1e-10, atol=1e-10)
    assert float((loose - true).abs().max()) > 10 * float((odeint(FIELD, Y0, T) - true).abs().max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dopri6"}, "there is no method 'dopri6' in compat.odeint. Did you mean 'dopri8'"),
        ({"method": "scipy_solver"}, "scipy_solver is not available: for stiff equations use .*Kvaerno5"),
        (
            {"options": {"first_stepp": 0.1}},
            "'first_stepp' is not available with method 'dopri5': Did you mean 'first_step'",
        ),
        ({"options": {"step_size": 0.1}}, "'step_size' is not available with method 'dopri5'"),
        ({"options": {"min_step": 0.1}}, "a step that becomes too small ends the integration"),
        ({"options": {"dtype": torch.float32}}, "times are always float64"),
        ({"method": "rk4", "options": {"interp": "linear"}}, "states inside a step are cubic"),
        ({"method": "rk4", "options": {"perturb": True}}, "perturb is not available"),
        ({"method": "rk4", "options": {"step_size": 0.1, "grid_constructor": len}}, "exclude each other"),
        ({"rtol": torch.ones(2)}, "rtol must be one number"),
        ({"t": [0.0, 1.0]}, r"t must be a floating-point tensor of shape \(T,\), got list"),
        ({"t": torch.tensor([0, 1])}, r"t must be a floating-point tensor of shape \(T,\), got torch.int64 \(2,\)"),
        ({"t": torch.tensor([0.0, 1.0, 1.0])}, "t must be strictly increasing or decreasing"),
        ({"y0": 3.0}, "y0 must be a tensor or a tuple of tensors, got float"),
        ({"event_fn": lambda t, y: y[0]}, "t needs two times, the start and one that tells the direction, got 4"),
    ],
)
def test_what_is_not_known_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"y0": Y0, "t": T, **arguments}
    with pytest.raises(InvalidInput, match=message):
        odeint(FIELD, given.pop("y0"), given.pop("t"), **given)


def test_the_adjoint_refuses_what_it_cannot_do() -> None:
    for arguments, message in (
        ({"event_fn": lambda t, y: y[0]}, "no gradient of events: use odeint"),
        ({"adjoint_method": "rk4"}, "the way back is made by the same method"),
        ({"adjoint_options": {"norm": len}}, "adjoint_options may be"),
        ({"method": "rk4", "adjoint_rtol": 1e-3}, "rk4 takes fixed steps: it has no tolerances"),
        ({"atol": torch.ones(2)}, "pass adjoint_atol as one number"),
    ):
        with pytest.raises(InvalidInput, match=message):
            odeint_adjoint(FIELD, Y0, T, **arguments)  # type: ignore[arg-type]


def test_a_failure_says_where_and_why() -> None:
    with pytest.raises(NotFinite, match=r"stopped at t = 1(\.\d+)?: .*blows up or jumps"):
        odeint(lambda t, y: y**2, torch.ones(1, **DOUBLE), torch.tensor([0.0, 2.0], **DOUBLE))


def test_callbacks_are_refused() -> None:
    class Told(Field):
        def callback_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None: ...

    with pytest.raises(InvalidInput, match="callback_step is not called here"):
        odeint(Told(), Y0, T)


@pytest.mark.parametrize("options", [None, {"norm": "seminorm"}])
def test_the_seminorm_gives_the_same_gradient(options: Any) -> None:
    field = Field()
    loose = {"adjoint_rtol": 1e-8, "adjoint_atol": 1e-8, "adjoint_options": options}
    (WEIGHTS * odeint_adjoint(field, Y0, T, **loose)).sum().backward()
    assert close(field.k.grad, (0.59860965, 1.07968262), 1e-5)
