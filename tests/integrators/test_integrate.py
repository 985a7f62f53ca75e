import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.integrators import (
    ODE,
    PID,
    Clip,
    Constant,
    Dopri5,
    Each,
    Euler,
    Event,
    Reason,
    SaveAt,
    Steps,
    integrate,
    max_norm,
)

TIGHT = PID(1e-10, 1e-10)
DOUBLE = {"dtype": torch.float64}


def swing(t: Tensor, y: Tensor) -> Tensor:
    """A field whose solution is known: y0 exp(-sin t)."""
    return -y * torch.cos(t)


def exact(y0: Tensor, t: float) -> Tensor:
    return y0 * math.exp(-math.sin(t))


@pytest.fixture
def y0() -> Tensor:
    return torch.linspace(-1, 2, 12, **DOUBLE).reshape(4, 3)


def test_it_solves_forward_and_backward(y0: Tensor) -> None:
    for t0, t1 in ((0.0, 2.0), (2.0, -1.0)):
        found = integrate(swing, exact(y0, t0), t0, t1, controller=TIGHT)
        torch.testing.assert_close(found.y1, exact(y0, t1), rtol=1e-8, atol=1e-8)
        assert found.status.ok
        assert found.status.time == t1


def test_it_takes_the_same_steps_as_scipy(y0: Tensor) -> None:
    """Same pair, norm, filter and first step: the grids agree, so a wrong controller or embedded weight would show."""
    flat = y0.reshape(-1)
    options = {"rtol": 1e-6, "atol": 1e-8, "first_step": 0.01}
    theirs = solve_ivp(lambda t, y: -y / (1 + t), (0, 9), flat.numpy(), "RK45", **options)
    ours = integrate(
        lambda t, y: -y / (1 + t), flat, 0.0, 9.0, controller=PID(1e-6, 1e-8), dt0=0.01,
        saveat=SaveAt(t0=True, steps=True),
    )  # fmt: skip
    assert ours.stats.rejected == 0  # after a rejection the two grow differently
    np.testing.assert_allclose(ours.ts, theirs.t, rtol=1e-9)
    np.testing.assert_allclose(ours.ys.T, theirs.y, rtol=1e-9, atol=1e-12)


def test_every_kind_of_output_comes_in_its_order(y0: Tensor) -> None:
    save = SaveAt(ts=[0.0, 0.5, 1.5, 2.0], t0=True, t1=True, steps=True)
    found = integrate(swing, y0, 0.0, 2.0, controller=TIGHT, saveat=save)
    steps = found.stats.accepted
    assert found.ts.shape == (1 + 4 + steps + 1,)
    assert found.ts[:5].tolist() == [0.0, 0.0, 0.5, 1.5, 2.0]
    for t, y in zip(found.ts.tolist(), found.ys, strict=True):
        torch.testing.assert_close(y, exact(y0, t), rtol=1e-7, atol=1e-7)
    assert torch.equal(found.ys[4], found.y1)


def test_times_between_steps_cost_no_evaluations_and_do_not_change_the_steps(y0: Tensor) -> None:
    plain = integrate(swing, y0, 0.0, 2.0)
    asked = integrate(swing, y0, 0.0, 2.0, saveat=SaveAt(ts=torch.linspace(0, 2, 77), dense=True))
    assert asked.stats == plain.stats
    assert torch.equal(asked.y1, plain.y1)
    torch.testing.assert_close(asked.evaluate(asked.ts), asked.ys, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(asked.evaluate(0.3), exact(y0, 0.3), rtol=1e-4, atol=1e-4)


def test_dense_output_refuses_times_outside_and_needs_to_be_asked_for(y0: Tensor) -> None:
    dense = integrate(swing, y0, 1.0, 0.0, saveat=SaveAt(dense=True))
    torch.testing.assert_close(dense.evaluate([1.0, 0.0])[1], dense.y1)
    with pytest.raises(InvalidInput, match="covers t from 1 to 0"):
        dense.evaluate(1.1)
    with pytest.raises(InvalidInput, match=r"SaveAt\(dense=True\)"):
        integrate(swing, y0, 0.0, 1.0).evaluate(0.5)


def test_a_function_of_the_state_is_kept_in_its_place(y0: Tensor) -> None:
    save = SaveAt(ts=[0.5, 1.0], fn=lambda t, y: torch.stack([t, y.sum()]))
    found = integrate(swing, y0, 0.0, 1.0, controller=TIGHT, saveat=save)
    assert found.ys[:, 0].tolist() == [0.5, 1.0]
    torch.testing.assert_close(found.ys[1, 1], found.y1.sum())
    assert found.y1.shape == y0.shape


def test_a_state_can_be_any_structure() -> None:
    def field(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"q": y["p"].sum(-1, keepdim=True).expand(2, 1), "p": -y["q"].expand(2, 3) / 3}

    start = {"q": torch.ones(2, 1, **DOUBLE), "p": torch.zeros(2, 3, **DOUBLE)}
    found = integrate(field, start, 0.0, math.pi, controller=TIGHT, saveat=SaveAt(ts=[math.pi / 2, math.pi]))
    assert found.ys["q"].shape == (2, 2, 1)
    torch.testing.assert_close(found.y1["q"], -start["q"], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.ys["p"][0], torch.full((2, 3), -1 / 3, **DOUBLE), rtol=1e-8, atol=1e-8)


def test_complex_states_turn() -> None:
    start = torch.tensor([1.0 + 0j, 2.0], dtype=torch.complex128)
    found = integrate(lambda t, y: 1j * y, start, 0.0, 1.0, controller=TIGHT)
    torch.testing.assert_close(found.y1, start * torch.exp(torch.tensor(1j, dtype=torch.complex128)))


def test_float32_stays_float32_and_times_are_shown_in_it(y0: Tensor) -> None:
    seen: set[torch.dtype] = set()

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.add(t.dtype)
        return -y * torch.cos(t)

    found = integrate(field, y0.float(), 0.0, 1.0)
    assert found.y1.dtype == torch.float32
    assert seen == {torch.float32}
    assert found.ts.dtype == torch.float64


# ------------------------------------------------------------------------------------------------------- steps


def test_constant_steps_fill_the_span(y0: Tensor) -> None:
    for dt0, n in ((0.1, 10), (1 / 3, 3), (0.3, 4), (2.0, 1)):
        found = integrate(swing, y0, 0.0, 1.0, dt0=dt0)
        assert found.stats.accepted == n
        assert found.stats.nfe == 6 * n + 1
        assert found.error_estimate is None


def test_steps_end_where_they_are_told_to(y0: Tensor) -> None:
    times = (0.0, 0.1, 0.15, 0.7, 1.0)
    found = integrate(swing, y0, 0.0, 1.0, controller=Steps(times), saveat=SaveAt(t0=True, steps=True))
    np.testing.assert_allclose(found.ts, times, rtol=1e-15)
    back = integrate(swing, y0, 1.0, 0.0, controller=Steps(times[::-1]), saveat=SaveAt(t0=True, steps=True))
    np.testing.assert_allclose(back.ts, times[::-1], atol=1e-15)
    with pytest.raises(InvalidInput, match="all increase or all decrease"):
        Steps((0.0, 1.0, 0.5))


def test_a_named_jump_is_cheaper_and_exact() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t < 0.3, 1.0, -2.0) * torch.ones_like(y)

    start = torch.zeros(1, **DOUBLE)
    blind = integrate(field, start, 0.0, 1.0, controller=PID(1e-8, 1e-8))
    told = integrate(field, start, 0.0, 1.0, controller=Clip(PID(1e-8, 1e-8), jump_times=(0.3,)))
    assert abs(float(told.y1) - (0.3 - 1.4)) < 1e-14
    assert told.stats.rejected == 0
    assert told.stats.nfe < blind.stats.nfe / 3
    back = integrate(
        field, told.y1, 1.0, 0.0, controller=Clip(PID(1e-8, 1e-8), jump_times=(0.3,)), saveat=SaveAt(ts=[0.3, 0.0])
    )
    assert abs(float(back.ys[0]) - 0.3) < 1e-14
    assert abs(float(back.y1)) < 1e-14


def test_the_filter_gives_the_steps_of_its_formula() -> None:
    ratios, k = (0.5, 0.02, 3.0, 0.4, 0.9), 5
    controller = PID(1e-3, 1e-3, p=0.4, i=0.3, d=0.05)
    b1, b2, b3 = 0.75 / k, -0.5 / k, 0.05 / k
    h, memory, past = np.float64(0.1), controller.start(()), [1.0, 1.0]
    for ratio in ratios:
        expected = 0.9 * ratio**-b1 * past[0] ** -b2 * past[1] ** -b3
        expected = min(max(expected, 0.2), 10.0 if ratio <= 1 else 0.9)
        found = controller.decide(h, np.float64(ratio), memory, k)
        assert float(found.h) == pytest.approx(float(h) * expected, rel=1e-14)
        assert bool(found.accept) == (ratio <= 1)
        past = [ratio, past[0]] if ratio <= 1 else past
        h, memory = found.h, found.memory


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=8), st.floats(0.0, 0.5), st.floats(0.0, 0.2))
@settings(max_examples=40, deadline=None)
def test_tensors_are_filtered_as_numbers_are(ratios: list[float], p: float, d: float) -> None:
    controller = PID(1e-3, 1e-3, p=p, i=0.3, d=d)
    memory, twin = controller.start(()), tuple(torch.ones((), **DOUBLE) for _ in range(2))
    for ratio in (*ratios, math.nan, math.inf, 0.5):
        a = controller.decide(np.float64(1.0), np.float64(ratio), memory, 5)
        accept, factor, kept = controller.filtered(torch.tensor(ratio, **DOUBLE), twin, 5)
        assert bool(accept) == bool(a.accept)
        assert float(factor) == pytest.approx(float(a.h), rel=1e-12)
        memory, twin = a.memory, kept


def test_pi_control_rejects_less_than_i_control_on_a_rough_problem() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1], 8 * (1 - y[0] ** 2) * y[1] - y[0]])

    start = torch.tensor([2.0, 0.0], **DOUBLE)
    found = [
        integrate(field, start, 0.0, 30.0, controller=PID(1e-6, 1e-6, p=p, i=i), max_steps=10_000)
        for p, i in ((0.0, 1.0), (0.4, 0.3))
    ]
    assert found[1].stats.rejected < found[0].stats.rejected
    torch.testing.assert_close(found[0].y1, found[1].y1, rtol=1e-3, atol=1e-3)


def test_the_norm_is_exchangeable() -> None:
    start = torch.tensor([1.0, 0.0, 0.0, 0.0], **DOUBLE)
    loose = integrate(swing, start, 0.0, 2.0, controller=PID(1e-8, 1e-8))
    strict = integrate(swing, start, 0.0, 2.0, controller=PID(1e-8, 1e-8, norm=max_norm))
    assert strict.stats.accepted > loose.stats.accepted


def test_the_error_estimate_is_of_the_size_of_the_error() -> None:
    start = torch.ones(1, **DOUBLE)
    for tolerance in (1e-4, 1e-6, 1e-8):
        found = integrate(swing, start, 0.0, 2.0, controller=PID(tolerance, tolerance))
        error = float((found.y1 - exact(start, 2.0)).abs())
        assert error < float(found.error_estimate) < 300 * error  # the pair estimates the error of its lower order


def test_the_record_is_what_the_loop_saw_and_has_gradients() -> None:
    rate = torch.tensor(1.5, **DOUBLE, requires_grad=True)

    def solved(rate: Tensor) -> Tensor:
        found = integrate(
            lambda t, y, k: -k * y * torch.cos(t), torch.ones(2, **DOUBLE), 0.0, 1.0, args=rate, record=["steps"]
        )
        record = found.record
        assert record is not None
        assert int(record.accepted.sum()) == found.stats.accepted
        assert len(record.t) == found.stats.accepted + found.stats.rejected
        assert int(record.evaluations.sum()) + 2 == found.stats.nfe
        assert (record.ratio[record.accepted] <= 1).all()
        assert float(record.h[record.accepted].sum()) == pytest.approx(1.0)
        return record.local_errors()

    (slope,) = torch.autograd.grad(solved(rate), rate)
    assert slope.abs() > 0


# ------------------------------------------------------------------------------------------------------ samples


def test_samples_with_steps_of_their_own_do_not_see_each_other() -> None:
    def field(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        return torch.stack([y[:, 1], mu * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1) + 0 * t

    mu = torch.tensor([0.5, 100.0, 3.0, 1.0], **DOUBLE)
    start = torch.tensor([[2.0, 0.0], [1.0, 0.5], [0.5, -1.0], [2.0, 1.0]], **DOUBLE)
    options = {"controller": PID(1e-7, 1e-7), "batching": "per-sample", "max_steps": 100_000}
    save = SaveAt(ts=[1.0, 2.5, 5.0], t1=True)
    together = integrate(field, start, 0.0, 5.0, args=Each(mu), saveat=save, **options)
    for k in range(4):
        alone = integrate(field, start[k : k + 1], 0.0, 5.0, args=Each(mu[k : k + 1]), saveat=save, **options)
        torch.testing.assert_close(together.ys[k], alone.ys[0], rtol=1e-12, atol=1e-12)
        assert together.stats.nfe[k] == alone.stats.nfe[0]
        assert together.stats.accepted[k] == alone.stats.accepted[0]
    joint = integrate(lambda t, y: field(t, y, mu), start, 0.0, 5.0, controller=PID(1e-7, 1e-7), max_steps=100_000)
    assert together.stats.nfe.sum() <= 0.5 * joint.stats.nfe * 4
    torch.testing.assert_close(together.y1, joint.y1, rtol=1e-4, atol=1e-4)


def test_samples_that_ended_cost_nothing_more() -> None:
    rows: list[int] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        rows.append(len(y))
        return -y

    ends = torch.tensor([0.1, 3.0, 0.5])
    found = integrate(field, torch.ones(3, 2, **DOUBLE), 0.0, ends, batching="per-sample", controller=PID(1e-8, 1e-8))
    assert sum(rows) == found.stats.nfe.sum()
    assert rows[-1] == 1
    expected = torch.exp(-ends.double())[:, None].expand(3, 2)
    torch.testing.assert_close(found.y1, expected, rtol=1e-7, atol=1e-7)


def test_each_sample_can_have_times_of_its_own() -> None:
    times = torch.tensor([[0.1, 0.4, 0.9], [0.0, 0.5, 0.0]], **DOUBLE)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    start = torch.tensor([[1.0], [2.0]], **DOUBLE)
    found = integrate(
        lambda t, y: -y, start, 0.0, torch.tensor([1.0, 0.5]), batching="per-sample", controller=TIGHT,
        saveat=SaveAt(ts=times, mask=mask),
    )  # fmt: skip
    assert found.ys.shape == (2, 3, 1)
    expected = torch.exp(-times)[..., None] * start[:, None]
    torch.testing.assert_close(found.ys[mask], expected[mask], rtol=1e-8, atol=1e-8)
    assert found.ys[1, 2] == 0


def test_every_step_of_every_sample_is_kept_side_by_side() -> None:
    start = torch.tensor([[1.0], [1.0]], **DOUBLE)
    found = integrate(
        lambda t, y, k: -k * y, start, 0.0, 1.0, args=Each(torch.tensor([[1.0], [30.0]], **DOUBLE)),
        batching="per-sample", saveat=SaveAt(steps=True),
    )  # fmt: skip
    counts = found.stats.accepted
    assert counts[1] > counts[0]
    assert torch.isfinite(found.ts).sum(1).tolist() == counts.tolist()
    rates = torch.tensor([1.0, 30.0], **DOUBLE)
    for k in range(2):
        t, y = found.ts[k, : counts[k]], found.ys[k, : counts[k], 0]
        torch.testing.assert_close(y, torch.exp(-rates[k] * t), rtol=1e-3, atol=1e-4)


def test_gradients_of_samples_equal_those_of_each_alone() -> None:
    k = torch.tensor([[1.0], [5.0], [0.3]], **DOUBLE, requires_grad=True)
    start = torch.tensor([[1.0], [2.0], [3.0]], **DOUBLE, requires_grad=True)
    save = SaveAt(ts=[0.3, 1.0])
    found = integrate(
        lambda t, y, k: -k * y, start, 0.0, 1.0, args=Each(k), batching="per-sample", controller=TIGHT, saveat=save
    )
    dk, dy = torch.autograd.grad(found.ys.sum(), (k, start))
    t = torch.tensor([0.3, 1.0], **DOUBLE)
    grown = torch.exp(-k * t)
    torch.testing.assert_close(dy, grown.sum(1, keepdim=True), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(dk, (-t * grown * start).sum(1, keepdim=True), rtol=1e-7, atol=1e-7)


# ------------------------------------------------------------------------------------------------------- events


def fall(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[..., 1], -9.81 * torch.ones_like(y[..., 1])], -1)


def test_an_event_is_found_on_the_interpolant_with_its_gradient() -> None:
    height = torch.tensor(10.0, **DOUBLE, requires_grad=True)
    start = torch.stack([height, torch.zeros((), **DOUBLE)])
    found = integrate(fall, start, 0.0, 10.0, controller=TIGHT, events=Event(lambda t, y: y[0], name="ground"))
    time = math.sqrt(2 * 10 / 9.81)
    assert found.status.reason is Reason.EVENT
    assert found.status.time == pytest.approx(time, rel=1e-10)
    assert found.events == ("ground",)
    (slope,) = torch.autograd.grad(found.t1, height, retain_graph=True)
    assert float(slope) == pytest.approx(1 / math.sqrt(2 * 9.81 * 10), rel=1e-7)
    (speed,) = torch.autograd.grad(found.y1[1], height)
    assert float(speed) == pytest.approx(-9.81 / math.sqrt(2 * 9.81 * 10), rel=1e-7)


def test_events_of_samples_end_them_one_by_one() -> None:
    start = torch.tensor([[1.0, 0.0], [20.0, 0.0], [5.0, 0.0]], **DOUBLE, requires_grad=True)
    found = integrate(
        fall, start, 0.0, 1.5, batching="per-sample", controller=PID(1e-9, 1e-9), events=Event(lambda t, y: y[:, 0])
    )
    times = [math.sqrt(2 / 9.81), 1.5, math.sqrt(10 / 9.81)]
    np.testing.assert_allclose(found.status.times, times, rtol=1e-9)
    assert found.status.reasons == (Reason.EVENT, Reason.OK, Reason.EVENT)
    assert found.events == ("event", "", "event")
    assert found.t1 is not None
    np.testing.assert_allclose(found.t1.detach()[[0, 2]], [times[0], times[2]], rtol=1e-9)
    assert torch.isnan(found.t1[1])
    (slopes,) = torch.autograd.grad(found.y1[:, 1].sum(), start)
    np.testing.assert_allclose(slopes[0, 0], -9.81 / math.sqrt(2 * 9.81 * 1), rtol=1e-6)
    assert slopes[1, 0] == 0


def test_the_last_kept_step_ends_at_the_event() -> None:
    start = torch.tensor([10.0, 0.0], **DOUBLE)
    found = integrate(fall, start, 0.0, 10.0, events=Event(lambda t, y: y[0]), saveat=SaveAt(steps=True, t1=True))
    assert found.ts[-2] == found.ts[-1]
    assert torch.equal(found.ys[-2], found.ys[-1])
    assert abs(float(found.ys[-2, 0])) < 1e-9


def test_thousands_of_constant_steps_are_as_many_as_were_asked_for() -> None:
    for n in (3000, 10_000):
        found = integrate(lambda t, y: -y, torch.ones(1), 0.0, 1.0, dt0=1 / n, method=Euler(), max_steps=2 * n)
        assert found.stats.accepted == n


def test_an_event_looks_in_its_direction_only() -> None:
    def turn(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1], -y[0]])

    start = torch.tensor([0.5, math.sqrt(0.75)], **DOUBLE)  # sin(t + pi / 6)
    for direction, time in ((-1, 5 * math.pi / 6), (1, 11 * math.pi / 6), (0, 5 * math.pi / 6)):
        found = integrate(turn, start, 0.0, 10.0, controller=TIGHT, events=Event(lambda t, y: y[0], direction))
        assert found.status.time == pytest.approx(time, rel=1e-8)
    back = integrate(turn, start, 0.0, -10.0, controller=TIGHT, events=Event(lambda t, y: y[0]))
    assert back.status.time == pytest.approx(-math.pi / 6, rel=1e-8)


# ----------------------------------------------------------------------------------------------------- failures


def failed(field: object, y0: Tensor, t1: float, **options: object) -> object:
    found = integrate(field, y0, 0.0, t1, **options)  # type: ignore[arg-type]
    assert not found.status.ok
    with pytest.raises(NotFinite, match=f"stopped at t = .*{found.status.reason.value[:20]}"):
        found.check()
    assert torch.isfinite(found.y1).all()
    return found


def test_a_solution_that_blows_up_says_where() -> None:
    found = failed(lambda t, y: y**2, torch.ones(1, **DOUBLE), 2.0, saveat=SaveAt(ts=[0.5, 1.5], t1=True))
    assert found.status.reason is Reason.STEP_TOO_SMALL  # type: ignore[attr-defined]
    assert found.status.time == pytest.approx(1.0, abs=1e-3)  # type: ignore[attr-defined]
    assert torch.isfinite(found.ys[0]).all()  # type: ignore[attr-defined]
    assert torch.isnan(found.ys[1]).all()  # type: ignore[attr-defined]
    assert "jump_times" in str(found.status)  # type: ignore[attr-defined]


def test_a_field_that_is_not_finite_says_where() -> None:
    start = torch.ones(1, **DOUBLE)
    found = failed(lambda t, y: torch.sqrt(1 - t) + 0 * y, start, 2.0)
    assert found.status.reason is Reason.NOT_FINITE  # type: ignore[attr-defined]
    assert found.status.time == pytest.approx(1.0, abs=1e-6)  # type: ignore[attr-defined]
    fixed = failed(lambda t, y: torch.sqrt(1 - t) + 0 * y, start, 2.0, dt0=0.25)
    assert fixed.status.reason is Reason.NOT_FINITE  # type: ignore[attr-defined]
    assert fixed.status.time == 1.0  # type: ignore[attr-defined]


def test_a_stiff_problem_meets_the_cap_and_is_told_so() -> None:
    found = failed(lambda t, y: -1e6 * (y - torch.cos(t)), torch.zeros(1, **DOUBLE), 1.0, max_steps=200)
    assert found.status.reason is Reason.MAX_STEPS  # type: ignore[attr-defined]
    assert "max_steps" in str(found.status)  # type: ignore[attr-defined]
    assert found.stats.accepted + found.stats.rejected == 200  # type: ignore[attr-defined]


def test_a_tolerance_below_the_dtype_is_named() -> None:
    found = failed(
        lambda t, y: torch.cos(50 * t) * y, torch.ones(1000), 10.0, controller=PID(1e-13, 1e-13), max_steps=300
    )
    assert found.status.reason is Reason.TOLERANCE_TOO_SMALL  # type: ignore[attr-defined]
    assert "double" in str(found.status)  # type: ignore[attr-defined]


def test_a_required_event_that_does_not_happen_is_a_failure() -> None:
    start = torch.ones(1, **DOUBLE)
    found = failed(lambda t, y: y, start, 1.0, events=Event(lambda t, y: y[0], required=True))
    assert found.status.reason is Reason.EVENT_MISSED  # type: ignore[attr-defined]
    assert integrate(lambda t, y: y, start, 0.0, 1.0, events=Event(lambda t, y: y[0])).status.ok


def test_one_sample_that_fails_leaves_the_others_alone() -> None:
    start = torch.tensor([[1.0], [0.1]], **DOUBLE)
    found = integrate(lambda t, y: y**2, start, 0.0, 2.0, batching="per-sample", controller=PID(1e-8, 1e-8))
    assert found.status.reasons == (Reason.STEP_TOO_SMALL, Reason.OK)
    assert "sample 0 of 2" in str(found.status)
    assert float(found.y1[1]) == pytest.approx(1 / (10 - 2), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y0": torch.ones(2, dtype=torch.int64)}, "dtype torch.int64"),
        ({"y0": [torch.ones(2), torch.ones(2, **DOUBLE)]}, "differ in dtype"),
        ({"y0": {}}, "is empty"),
        ({"y0": [1.0]}, "made of tensors"),
        ({"terms": 3}, "must be a function"),
        ({"terms": lambda t, y: y[:1]}, r"returned shape \(1,\) for a state of shape \(2,\)"),
        ({"terms": lambda t, y: y.double()}, "returned torch.float64 for a state of torch.float32"),
        ({"t1": math.inf}, "t1 is not finite"),
        ({"t1": torch.ones(2)}, "t1 has shape"),
        ({"dt0": -0.1}, "dt0 must be positive"),
        ({"max_steps": 0}, "max_steps"),
        ({"saveat": SaveAt(ts=[0.5, 2.0])}, "save time 2.0 lies outside"),
        ({"saveat": SaveAt(ts=[0.5, 0.1])}, "must be sorted"),
        ({"saveat": SaveAt(ts=torch.zeros(2, 3))}, "per-sample"),
        ({"controller": Constant()}, "need it: pass dt0"),
        ({"batching": "separate"}, "batching is"),
        ({"batching": "per-sample", "saveat": SaveAt(dense=True)}, "dense output needs"),
        ({"batching": "per-sample", "y0": torch.ones(())}, r"shape \(B, \*\)"),
        ({"batching": "per-sample", "t0": torch.tensor([0.0, 2.0])}, "same direction"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused_with_the_way_out(change: dict[str, object], said: str) -> None:
    given = {"terms": lambda t, y: -y, "y0": torch.ones(2), "t0": 0.0, "t1": 1.0, **change}
    with pytest.raises(InvalidInput, match=said):
        integrate(**given)  # type: ignore[arg-type]


def test_tolerances_are_checked() -> None:
    for bad in ((-1e-3, 1e-3), (0.0, 0.0)):
        with pytest.raises(InvalidInput, match=r"negative|both zero"):
            PID(*bad)


def test_nothing_is_done_where_the_ends_are_equal() -> None:
    found = integrate(swing, torch.ones(2), 1.0, 1.0, saveat=SaveAt(ts=[1.0], t1=True))
    assert found.ys.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert found.stats.accepted == 0


def test_direct_gradients_pass_second_order_checks() -> None:
    start = torch.tensor([0.5, -1.0], **DOUBLE, requires_grad=True)
    rate = torch.tensor(0.7, **DOUBLE, requires_grad=True)

    def solve(y: Tensor, k: Tensor) -> Tensor:
        return integrate(ODE(lambda t, y, k: torch.sin(k * y) + t), y, 0.0, 1.0, args=k, dt0=0.25, method=Dopri5()).y1

    assert torch.autograd.gradcheck(solve, (start, rate))
    assert torch.autograd.gradgradcheck(solve, (start, rate))
