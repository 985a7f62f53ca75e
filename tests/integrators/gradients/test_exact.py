"""Every exact mode gives the gradient of the discrete solution: that of `Direct`, to rounding."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, Mismatch
from isocline.integrators import (
    PID,
    RK4,
    AdamsBashforth,
    Backsolve,
    Bosh3,
    Checkpointed,
    Clip,
    Direct,
    Dopri5,
    Each,
    Euler,
    Event,
    Leapfrog,
    Midpoint,
    Reversible,
    ReversibleAdjoint,
    ReversibleHeun,
    SaveAt,
    SemiImplicitEuler,
    Separable,
    Solution,
    Steps,
    Yoshida4,
    Yoshida6,
    integrate,
)
from isocline.integrators.gradients.tape import Recorder

DOUBLE = {"dtype": torch.float64}
SAME = 1e-10  # steps may be of other sizes by rounding, as kernels differ where no graph is wanted


def label(x: Any) -> str:
    inner = [label(x.method)] if hasattr(x, "method") else [x.memory] if hasattr(x, "memory") else []
    return "-".join([type(x).__name__, *inner])


CHECKPOINTS = (Checkpointed("sqrt"), Checkpointed("log"))
CONTROLS: dict[str, dict[str, Any]] = {
    "adaptive": {"controller": PID(1e-5, 1e-7)},
    "rejections": {"controller": PID(1e-8, 1e-8), "dt0": 1.0},
    "constant": {"dt0": 0.07},
    "given": {"controller": Steps(torch.linspace(0, 2, 30) ** 2)},
    "jumps": {"controller": Clip(PID(1e-5, 1e-7), jump_times=(0.7, 1.1))},
}


class Bed:
    """A driven field with a module, a closed-over tensor and rows that belong to samples."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, **DOUBLE) / 2)
        self.y0 = torch.randn(4, 3, generator=generator, **DOUBLE).requires_grad_()
        self.rates = torch.linspace(0.3, 4, 4, **DOUBLE).reshape(4, 1).requires_grad_()
        self.shift = torch.tensor(0.2, **DOUBLE, requires_grad=True)

    def field(self, t: Tensor, y: Tensor, rates: Any) -> Tensor:
        seen = rates.rows if isinstance(rates, Each) else rates
        return self.net(y) * torch.cos(seen * t) - self.shift * y

    @property
    def leaves(self) -> list[Tensor]:
        return [self.y0, self.rates, self.shift, *self.net.parameters()]

    def solve(self, gradient: Any, batched: bool = False, **options: Any) -> Solution:
        args = Each(self.rates) if batched else self.rates
        batching = "per-sample" if batched else "joint"
        return integrate(self.field, self.y0, 0.0, 2.0, args=args, gradient=gradient, batching=batching, **options)

    def gradient(self, gradient: Any, batched: bool = False, **options: Any) -> tuple[Solution, Tensor]:
        solution = self.solve(gradient, batched, **options)
        total = solution.y1.sin().sum()
        if solution.ys is not None:
            weights = torch.linspace(1, 2, solution.ys.numel(), **DOUBLE).reshape(solution.ys.shape)
            total = total + (weights * torch.nan_to_num(solution.ys) ** 2).sum()
        return solution, joined(torch.autograd.grad(total, self.leaves))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in tensors])


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference between two gradients in units of the largest entry."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture
def bed() -> Bed:
    return Bed()


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("mode", CHECKPOINTS, ids=label)
def test_checkpointed_equals_direct(bed: Bed, mode: Any, control: str, batched: bool) -> None:
    times = torch.linspace(0, 2, 6, **DOUBLE)
    saveat = SaveAt(ts=times, t0=True, t1=True, steps=True)
    direct, expected = bed.gradient(Direct(), batched, saveat=saveat, **CONTROLS[control])
    solution, found = bed.gradient(mode, batched, saveat=saveat, **CONTROLS[control])
    torch.testing.assert_close(solution.ys, direct.ys, rtol=1e-10, atol=1e-10, equal_nan=True)
    assert np.array_equal(solution.stats.nfe, direct.stats.nfe)
    assert distance(found, expected) < SAME


def test_samples_in_the_rejections_bed_reject_and_end_at_different_steps(bed: Bed) -> None:
    solution = bed.solve(Direct(), True, **CONTROLS["rejections"])
    assert (solution.stats.rejected > 0).all()
    assert len(set(solution.stats.accepted.tolist())) > 2


@pytest.mark.parametrize("batched", [False, True])
def test_backward_in_time_and_with_a_step_left_over(bed: Bed, batched: bool) -> None:
    def gradient(mode: Any) -> Tensor:
        args = Each(bed.rates) if batched else bed.rates
        batching: Any = "per-sample" if batched else "joint"
        y1 = integrate(bed.field, bed.y0, 2.0, 0.5, args=args, dt0=0.07, gradient=mode, batching=batching).y1
        return joined(torch.autograd.grad(y1.sin().sum(), bed.leaves))

    for mode in CHECKPOINTS:
        assert distance(gradient(mode), gradient(Direct())) < SAME


def test_times_of_each_sample_with_a_mask(bed: Bed) -> None:
    times = torch.tensor([[0.0, 0.5, 2.0], [0.1, 0.2, 0.2], [0.7, 1.0, 1.9], [0.0, 0.0, 2.0]], **DOUBLE)
    saveat = SaveAt(ts=times, mask=torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]]))
    options = {"saveat": saveat, "controller": PID(1e-5, 1e-7)}
    expected = bed.gradient(Direct(), True, **options)[1]
    for mode in CHECKPOINTS:
        assert distance(bed.gradient(mode, True, **options)[1], expected) < SAME


def test_what_is_kept_may_be_a_function_of_the_state(bed: Bed) -> None:
    saveat = SaveAt(ts=[0.3, 1.4], steps=True, fn=lambda t, y: t * (y**2).sum())
    expected = bed.gradient(Direct(), saveat=saveat, dt0=0.1)[1]
    for mode in CHECKPOINTS:
        assert distance(bed.gradient(mode, saveat=saveat, dt0=0.1)[1], expected) < SAME


@pytest.mark.parametrize("batched", [False, True])
def test_the_state_at_an_event_has_the_gradient_of_its_time(bed: Bed, batched: bool) -> None:
    event = Event(lambda t, y, rates: (y[..., 0] - 0.4 * bed.shift) if batched else y[0, 0] + 2 * bed.shift - 0.5 * t)
    options = {"events": event, "controller": PID(1e-6, 1e-8)}
    direct, expected = bed.gradient(Direct(), batched, **options)
    assert any(direct.events)
    for mode in CHECKPOINTS:
        assert distance(bed.gradient(mode, batched, **options)[1], expected) < SAME


def test_the_time_of_an_event_has_its_gradient() -> None:
    def gradient(mode: Any) -> Tensor:
        speed = torch.tensor(2.0, **DOUBLE, requires_grad=True)
        event = Event(lambda t, y: y.sum() - 3.0)
        solution = integrate(lambda t, y: speed + 0 * y, torch.zeros(1, **DOUBLE), 0, 5, events=event, gradient=mode)
        assert solution.t1 is not None
        return torch.autograd.grad(solution.t1, speed)[0]

    for mode in (Direct(), *CHECKPOINTS):
        assert float(gradient(mode)) == pytest.approx(-3.0 / 2.0**2, rel=1e-9)  # t = 3 / speed


@pytest.mark.parametrize("method", [RK4(), AdamsBashforth(4), Midpoint()], ids=label)
def test_methods_that_carry_nothing_or_a_history(bed: Bed, method: Any) -> None:
    options: dict[str, Any] = {"method": method, "dt0": 0.07, "saveat": SaveAt(ts=[0.3, 2.0])}
    expected = bed.gradient(Direct(), **options)[1]
    for mode in CHECKPOINTS:
        assert distance(bed.gradient(mode, **options)[1], expected) < SAME


REVERSIBLE = [Reversible(), Reversible(RK4()), Reversible(Dopri5()), ReversibleHeun()]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("method", REVERSIBLE, ids=label)
def test_undone_steps_equal_direct(bed: Bed, method: Any, batched: bool) -> None:
    saveat = SaveAt(ts=torch.linspace(0, 2, 6, **DOUBLE), t0=True)
    for control in ({"dt0": 0.1}, {"controller": PID(1e-2, 1e-2)}):
        if control.get("controller") and not method.error_order:
            continue
        options: dict[str, Any] = {"method": method, "saveat": saveat, **control}
        expected = bed.gradient(Direct(), batched, **options)[1]
        for mode in (ReversibleAdjoint(), Checkpointed()):
            assert distance(bed.gradient(mode, batched, **options)[1], expected) < SAME


def test_undone_steps_with_an_event(bed: Bed) -> None:
    event = Event(lambda t, y, rates: y[0, 0] + 2 * bed.shift - 0.5 * t)
    options: dict[str, Any] = {"method": Reversible(), "events": event, "dt0": 0.03}
    assert distance(bed.gradient(ReversibleAdjoint(), **options)[1], bed.gradient(Direct(), **options)[1]) < SAME


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("method", [SemiImplicitEuler(), Leapfrog(), Yoshida4(), Yoshida6()], ids=label)
def test_symplectic_methods(method: Any, batched: bool) -> None:
    q = torch.linspace(-1, 1, 3, **DOUBLE).reshape(3, 1).requires_grad_()
    p = torch.linspace(0, 1, 3, **DOUBLE).reshape(3, 1).requires_grad_()
    g = torch.tensor(1.3, **DOUBLE, requires_grad=True)
    terms = Separable(lambda t, p: p * (1 + 0.2 * t.sin()), lambda t, q: -g * torch.sin(q) + 0.1 * t.cos())

    def gradient(mode: Any) -> Tensor:
        batching: Any = "per-sample" if batched else "joint"
        end = torch.tensor([0.5, 1.0, 2.0]) if batched else 2.0
        saveat = SaveAt(t0=True, t1=True, steps=True)
        solution = integrate(
            terms, (q, p), 0.0, end, method=method, dt0=0.1, gradient=mode, saveat=saveat, batching=batching
        )
        total = sum((torch.nan_to_num(x) ** 3).sum() for x in (*solution.ys, *solution.y1))
        return joined(torch.autograd.grad(total, (q, p, g)))

    for mode in (*CHECKPOINTS, ReversibleAdjoint()):
        assert distance(gradient(mode), gradient(Direct())) < SAME


THOUSAND: list[Any] = [
    (Bosh3(), Checkpointed("sqrt")),
    pytest.param(Bosh3(), Checkpointed("log"), marks=pytest.mark.slow),
    pytest.param(Reversible(Dopri5()), ReversibleAdjoint(), marks=pytest.mark.slow),
    pytest.param(Reversible(Euler()), ReversibleAdjoint(), marks=pytest.mark.slow),
    (ReversibleHeun(), ReversibleAdjoint()),
]


@pytest.mark.parametrize(("method", "mode"), THOUSAND, ids=label)
def test_a_thousand_steps(method: Any, mode: Any) -> None:
    y0 = torch.tensor([1.0, 0.0, 0.3], **DOUBLE, requires_grad=True)
    weight = torch.tensor([[0.0, -1.0, 0.1], [1.0, 0.0, 0.2], [0.3, -0.1, 0.0]], **DOUBLE, requires_grad=True)

    def gradient(mode: Any) -> Tensor:
        solution = integrate(lambda t, y: torch.tanh(weight @ y), y0, 0, 5, method=method, dt0=0.005, gradient=mode)
        assert solution.stats.accepted == 1000
        return joined(torch.autograd.grad(solution.y1.sin().sum(), (y0, weight)))

    assert distance(gradient(mode), gradient(Direct())) < SAME


# ------------------------------------------------------------------------------------------------ derivatives


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        (Dopri5(), Direct()),
        (Dopri5(), Checkpointed("sqrt")),
        (Dopri5(), Checkpointed("log")),
        (Reversible(), ReversibleAdjoint()),
        (RK4(), Backsolve()),
    ],
    ids=label,
)
def test_gradcheck(method: Any, mode: Any) -> None:
    def solve(y0: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        field = lambda t, y, rate: torch.sin(y) * rate + t  # noqa: E731
        saveat = SaveAt(ts=[0.3, 1.0])
        solution = integrate(field, y0, 0.0, 1.0, args=rate, method=method, dt0=0.2, gradient=mode, saveat=saveat)
        return solution.ys, solution.y1

    inputs = torch.tensor([0.4, -0.7], **DOUBLE, requires_grad=True), torch.tensor(0.8, **DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-6, nondet_tol=1e-12)
    if isinstance(mode, Direct):
        assert torch.autograd.gradgradcheck(solve, inputs, atol=1e-6)
        return
    for power in (1, 2):  # also where the loss is linear, so that its own cotangent has no gradient
        (first,) = torch.autograd.grad((solve(*inputs)[1] ** power).sum(), inputs[:1], create_graph=True)
        with pytest.raises(InvalidInput, match=r"no second derivatives.*Direct"):
            first.sum().backward()


def test_complex_states() -> None:
    y0 = torch.tensor([1.0 + 0.5j, -0.3 + 0.1j], requires_grad=True, dtype=torch.complex128)
    rate = torch.tensor(0.5 + 2.0j, requires_grad=True, dtype=torch.complex128)

    def gradient(method: Any, mode: Any) -> Tensor:
        y1 = integrate(lambda t, y: rate * y * t.cos(), y0, 0, 1, method=method, dt0=0.05, gradient=mode).y1
        return torch.cat([x.flatten() for x in torch.autograd.grad(y1.abs().sum(), (y0, rate))])

    for method, mode in ((Dopri5(), Checkpointed()), (Reversible(), ReversibleAdjoint())):
        assert float((gradient(method, mode) - gradient(method, Direct())).abs().max()) < SAME


# ------------------------------------------------------------------------------------------------ books


@pytest.mark.parametrize("memory", ["sqrt", "log"])
@pytest.mark.parametrize("n", [1, 7, 100, 1000, 5000])
def test_the_number_of_stored_states(memory: Any, n: int) -> None:
    recorder = Recorder(Checkpointed(memory).held)
    step = partial(_taken, torch.zeros(1))
    for k in range(n):
        recorder(step(k))
    bar = {"sqrt": 2 * n**0.5, "log": 2 + np.log2(n)}[memory]
    assert 0 in recorder.states
    assert len(recorder.states) <= max(2, bar)
    assert len(recorder.states) >= min(n / 8, bar) / 2 - 1  # and not many fewer
    assert len(recorder.grid()) == n


def _taken(y: Tensor, k: int) -> Any:
    from isocline.integrators.problem import StepTaken

    s = np.array(float(k))
    return StepTaken(None, np.array(True), s, np.array(1.0), s, np.array(1.0), y, ())


def test_evaluations_are_those_that_were_stated() -> None:
    calls = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -y

    y0 = torch.ones(1, **DOUBLE, requires_grad=True)
    per_step = {}
    for name, mode in (("sqrt", Checkpointed("sqrt")), ("log", Checkpointed("log"))):
        calls = 0
        integrate(field, y0, 0, 1, method=Euler(), dt0=1 / 512, gradient=mode).y1.sum().backward()
        per_step[name] = calls / 512
    assert per_step["sqrt"] == 2.0  # forward and once again
    assert 3.0 < per_step["log"] < 5.0  # halving from 128 steps to 8: two halves of four levels more


# ------------------------------------------------------------------------------------------------ refusals


def test_a_field_that_is_not_a_function_is_found_out(bed: Bed) -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = lambda t, y, rates: -y + torch.randn(y.shape, generator=generator, **DOUBLE)  # noqa: E731
    y1 = integrate(noisy, bed.y0, 0, 1, args=bed.rates, dt0=0.01, gradient=Checkpointed()).y1
    with pytest.raises(Mismatch, match=r"differ from those of the forward pass.*Direct"):
        y1.sum().backward()


def test_damping_that_cannot_be_undone_is_found_out() -> None:
    y0 = torch.linspace(1, 2, 3, **DOUBLE).requires_grad_()
    y1 = integrate(lambda t, y: -40 * y, y0, 0, 1, method=Reversible(), dt0=0.01, gradient=ReversibleAdjoint()).y1
    with pytest.raises(Mismatch, match=r"do not lead back to the first state.*gradient="):
        y1.sum().backward()


def test_growth_of_rounding_is_refused_with_a_coupling_that_works() -> None:
    y0 = torch.ones(1, **DOUBLE, requires_grad=True)
    solve = partial(integrate, lambda t, y: -0.1 * y, y0, 0.0, 1.0, gradient=ReversibleAdjoint())
    with pytest.raises(InvalidInput, match=r"grow by 1e\+09 over 200 undone steps.*coupling=0\.95"):
        solve(method=Reversible(coupling=0.9), dt0=1 / 200)
    solve(method=Reversible(coupling=0.955), dt0=1 / 200).y1.sum().backward()
    expected = torch.autograd.grad(
        integrate(lambda t, y: -0.1 * y, y0, 0.0, 1.0, method=Reversible(coupling=0.955), dt0=1 / 200).y1.sum(), y0
    )
    assert y0.grad is not None
    torch.testing.assert_close(y0.grad, expected[0], rtol=1e-7, atol=0)


def test_what_needs_a_graph_is_refused(bed: Bed) -> None:
    for mode in (Checkpointed(), ReversibleAdjoint(), Backsolve()):
        with pytest.raises(InvalidInput, match="Direct"):
            bed.solve(mode, method=Reversible(), dt0=0.1, record=("steps",))
        with pytest.raises(InvalidInput, match="Direct"):
            bed.solve(mode, method=Reversible(), dt0=0.1, saveat=SaveAt(dense=True))
        with torch.no_grad():
            assert bed.solve(mode, method=Reversible(), dt0=0.1, record=("steps",)).record is not None


def test_methods_that_cannot_be_undone_are_refused(bed: Bed) -> None:
    with pytest.raises(InvalidInput, match=r"Dopri5 cannot be undone.*Reversible\(Dopri5\(\)\)"):
        bed.solve(ReversibleAdjoint())
    with pytest.raises(InvalidInput, match="jump"):
        bed.solve(ReversibleAdjoint(), method=Reversible(), controller=Clip(PID(1e-3, 1e-3), jump_times=(1.0,)))


def test_a_tensor_changed_in_place_before_the_backward_pass_is_found_out(bed: Bed) -> None:
    total = bed.solve(Checkpointed(), dt0=0.1).y1.sum()
    with torch.no_grad():
        bed.shift += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_the_memory_has_two_names() -> None:
    with pytest.raises(InvalidInput, match='"sqrt" or "log"'):
        Checkpointed("cube")  # type: ignore[arg-type]


@pytest.mark.parametrize("batched", [False, True])
def test_a_span_of_length_zero_has_the_gradient_of_the_first_state(bed: Bed, batched: bool) -> None:
    batching: Any = "per-sample" if batched else "joint"
    for mode, method in ((Checkpointed(), Dopri5()), (ReversibleAdjoint(), Reversible()), (Direct(), Dopri5())):
        saveat = SaveAt(ts=[1.0], t0=True, t1=True)
        solution = integrate(
            torch.sin,
            bed.y0,
            1.0,
            1.0,
            args=None,
            method=method,
            dt0=0.1,
            gradient=mode,
            saveat=saveat,
            batching=batching,
        )
        (found,) = torch.autograd.grad(solution.ys.sum() + solution.y1.sum(), bed.y0)
        assert torch.equal(found, torch.full_like(found, 4.0))


def test_a_failed_integration_has_the_gradient_of_what_it_reached() -> None:
    def gradient(mode: Any) -> tuple[Solution, Tensor]:
        y0 = torch.ones(1, **DOUBLE, requires_grad=True)
        solution = integrate(lambda t, y: y**2, y0, 0, 2, dt0=0.05, gradient=mode, max_steps=10)
        return solution, torch.autograd.grad(solution.y1.sum(), y0)[0]

    direct, expected = gradient(Direct())
    assert not direct.status.ok
    for mode in CHECKPOINTS:
        solution, found = gradient(mode)
        assert solution.status == direct.status
        assert distance(found, expected) < SAME
