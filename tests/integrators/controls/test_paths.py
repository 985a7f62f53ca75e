"""Control paths: what they interpolate, SciPy's splines, order, causality, shapes of times, gradients, and their span."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline, CubicSpline
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    PID,
    Constant,
    ControlPath,
    HermitePath,
    LinearPath,
    NaturalCubicPath,
    RectilinearPath,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
Kind = Callable[[Tensor, Tensor], ControlPath]
INTERPOLANTS: list[Any] = [LinearPath, HermitePath, NaturalCubicPath]
KINDS: list[Any] = [*INTERPOLANTS, RectilinearPath]


def data(
    seed: int, *batch: int, n: int = 13, channels: int = 2, missing: float = 0.0, own: bool = False
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lead = batch if own else ()
    times = torch.rand(*lead, n, generator=generator, **DOUBLE).add(0.05).cumsum(-1)
    values = torch.randn(*batch, n, channels, generator=generator, **DOUBLE)
    gaps = torch.rand(values.shape, generator=generator) < missing
    return times, values.masked_fill(gaps, torch.nan)


def at_knots(path: ControlPath, times: Tensor, values: Tensor) -> Tensor:
    """The path at the times of its data, in the shape of the values."""
    moments = times.movedim(-1, 0).reshape(times.shape[-1], *(times.shape[:-1] or [1] * (values.ndim - 2)), 1)
    return path.evaluate(moments).movedim(0, -2)


def grid(times: Tensor, m: int, batch: int) -> Tensor:
    return torch.linspace(float(times.min()), float(times.max()), m, **DOUBLE).reshape(m, *[1] * (batch + 1))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("kind", INTERPOLANTS)
def test_the_path_goes_through_what_was_observed(kind: Kind, missing: float, own: bool) -> None:
    for seed in range(5):
        times, values = data(seed, 3, missing=missing, own=own)
        found = at_knots(kind(times, values), times, values)
        seen = ~values.isnan()
        assert seen.any(1).all()
        torch.testing.assert_close(found[seen], values[seen], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_derivative_is_that_of_the_value(kind: Kind) -> None:
    times, values = data(0, 3, missing=0.3)
    path = kind(times, values)
    t = grid(torch.tensor([float(path.start.min()) + 0.01, float(path.end.min()) - 0.01]), 57, 1).requires_grad_()
    for channel in range(path.channels):
        for sample in range(3):
            (slope,) = torch.autograd.grad(path.evaluate(t)[:, sample, channel].sum(), t)
            torch.testing.assert_close(path.derivative(t)[:, sample, channel], slope[:, 0, 0], rtol=0, atol=1e-11)


def filled(times: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of one channel that an interpolation uses: its own, and held ones before the first and after the last."""
    (seen,) = np.nonzero(~np.isnan(x))
    place = np.arange(len(x))
    used = ~np.isnan(x) | (place < seen[0]) | (place > seen[-1])
    return times[used], x[np.clip(place, seen[0], seen[-1])][used]


@pytest.mark.parametrize("own", [False, True])
def test_natural_cubic_is_that_of_scipy_whatever_is_missing(own: bool) -> None:
    for seed in range(6):
        times, values = data(seed, 3, missing=0.4, own=own)
        path = NaturalCubicPath(times, values)
        for b in range(3):
            t = (times[b] if own else times).numpy()
            q = np.linspace(t[0], t[-1], 101)
            moments = torch.as_tensor(q)[:, None, None]
            for c in range(2):
                scipy = CubicSpline(*filled(t, values[b, :, c].numpy()), bc_type="natural")
                np.testing.assert_allclose(path.evaluate(moments)[:, b, c], scipy(q), rtol=0, atol=1e-11)
                np.testing.assert_allclose(path.derivative(moments)[:, b, c], scipy(q, 1), rtol=0, atol=1e-10)


def test_hermite_is_scipys_with_backward_differences_of_lines_across_gaps() -> None:
    for seed in range(6):
        times, values = data(seed, 3, missing=0.4)
        path, t = HermitePath(times, values), times.numpy()
        q = np.linspace(t[0], t[-1], 101)
        for b in range(3):
            for c in range(2):
                x = np.interp(t, *filled(t, values[b, :, c].numpy()))
                secants = np.diff(x) / np.diff(t)
                scipy = CubicHermiteSpline(t, x, np.concatenate([secants[:1], secants]))
                found = path.evaluate(torch.as_tensor(q)[:, None, None])[:, b, c]
                np.testing.assert_allclose(found, scipy(q), rtol=0, atol=1e-12)


def test_linear_is_numpys_and_drops_what_was_not_observed() -> None:
    times, values = data(3, 1, missing=0.4)
    path, q = LinearPath(times, values), np.linspace(float(times[0]), float(times[-1]), 101)
    for c in range(2):
        x = np.interp(q, *filled(times.numpy(), values[0, :, c].numpy()))
        np.testing.assert_allclose(path.evaluate(torch.as_tensor(q)[:, None, None])[:, 0, c], x, rtol=0, atol=1e-13)


def test_hermite_stays_near_the_line_across_a_long_gap() -> None:
    times = torch.arange(50, **DOUBLE)
    values = torch.full((50, 1), torch.nan, **DOUBLE)
    values[0], values[1], values[49] = 0.0, 1.0, 1.0
    found = HermitePath(times, values).evaluate(torch.linspace(1, 49, 5000, **DOUBLE)[:, None])
    assert abs(float(found.max()) - 1 - 4 / 27) < 1e-3  # one interval carries the slope on, not the whole gap (7.1)


ORDERS = [(LinearPath, 2, 1), (HermitePath, 2, 1), (NaturalCubicPath, 4, 3)]


@pytest.mark.parametrize(("kind", "order", "slope_order"), ORDERS)
def test_order(kind: Kind, order: int, slope_order: int) -> None:
    q = torch.linspace(0.25, 0.75, 301, **DOUBLE)[:, None]  # away from the ends, where natural conditions are wrong
    errors = []
    for n in (32, 64, 128):
        t = torch.linspace(0, 1, n + 1, **DOUBLE)[:, None]
        path = kind(t[:, 0], torch.sin(5 * t))
        value, slope = path.evaluate(q) - torch.sin(5 * q), path.derivative(q) - 5 * torch.cos(5 * q)
        errors.append([float(value.abs().max()), float(slope.abs().max())])
    found = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))[-1]
    np.testing.assert_allclose(found, [order, slope_order], atol=0.15)


@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_causal_or_not(kind: Kind, missing: float) -> None:
    """What is observed after t_5 changes nothing up to t_5: rectilinear always, linear and Hermite where nothing is missing."""
    changes = []
    for seed in range(5):
        times, values = data(seed, 2, missing=missing)
        later = values.clone()
        later[:, 6:] = data(seed + 100, 2)[1][:, 6:]
        before, after = kind(times, values), kind(times, later)
        end = before.axis(times[5]) if isinstance(before, RectilinearPath) else times[5]
        q = grid(torch.stack([before.start, end]), 101, 1)
        changes.append(float((before.evaluate(q) - after.evaluate(q)).abs().max()))
    if kind is RectilinearPath or (missing == 0 and kind is not NaturalCubicPath):
        assert max(changes) == 0.0
    else:
        assert min(changes) > 1e-4


def test_rectilinear_moves_in_time_then_in_values() -> None:
    nan = torch.nan
    times = torch.tensor([1.0, 2.0, 4.0], **DOUBLE)
    values = torch.tensor([[nan, 5.0], [3.0, nan], [7.0, 6.0]], **DOUBLE)
    path = RectilinearPath(times, values)
    corners = [[1, 0, 5], [2, 0, 5], [2, 3, 5], [4, 3, 5], [4, 7, 6]]
    assert path.evaluate(torch.arange(5.0)[:, None]).tolist() == corners
    assert path.knots == (0, 1, 2, 3, 4)
    assert path.jumps == (1, 2, 3)
    assert [float(path.axis(t)) for t in (1.0, 1.5, 2.0, 3.0, 4.0)] == [0.0, 0.5, 2.0, 2.5, 4.0]
    assert path.derivative(0.5).tolist() == [1, 0, 0]
    assert path.derivative(1.5).tolist() == [0, 3, 0]


def test_axis_of_samples_with_times_of_their_own() -> None:
    times = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 4.0, torch.nan, torch.nan]], **DOUBLE)
    path = RectilinearPath(times, torch.zeros(2, 4, 1))
    assert path.end.tolist() == [6, 2]
    assert path.axis(2.0).tolist() == [4, 0.5]
    assert path.axis(torch.tensor([[1.0], [9.0]])).tolist() == [[2, 0.25], [6, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_one_sample_is_as_it_is_alone(kind: Kind) -> None:
    times, values = data(1, 3, missing=0.3, own=True)
    times[1, 9:], values[1, 9:] = torch.nan, torch.nan
    path = kind(times, values)
    for b in range(3):
        n = int((~times[b].isnan()).sum())
        alone = kind(times[b, :n], values[b, :n])
        assert path.end[b] == alone.end
        q = torch.linspace(float(alone.start) - 1, float(alone.end) + 1, 41, **DOUBLE)[:, None]
        torch.testing.assert_close(path.evaluate(q[:, None])[:, b], alone.evaluate(q), rtol=0, atol=1e-12)
        torch.testing.assert_close(path.derivative(q[:, None])[:, b], alone.derivative(q), rtol=0, atol=1e-11)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_times_and_rows(kind: Kind, own: bool) -> None:
    times, values = data(2, 4, own=own)
    path = kind(times, values)
    c = path.channels
    each = torch.tensor([[1.0], [1.5], [2.0], [2.5]], **DOUBLE)
    everyone = path.evaluate(each)
    assert path.evaluate(1.0).shape == (4, c)
    assert path.derivative(torch.ones(7, 1, 1)).shape == (7, 4, c)
    for b in range(4):
        assert torch.equal(everyone[b], path.evaluate(float(each[b]))[b])
    rows = torch.tensor([3, 1])
    assert torch.equal(path.evaluate(each[rows], rows), everyone[rows])
    assert torch.equal(path.derivative(1.2, rows), path.derivative(1.2)[rows])
    single = kind(times[0] if own else times, values[0])
    assert single.evaluate(each).shape == (4, c)
    assert torch.equal(single.evaluate(each)[0], single.evaluate(1.0))
    with pytest.raises(InvalidInput, match=r"t has shape \(4,\); it must broadcast against X\(t\)"):
        path.evaluate(torch.ones(4))


def test_two_batch_axes() -> None:
    times, values = data(2, 2, 3, own=True)
    path = HermitePath(times, values)
    assert path.evaluate(1.0).shape == (2, 3, 2)
    torch.testing.assert_close(path.evaluate(1.0)[1, 2], HermitePath(times[1, 2], values[1, 2]).evaluate(1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_outside_of_its_span_the_path_stands_still(kind: Kind) -> None:
    times, values = data(4)
    path = kind(times, values)
    for end, beyond in ((path.start, path.start - 1), (path.end, path.end + 1)):
        assert torch.equal(path.evaluate(end), path.evaluate(beyond))
        assert bool((path.derivative(beyond) == 0).all())
        assert bool((path.derivative(end) != 0).any())  # at its ends it has the slope of the piece inside
    single = path.end.float() * (1 + 1e-7)  # the end of the last step may miss the end of the path by rounding
    assert bool((path.derivative(single) != 0).any())


def test_knots_and_jumps() -> None:
    times = torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, torch.nan]], **DOUBLE)
    values = torch.zeros(2, 3, 1)
    smooth, broken = HermitePath(times, values), LinearPath(times, values)
    assert smooth.knots == broken.knots == (0, 1, 2, 3)
    assert smooth.jumps == (2,)  # where the second sample ends
    assert broken.jumps == (1, 2)
    assert tuple(smooth.clip(Constant()).stops) == (0, 1, 2, 3, 2)
    assert tuple(broken.clip(PID(1e-3, 1e-3)).jumps) == (1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_values(kind: Kind) -> None:
    times, values = data(5, 2, n=6, missing=0.3)
    t = torch.tensor([[0.7], [1.9]], **DOUBLE)

    def both(x: Tensor) -> Tensor:
        path = kind(times, x)
        return torch.cat([path.evaluate(t), path.derivative(t)])

    seen = ~values.isnan()

    def of_seen(x: Tensor) -> Tensor:
        return both(values.masked_scatter(seen, x))

    assert torch.autograd.gradcheck(of_seen, values[seen].clone().requires_grad_())
    everything = values.clone().requires_grad_()
    (found,) = torch.autograd.grad(both(everything).sum(), everything)
    assert bool((found[~seen] == 0).all())
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_the_precision_is_that_of_the_values(kind: Kind) -> None:
    times, values = data(6, 2)
    double, single = kind(times + 1e6, values), kind(times + 1e6, values.float())
    t = 1e6 + float(times[5])
    if kind is not RectilinearPath:  # whose channel of time is as large as that
        assert single.evaluate(t).dtype == torch.float32
        torch.testing.assert_close(single.evaluate(t).double(), double.evaluate(t), rtol=0, atol=1e-5)


def test_a_channel_that_was_never_observed_is_zero() -> None:
    times, values = data(7, 2)
    values[1, :, 0] = torch.nan
    for kind in INTERPOLANTS:
        found = kind(times, values).evaluate(grid(times, 20, 1))
        assert bool((found[:, 1, 0] == 0).all())
        torch.testing.assert_close(found[:, 0], kind(times, values[0]).evaluate(grid(times, 20, 0)))


BAD: list[tuple[Any, Any, str]] = [
    ([0.0, 1.0, 1.0], torch.zeros(3, 1), "times must be finite and increase strictly"),
    ([0.0, 2.0, 1.0], torch.zeros(3, 1), "times must be finite and increase strictly"),
    ([0.0, 1.0, float("inf")], torch.zeros(3, 1), "times must be finite and increase strictly"),
    ([[0.0, 1.0], [1.0, 1.0]], torch.zeros(2, 2, 1), r"increase strictly \(sample 1\)"),
    ([0.0], torch.zeros(1, 1), "a path needs at least two observation times"),
    ([[0.0, 1.0], [0.0, float("nan")]], torch.zeros(2, 2, 1), r"at least two observation times \(sample 1\)"),
    ([0.0, float("nan"), 1.0], torch.zeros(3, 1), "NaN in times is padding and must be at the end"),
    ([0.0, 1.0], torch.zeros(3, 1), r"times \(2,\) do not fit values \(3, 1\): expected \(3,\)"),
    ([0.0, 1.0], torch.zeros(2), r"values must have shape \(\*, T, C\), got \(2,\)"),
    ([0.0, 1.0], torch.zeros(2, 1, dtype=torch.int64), "values must be a floating-point tensor"),
    ([0.0, 1.0], torch.tensor([[0.0], [torch.inf]]), r"infinite entry at index \(1, 0\); NaN means missing"),
]


@pytest.mark.parametrize(("times", "values", "message"), BAD)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_data_are_refused(kind: Kind, times: Any, values: Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kind(torch.tensor(times, **DOUBLE), values)
