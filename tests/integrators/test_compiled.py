from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline.integrators import PID, Direct, Event, Reason, SaveAt, Tsit5, integrate
from isocline.integrators import compiled as module
from isocline.integrators.compiled import Compiled

DOUBLE = {"dtype": torch.float64}


def field(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1], 5 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1) + 0.1 * torch.cos(t)


def both(**options: Any) -> tuple[Any, Any]:
    start = torch.linspace(-2, 2, 6, **DOUBLE).reshape(3, 2)
    given: dict[str, Any] = {"controller": PID(1e-6, 1e-6), **options}
    return tuple(integrate(field, start, 0.0, 3.0, gradient=mode, **given) for mode in (Direct(), Compiled()))  # type: ignore


def agree(eager: Any, fast: Any) -> None:
    torch.testing.assert_close(fast.ys, eager.ys, rtol=1e-10, atol=1e-10)
    assert fast.stats == eager.stats
    assert fast.status.reasons == eager.status.reasons
    assert fast.status.time == pytest.approx(eager.status.time, rel=1e-10)
    assert fast.error_estimate == pytest.approx(eager.error_estimate, rel=1e-9)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Run the same functions through the tracer only, which is fast; and count the calls of the race."""
    calls: list[int] = []

    def race(*given: Any) -> Any:
        calls.append(1)
        return torch.compile(module._race, backend="eager", fullgraph=True, dynamic=False)(*given)

    def lean() -> Callable[..., Any]:
        return torch.compile(module._lean, backend="eager", fullgraph=True, dynamic=False)

    monkeypatch.setattr(module, "_compiled", lean)
    monkeypatch.setattr(module, "_compiled_race", lambda: race)
    return calls


def test_runs_of_attempts_are_one_graph_with_the_decisions_of_the_loop(uncompiled: list[int]) -> None:
    with torch.no_grad():
        agree(*both())
        assert len(uncompiled) == 1
        agree(*both(saveat=SaveAt(ts=[0.5, 0.9, 3.0], t1=True)))
        assert len(uncompiled) == 4
        agree(*both(controller=PID(1e-6, 1e-6, p=0.4, i=0.3), method=Tsit5()))


def test_what_the_loop_must_see_is_attempted_one_by_one(uncompiled: list[int]) -> None:
    with torch.no_grad():
        agree(*both(saveat=SaveAt(steps=True, t0=True)))
        agree(*both(events=Event(lambda t, y: y[0, 0])))
    assert not uncompiled


def test_the_cap_on_steps_holds_inside_the_graph(uncompiled: list[int]) -> None:
    with torch.no_grad():
        eager, fast = both(max_steps=20)
    agree(eager, fast)
    assert fast.status.reason is Reason.MAX_STEPS
    assert fast.stats.accepted + fast.stats.rejected == 20
    assert len(uncompiled) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the tracer's own
def test_gradients_go_through_the_graphs(uncompiled: list[int]) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    start = torch.ones(3, 2, **DOUBLE)
    found = []
    for mode in (Direct(), Compiled()):
        y1 = integrate(lambda t, y: net(y), start, 0.0, 1.0, gradient=mode).y1
        found.append(torch.autograd.grad(y1.square().sum(), tuple(net.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert not uncompiled


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_graphs_give_the_same_numbers() -> None:
    with torch.no_grad():
        agree(*both())
    start = torch.ones(3, 2, **DOUBLE, requires_grad=True)
    found = []
    for mode in (Direct(), Compiled()):
        y1 = integrate(field, start, 0.0, 1.0, gradient=mode).y1
        found.append(torch.autograd.grad(y1.square().sum(), start)[0])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
