r"""Running a plan: once in place for sampling, once as a differentiable unroll for tuning.

The sampling loop holds one state buffer of its own and only those outputs that a later row uses. Coefficients are Python floats,
so nothing waits for the device; finiteness is checked once at the end, and a failed run is replayed to name the row. Coefficients
for each coordinate are tensors that are moved to the states' device and precision once.

A network whose output ``m'`` is not the plan's ``m = cx x + cm m'`` costs nothing where only the row itself uses the output: with
``b m = b cx x + b cm m'`` the conversion disappears in the coefficients. An output that later rows use too is converted once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch, NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.stream import Stream, as_stream
from isocline.plans.canonical import used
from isocline.processes import Denoiser, Parameterisation
from isocline.processes.gaussian import match

if TYPE_CHECKING:
    from isocline.plans.plan import Plan

Change = Callable[["StepContext", Tensor], Tensor]
Coefficient = Any  # a float, or a tensor (*event) where each coordinate has its own


@dataclass(slots=True)
class StepContext:
    """Where a run is: one object for the whole run, changed from row to row.

    Attributes:
        row: index of the row.
        time: time of the state the row read.
        next_time: time of the state it produced.
        x: (B, *) the state; before the row for transforms, after it for hooks and for whoever iterates.
        output: (B, *) the network's output used by the row, or None for a row without a call.
    """

    row: int
    time: float
    next_time: float
    x: Tensor
    output: Tensor | None = None


class Sampled(NamedTuple):
    """The result of a run.

    Attributes:
        x: (B, *) samples.
        cost: network calls and seconds.
        trajectory: (n+1, B, *) all states, if they were recorded.
        logw: (B,) log weights, for samplers that weight their particles.
        ancestors: (B,) index of the start each particle descends from, for samplers that resample.
    """

    x: Tensor
    cost: Cost
    trajectory: Tensor | None = None
    logw: Tensor | None = None
    ancestors: Tensor | None = None


class Given(NamedTuple):
    """What a run is given besides plan, denoiser and start; see `Plan.run`."""

    cond: Any = None
    rng: Stream | int | None = None
    noise: Sequence[Tensor] | None = None
    transforms: Sequence[Change] = ()
    hooks: Sequence[Change] = ()


class _Row(NamedTuple):
    """One row as plain numbers.

    `terms` are (output index, weight), `change` the ``(cx, cm)`` of an output that is kept, `drop` the outputs no later row uses.
    """

    time: float
    next_time: float
    told: Tensor
    carry: Coefficient
    terms: tuple[tuple[int, Coefficient], ...]
    noise: Coefficient
    constant: Coefficient
    evaluate: bool
    change: tuple[float, float] | None
    drop: tuple[int, ...]


def compiled(plan: Plan, output: Parameterisation, fold: bool = True, like: Tensor | None = None) -> list[_Row]:
    """Return the rows as Python numbers, for a network with that output; kept with the plan, whose tensors never change.

    Coefficients for each coordinate stay tensors, of the precision and on the device of `like`.
    """
    key = (output, fold, *((like.dtype, like.device) if plan.event and like is not None else ()))
    rows = plan._rows.get(key)
    if rows is None:
        rows = plan._rows[key] = [_placed(row, like) for row in _compile(plan, output, fold)]
    return rows


def _placed(row: _Row, like: Tensor | None) -> _Row:
    if like is None or not isinstance(row.carry, Tensor):
        return row
    terms = tuple((j, b.to(like)) for j, b in row.terms)
    noise, constant = (c.to(like) if isinstance(c, Tensor) else c for c in (row.noise, row.constant))
    return row._replace(carry=row.carry.to(like), terms=terms, noise=noise, constant=constant)


def _entries(column: Tensor) -> Sequence[Any]:
    """Return the coefficients of a column row by row: numbers, or tensors where each coordinate has its own."""
    return column.tolist() if column.ndim == 1 else [c if bool(c.any()) else 0.0 for c in column.detach().unbind()]


def _compile(plan: Plan, output: Parameterisation, fold: bool) -> list[_Row]:
    weights = plan.weights.detach()
    numbers: Any = weights if plan.event else weights.tolist()
    terms = [[(j, numbers[i][j]) for j in row] for i, row in enumerate(used(weights))]
    last = {j: i for i, row in enumerate(terms) for j, _ in row}
    drop: list[list[int]] = [[] for _ in terms]
    for j, called in enumerate(evaluate := plan.evaluate.tolist()):
        if called:
            drop[last.get(j, j)].append(j)
    carry: list[Coefficient] = list(plan.carry.detach()) if plan.event else plan.carry.tolist()
    changes: list[tuple[float, float] | None] = [None] * len(terms)
    if output != plan.parameterisation:
        for i, (cx, cm) in enumerate(zip(*(c.tolist() for c in plan.conversion(output)), strict=True)):
            if not fold or i not in drop[i]:
                changes[i] = (cx, cm)
            elif i in last:
                b = terms[i][-1][1]
                carry[i], terms[i][-1] = carry[i] + b * cx, (i, b * cm)
    times, told = plan.times.tolist(), plan.model_times.detach().clone().unbind()
    noise, constant = _entries(plan.noise), [0.0] * len(carry) if plan.constant is None else _entries(plan.constant)
    lists = map(tuple, terms), map(tuple, drop)
    columns = zip(
        times[:-1], times[1:], told, carry, lists[0], noise, constant, evaluate, changes, lists[1], strict=True
    )
    return [_Row(*column) for column in columns]


@torch.no_grad()
def execute(plan: Plan, denoiser: Denoiser, x: Tensor, given: Given, record: bool) -> Sampled:
    """Take all steps; see `Plan.run`."""
    calls, start = denoiser.calls, time.perf_counter()
    states = [x.clone()] if record else []
    final = x
    for step in _steps(plan, denoiser, x, given):
        final = step.x
        if record:
            states.append(final.clone())
    cost = Cost(calls=denoiser.calls - calls, seconds=time.perf_counter() - start)
    if not _finite(final):
        _name_failure(plan, denoiser, x, given)
    return Sampled(final, cost, torch.stack(states) if record else None)


def _steps(plan: Plan, denoiser: Denoiser, x: Tensor, given: Given) -> Iterator[StepContext]:
    """Yield the context after each row. Transforms act on data predictions, whatever the plan and the network use."""
    if not x.is_floating_point() or x.ndim < 1:
        raise InvalidInput(f"start states must be floating point (B, *), got {x.dtype} {tuple(x.shape)}")
    cond, transforms, hooks = given.cond, _all_transforms(plan, given), given.hooks
    _check_event(plan, x)
    rows, plain = compiled(plan, denoiser.parameterisation, not transforms, x), not plan.event
    draw = _noise_source(plan, x, given) if plan.stochastic else None
    outputs: dict[int, Tensor] = {}
    buffer, shape = range(0), x.shape  # addresses of the state while it is ours and changed in place
    step = StepContext(0, 0.0, 0.0, x)  # one for the whole run: making one a row would cost as much as an operation
    for i, (t, next_t, told, carry, terms, c, k, evaluate, change, drop) in enumerate(rows):
        step.row, step.time, step.next_time, step.x, step.output = i, t, next_t, x, None
        if evaluate:
            m = step.output = denoiser(x, told, cond)
            if m.shape != shape:
                raise _wrong_shape(m, x, step)
            if transforms:
                m = _transformed(plan, denoiser.parameterisation, step, m, transforms)
            elif change is not None:
                m = m.mul(change[1]).add_(x, alpha=change[0])
            elif m.data_ptr() in buffer:
                m = step.output = m.clone()
            outputs[i] = m
        if buffer:
            x.mul_(carry)
        else:
            x = x.mul(carry)
            buffer = range(0) if hooks else _addresses(x)
        if plain:
            for j, b in terms:
                x.add_(outputs[j], alpha=b)
            if c and draw is not None:
                x.add_(draw(i), alpha=c)
            if k:
                x.add_(k)
        else:
            for j, b in terms:
                x.addcmul_(outputs[j], b)
            if draw is not None and isinstance(c, Tensor):
                x.addcmul_(draw(i), c)
            if isinstance(k, Tensor):
                x.add_(k)
        for j in drop:
            del outputs[j]
        if hooks:
            x = _hooked(step, x, hooks)
        step.x = x
        yield step


walk = torch.no_grad()(_steps)  # without gradients inside, whatever the consumer of the iterator uses


def _check_event(plan: Plan, x: Tensor) -> None:
    """Refuse states that the plan's coefficients for each coordinate do not fit."""
    event, datum = plan.event, tuple(x.shape[1:])
    if event and (len(event) != len(datum) or any(n not in (1, d) for n, d in zip(event, datum, strict=True))):
        raise Mismatch(
            f"the plan has coefficients for each coordinate of data of shape {event}, but the states are (B, *) = "
            f"{tuple(x.shape)}; tune or load a plan for data of shape {datum}"
        )


def _all_transforms(plan: Plan, given: Given) -> Sequence[Change]:
    threshold = plan.threshold
    return given.transforms if threshold is None else (lambda step, x0: threshold(x0), *given.transforms)


def _addresses(x: Tensor) -> range:
    storage = x.untyped_storage()
    return range(storage.data_ptr(), storage.data_ptr() + storage.nbytes())


def _transformed(
    plan: Plan, output: Parameterisation, step: StepContext, m: Tensor, transforms: Sequence[Change]
) -> Tensor:
    """Return the plan's own output after transforms of the data prediction."""
    t = plan.times[step.row]
    x0 = _combine(output.to_data(plan.process, t), step.x, m)
    for transform in transforms:
        x0 = transform(step, x0)
    return _combine(plan.parameterisation.from_data(plan.process, t), step.x, x0)


def _combine(scalars: tuple[Tensor, Tensor], x: Tensor, m: Tensor) -> Tensor:
    """Return ``cx x + cm m`` in a buffer of its own."""
    return match(scalars[1], x).mul(m).add_(x, alpha=float(scalars[0]))


def _hooked(step: StepContext, x: Tensor, hooks: Sequence[Change]) -> Tensor:
    for hook in hooks:
        step.x = x
        x = hook(step, x)
    return x


def _wrong_shape(m: Tensor, x: Tensor, step: StepContext) -> Mismatch:
    return Mismatch(
        f"in row {step.row} (t = {step.time:.4g}) the model returned shape {tuple(m.shape)} "
        f"for states of shape {tuple(x.shape)}"
    )


def _finite(x: Tensor) -> bool:
    """Say whether `x` holds no NaN or infinity. A finite sum settles it without the buffers of `isfinite`."""
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())


def _noise_source(plan: Plan, x: Tensor, given: Given) -> Callable[[int], Tensor]:
    noise = given.noise
    if noise is not None:
        require(len(noise) == plan.carry.shape[0], f"recorded noise needs one tensor a row ({plan.carry.shape[0]})")
        for i, z in enumerate(noise):
            require(
                z.shape == x.shape, f"recorded noise needs shape {tuple(x.shape)}, but row {i} has {tuple(z.shape)}"
            )
        return lambda row: noise[row]
    if given.rng is None:
        raise InvalidInput("this plan draws noise: pass rng=SEED, or noise=[...] recorded row by row")
    stream, shape = as_stream(given.rng, "row noise"), tuple(x.shape)
    return lambda row: plan.process.draw_noise(shape, stream, step=row, dtype=x.dtype, device=x.device)


def _name_failure(plan: Plan, denoiser: Denoiser, x: Tensor, given: Given) -> None:
    require(_finite(x), "the start states hold NaN or infinity")
    for step in walk(plan, denoiser, x, given):
        for name, value in (("the model's output", step.output), ("the state", step.x)):
            if value is not None and not _finite(value):
                raise NotFinite(
                    f"{name} became NaN or infinite in row {step.row} (t = {step.time:.4g}); "
                    "check the model at this time, or its precision"
                )
    raise NotFinite("the samples hold NaN or infinity, but a replay of the run did not: the model is not deterministic")


def unroll(
    plan: Plan,
    denoiser: Denoiser,
    x: Tensor,
    *,
    cond: Any = None,
    noise: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Return all states (n+1 tensors (B, *)), differentiable in the plan's tensors, the model and `x`.

    The naive form of the loop; `Plan.run` gives the same numbers faster and without a graph.
    """
    plan.check_fits(denoiser)
    _check_event(plan, x)
    convert, terms = _conversion(plan, denoiser.parameterisation, x), used(plan.weights)
    carry, weights = plan.carry.to(x), plan.weights.to(x)
    constant = None if plan.constant is None else plan.constant.to(x)
    states, outputs = [x], []
    for i, evaluated in enumerate(plan.evaluate.tolist()):
        here, told = states[-1], plan.model_times[i]
        outputs.append(convert(i, here, denoiser(here, told, cond)) if evaluated else torch.zeros_like(x))
        state = carry[i] * here
        for j in terms[i]:
            state = state + weights[i, j] * outputs[j]
        if constant is not None:
            state = state + constant[i]
        if bool((plan.noise[i] != 0).any()):
            require(noise is not None, "unrolling a stochastic plan needs recorded noise")
            state = state + plan.noise[i].to(x) * noise[i]  # type: ignore[index]
        states.append(state)
    return states


def _conversion(plan: Plan, output: Parameterisation, x: Tensor) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Return ``(row, state, network output) -> plan's output``, through the plan's threshold where it has one."""
    if plan.threshold is None and output == plan.parameterisation:
        return lambda i, state, m: m
    if plan.threshold is None:
        cx, cm = (c.to(x) for c in plan.conversion(output))
        return lambda i, state, m: cx[i] * state + cm[i] * m
    at, threshold = plan.times[:-1], plan.threshold
    cx, cm = (c.to(x) for c in output.to_data(plan.process, at))
    dx, dm = (c.to(x) for c in plan.parameterisation.from_data(plan.process, at))
    return lambda i, state, m: dx[i] * state + dm[i] * threshold(cx[i] * state + cm[i] * m)
