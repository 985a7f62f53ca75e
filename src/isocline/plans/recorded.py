"""The noises of a stochastic run as a list, for whoever takes its rows in another order than `Plan.run`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.stream import Stream, as_stream
from isocline.plans.plan import Plan


def recorded_noise(
    plan: Plan, x: Tensor, rng: Stream | int | None, noise: Sequence[Tensor] | None
) -> Sequence[Tensor] | None:
    """Return one noise (B, *) a row, those that `Plan.run` draws for states `x` (B, *); None for a plan without noise."""
    n = len(plan.carry)
    if not plan.stochastic:
        return None
    if noise is not None:
        require(len(noise) == n, f"recorded noise needs one tensor a row ({n}), got {len(noise)}")
        return noise
    if rng is None:
        raise InvalidInput("this plan draws noise: pass rng=SEED, or noise=[...] recorded row by row")
    stream, shape = as_stream(rng, "row noise"), tuple(x.shape)
    draw = plan.process.draw_noise
    return [draw(shape, stream, step=row, dtype=x.dtype, device=x.device) for row in range(n)]
