"""Controlled differential equations: closed forms, invariance, every method and gradient, samples on their own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    CDE,
    PID,
    RK4,
    AdamsBashforth,
    Backsolve,
    Checkpointed,
    Constant,
    ControlPath,
    Direct,
    Dopri5,
    Dopri8,
    Each,
    HermitePath,
    Kvaerno3,
    LinearPath,
    NaturalCubicPath,
    RectilinearPath,
    Reversible,
    ReversibleAdjoint,
    Rodas4,
    SaveAt,
    Tsit5,
    integrate,
    with_time,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
TIGHT = PID(1e-10, 1e-12)
KINDS: list[Any] = [LinearPath, HermitePath, NaturalCubicPath, RectilinearPath]
METHODS = [Dopri5(), Tsit5(), Dopri8(), Kvaerno3(), Rodas4()]


def named(x: Any) -> str:
    return getattr(x, "__name__", type(x).__name__)


def series(seed: int = 0, batch: int = 3, n: int = 6, missing: float = 0.0, own: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(*([batch] if own else []), n, generator=generator, **DOUBLE).add(0.1).cumsum(-1)
    values = torch.randn(batch, n, 2, generator=generator, **DOUBLE)
    return times, values.masked_fill(torch.rand(values.shape, generator=generator) < missing, torch.nan)


def matrices(channels: int) -> Tensor:
    """Matrices (C, 3, 3) that commute, as they are polynomials of one."""
    one = torch.tensor([[0.1, 0.5, 0.0], [-0.4, 0.0, 0.3], [0.2, 0.1, -0.3]], **DOUBLE)
    return torch.stack([torch.eye(3, **DOUBLE) * 0.2, one, one @ one - one][:channels])


def linear(a: Tensor) -> Any:
    """The field of dy = sum_c A_c y dX_c."""
    return lambda t, y: torch.einsum("cij,...j->...ic", a, y)


def increment(path: ControlPath) -> Tensor:
    return path.evaluate(path.end.max()) - path.evaluate(path.start.min())


@pytest.mark.parametrize("kind", KINDS, ids=named)
@pytest.mark.parametrize("batching", ["joint", "per-sample"])
def test_commuting_fields_give_the_exponential_of_the_increment(kind: Any, batching: Any) -> None:
    path = kind(*series(missing=0.3))
    a, y0 = matrices(path.channels), torch.randn(3, 3, generator=torch.Generator().manual_seed(0), **DOUBLE)
    options: dict[str, Any] = {"method": Dopri8(), "controller": path.clip(TIGHT), "batching": batching}
    found = integrate(CDE(linear(a), path), y0, path.start, path.end.max(), **options).check()
    flow = torch.linalg.matrix_exp(torch.einsum("bc,cij->bij", increment(path), a))
    torch.testing.assert_close(found.y1, (flow @ y0[..., None])[..., 0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_every_kind_of_method(method: Any) -> None:
    path = LinearPath(*series())
    a, y0 = matrices(2), torch.ones(3, 3, **DOUBLE)
    controller = path.clip(PID(1e-6, 1e-8))
    found = integrate(CDE(linear(a), path), y0, path.start, path.end, method=method, controller=controller).check()
    flow = torch.linalg.matrix_exp(torch.einsum("bc,cij->bij", increment(path), a))
    torch.testing.assert_close(found.y1, (flow @ y0[..., None])[..., 0], rtol=0, atol=1e-3)


def bent(t: Tensor, y: Tensor) -> Tensor:
    """A field of three states and two channels that is neither linear nor commuting."""
    return torch.stack([torch.sin(y.roll(1, -1) + t), torch.cos(2 * y)], -1)


@pytest.mark.parametrize(
    ("kind", "method", "order"), [(LinearPath, RK4(), 4), (HermitePath, RK4(), 4), (LinearPath, AdamsBashforth(2), 2)]
)
def test_the_order_of_a_method_is_kept_where_steps_end_at_knots(kind: Any, method: Any, order: int) -> None:
    times = torch.tensor([0.0, 1.0, 2.0], **DOUBLE)
    path = kind(times, torch.tensor([[0.0, 0.0], [1.0, -0.5], [0.2, 1.0]], **DOUBLE))
    terms, y0 = CDE(bent, path), torch.tensor([0.3, 1.0, -0.5], **DOUBLE)
    exact = integrate(terms, y0, 0.0, 2.0, method=Dopri8(), controller=path.clip(PID(1e-12, 1e-13))).y1
    errors = []
    for n in (48, 96):
        found = integrate(terms, y0, 0.0, 2.0, method=method, controller=path.clip(Constant()), dt0=1 / n).y1
        errors.append(float((found - exact).norm()))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


def area(t: Tensor, y: Tensor) -> Tensor:
    """dy_0 = dX_0, dy_1 = y_0 dX_1."""
    one, zero = torch.ones_like(y[..., 0]), torch.zeros_like(y[..., 0])
    return torch.stack([torch.stack([one, zero], -1), torch.stack([zero, y[..., 0]], -1)], -2)


def test_fields_that_do_not_commute_give_the_area() -> None:
    times, values = series(1)
    path = LinearPath(times, values)
    found = integrate(
        CDE(area, path), values[:, 0] * 1.0, path.start, path.end, method=Dopri8(), controller=path.clip(TIGHT)
    ).y1
    x, y = values.unbind(-1)
    swept = ((x[:, 1:] + x[:, :-1]) / 2 * y.diff()).sum(-1)
    torch.testing.assert_close(found[:, 0], x[:, -1], rtol=0, atol=1e-10)
    torch.testing.assert_close(found[:, 1], y[:, 0] + swept, rtol=0, atol=1e-10)


def test_how_fast_the_path_is_run_through_does_not_matter() -> None:
    times, values = series(2)
    ends = []
    for moments in (times, times**3):
        path = LinearPath(moments, values)
        terms = CDE(lambda t, y: torch.sin(y[..., None] + torch.tensor([0.0, 1.0], **DOUBLE)), path)
        ends.append(
            integrate(
                terms, torch.ones(3, 4, **DOUBLE), path.start, path.end, method=Dopri8(), controller=path.clip(TIGHT)
            ).y1
        )
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-8)


def test_backwards_in_time_undoes_it() -> None:
    path = HermitePath(*series(3))
    terms, y0 = CDE(area, path), torch.ones(3, 2, **DOUBLE)
    y1 = integrate(terms, y0, path.start, path.end, method=Dopri8(), controller=path.clip(TIGHT)).y1
    back = integrate(terms, y1, path.end, path.start, method=Dopri8(), controller=path.clip(TIGHT)).y1
    torch.testing.assert_close(back, y0, rtol=0, atol=1e-8)


class Bed:
    """A learned field, data with gaps, and all that gradients are wanted for."""

    def __init__(self, kind: Any, own: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 12), nn.Tanh()).double()
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, **DOUBLE) / 2)
        self.times, values = series(4, missing=0.3, own=own)
        self.seen = ~values.isnan()
        self.data = values[self.seen].clone().requires_grad_()
        self.y0 = torch.randn(3, 4, generator=generator, **DOUBLE).requires_grad_()
        self.kind = kind

    def path(self) -> ControlPath:
        values = torch.full(self.seen.shape, torch.nan, **DOUBLE).masked_scatter(self.seen, self.data)
        values = values if self.kind is RectilinearPath else with_time(self.times, values)
        path: ControlPath = self.kind(self.times, values)
        return path

    def gradient(self, mode: Any, **options: Any) -> Tensor:
        path, net = self.path(), self.net
        start, end = path.start, path.end

        def field(t: Tensor, y: Tensor) -> Tensor:
            return net(y).unflatten(-1, (4, 3)) * torch.cos(t)[..., None]

        if options.get("batching") == "joint":
            start, end = start.min(), end.max()
        given = {"controller": path.clip(PID(1e-4, 1e-6)), **options}
        y1 = integrate(CDE(field, path), self.y0, start, end, gradient=mode, **given).check().y1
        leaves = [self.data, self.y0, *self.net.parameters()]
        return torch.cat([g.flatten() for g in torch.autograd.grad(y1.sin().sum(), leaves)])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("mode", [Checkpointed("sqrt"), Checkpointed("log")], ids=["sqrt", "log"])
@pytest.mark.parametrize("batching", ["joint", "per-sample"])
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_checkpointed_gradients_are_those_of_backpropagation(kind: Any, batching: Any, mode: Any) -> None:
    bed = Bed(kind)
    exact = bed.gradient(Direct(), batching=batching)
    assert float(exact.abs().min()) > 0.0  # data, first state and parameters
    assert distance(bed.gradient(mode, batching=batching), exact) < 1e-10


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("batching", ["joint", "per-sample"])
@pytest.mark.parametrize("kind", [HermitePath, NaturalCubicPath], ids=named)
def test_reversible_gradients_are_those_of_backpropagation(kind: Any, batching: Any, own: bool) -> None:
    options = {"method": Reversible(), "controller": Constant(), "dt0": 0.15, "batching": batching}
    bed = Bed(kind, own)
    assert distance(bed.gradient(ReversibleAdjoint(), **options), bed.gradient(Direct(), **options)) < 1e-10


def test_backsolve_agrees_to_its_tolerance() -> None:
    bed = Bed(HermitePath)
    options = {"controller": bed.path().clip(PID(1e-8, 1e-10)), "batching": "joint"}
    assert distance(bed.gradient(Backsolve(), **options), bed.gradient(Direct(), **options)) < 1e-4


SMOOTH = [(kind, own) for kind in (HermitePath, NaturalCubicPath) for own in (False, True)]


@pytest.mark.parametrize(("kind", "own"), [*SMOOTH, (LinearPath, False), (RectilinearPath, False)])
def test_a_sample_with_steps_of_its_own_is_as_it_is_alone(kind: Any, own: bool) -> None:
    times, values = series(5, missing=0.2, own=own)
    if own:
        times[1, 6:], values[1, 6:] = torch.nan, torch.nan
    path = kind(times, values)
    scale = torch.linspace(0.3, 3, 3, **DOUBLE)[:, None]

    def field(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return (k * torch.sin(y + t))[..., None].expand(*y.shape, path.channels)

    y0, chosen = torch.ones(3, 2, **DOUBLE), PID(1e-6, 1e-8)
    controller = chosen if path.smooth else path.clip(chosen)
    together = integrate(
        CDE(field, path), y0, path.start, path.end, args=Each(scale), controller=controller, batching="per-sample"
    ).check()
    assert len(set(together.stats.nfe.tolist())) > 1
    for b in range(3):
        n = int((~times[b].isnan()).sum()) if own else len(times)
        one = kind(times[b, :n] if own else times, values[b, :n])
        alone = integrate(
            CDE(field, one), y0[b : b + 1], one.start, one.end, args=scale[b : b + 1], controller=controller
        ).check()
        torch.testing.assert_close(together.y1[b], alone.y1[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_the_state_stands_still_where_a_sample_has_ended(kind: Any) -> None:
    times, values = series(6, own=True)
    times[0, 4:], values[0, 4:] = torch.nan, torch.nan
    path = kind(times, values)
    short = kind(times[0, :4], values[0, :4])
    terms, y0 = CDE(linear(matrices(path.channels)), path), torch.ones(3, 3, **DOUBLE)
    everyone = (
        integrate(terms, y0, path.start.min(), path.end.max(), method=Dopri8(), controller=path.clip(TIGHT)).check().y1
    )
    alone = integrate(
        CDE(linear(matrices(path.channels)), short),
        y0[0],
        short.start,
        short.end,
        method=Dopri8(),
        controller=short.clip(TIGHT),
    ).y1
    torch.testing.assert_close(everyone[0], alone, rtol=0, atol=1e-9)


def test_single_precision_sees_no_slope_from_behind_a_jump() -> None:
    times, values = series(7, n=30)
    found = []
    for dtype in (torch.float32, torch.float64):
        path = LinearPath(times, values.to(dtype))
        y0 = torch.ones(3, 3, dtype=dtype)
        a = matrices(2).to(dtype)
        found.append(
            integrate(
                CDE(linear(a), path), y0, path.start, path.end, method=RK4(), controller=path.clip(Constant()), dt0=9.0
            ).y1
        )
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-4, atol=1e-4)


def test_states_of_any_structure_and_shape() -> None:
    times, values = series(8)
    path = HermitePath(times, values)
    y0 = {"a": torch.ones(3, 4, 2, **DOUBLE), "b": torch.ones(3, **DOUBLE)}

    def field(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: torch.stack([v, torch.zeros_like(v)], -1) for k, v in y.items()}

    for batching in ("joint", "per-sample"):
        options: dict[str, Any] = {"method": Dopri8(), "controller": path.clip(TIGHT), "batching": batching}
        found = integrate(CDE(field, path), y0, path.start, path.end, **options).y1
        growth = increment(path)[:, 0].exp()
        torch.testing.assert_close(found["b"], growth, rtol=0, atol=1e-8)
        torch.testing.assert_close(found["a"], growth[:, None, None].expand(3, 4, 2), rtol=0, atol=1e-8)


def test_one_path_drives_all_samples() -> None:
    times, values = series(9)
    path = HermitePath(times, values[0])
    y0 = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.1, -1.0]], **DOUBLE)
    flow = torch.linalg.matrix_exp(torch.einsum("c,cij->ij", increment(path), matrices(2)))
    for batching in ("joint", "per-sample"):
        options: dict[str, Any] = {"method": Dopri8(), "controller": path.clip(TIGHT), "batching": batching}
        found = integrate(CDE(linear(matrices(2)), path), y0, path.start, path.end, **options).y1
        torch.testing.assert_close(found, y0 @ flow.mT, rtol=0, atol=1e-8)


def test_states_at_observations_do_not_depend_on_later_data() -> None:
    times, values = series(10)
    later = values.clone()
    later[:, 5:] += 1.0
    found = []
    for x in (values, later):
        path = HermitePath(times, x)
        options: dict[str, Any] = {"controller": path.clip(Constant()), "dt0": 0.1, "saveat": SaveAt(ts=times)}
        found.append(integrate(CDE(area, path), torch.ones(3, 2, **DOUBLE), path.start, path.end, **options).ys)
    assert torch.equal(found[0][:5], found[1][:5])
    assert not torch.equal(found[0][5], found[1][5])


def test_what_does_not_fit_is_refused() -> None:
    path = HermitePath(*series())
    with pytest.raises(
        InvalidInput, match=r"returned shape \(3, 2, 5\) for .* \(3, 2\) and a path of 2 channels; expected"
    ):
        integrate(CDE(lambda t, y: y[..., None].expand(3, 2, 5), path), torch.ones(3, 2, **DOUBLE), 0.0, 1.0)
    with pytest.raises(InvalidInput, match=r"the path has batch axes \(3,\), which the state of shape \(4, 2\)"):
        integrate(CDE(area, path), torch.ones(4, 2, **DOUBLE), 0.0, 1.0)
    broken, y0 = LinearPath(*series()), torch.ones(3, 2, **DOUBLE, requires_grad=True)
    options: dict[str, Any] = {"method": Reversible(), "controller": broken.clip(Constant()), "dt0": 0.1}
    with pytest.raises(InvalidInput, match="steps cannot be undone across a jump"):
        integrate(CDE(area, broken), y0, 0.0, 1.0, gradient=ReversibleAdjoint(), **options)
