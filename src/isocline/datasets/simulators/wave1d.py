r"""Waves on an interval with fixed or free ends, on Chebyshev points.

    u_t = v ,    v_t = c^2 u_xx    on (-8, 8) ,    u(x, 0) = exp(-(x - s)^2) ,    v(x, 0) = c u_x(x, 0) ,

so that a bump of random place, s uniform in (-4, 4), travels to the left and is reflected: with its sign changed at a Dirichlet
end, as it is at a Neumann end. The experiments are those of Brandstetter, Worrall and Welling (arXiv 2202.03376) with c = 2:

    WE1   Dirichlet at both ends
    WE2   Neumann at both ends
    WE3   either, at random, at each end

The parameters ``left`` and ``right`` are 0 for Dirichlet and 1 for Neumann. The solution is that of `Wave`, a polynomial, at the
stored points ``cos(pi j / (N - 1))``, moved to the interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import ClassVar, Literal

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.datasets.fields import DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.equations.classical.wave_1d import Wave, chebyshev_points, interpolation
from isocline.equations.spec import EquationSpec

LOW, HIGH = -8.0, 8.0
FREE = {"WE1": (0.0, 0.0), "WE2": (1.0, 1.0), "WE3": (0.0, 1.0)}
WAVE = EquationSpec(
    "wave", lambda w, q, p: (w[0].t - w[1], w[1].t - p.c**2 * w[0].xx), ("u", "v"), ("x",), {"c": "speed"}
)


@dataclass(frozen=True)
class Wave1D(Simulator):
    """Reflected waves.

    Args:
        experiment: ``"WE1"``, ``"WE2"`` or ``"WE3"``.
        resolution: stored points.
        frames: stored frames.
        stop: time of the last frame.
        c: speed, the same for all cases.
        degree: of the polynomial that is solved for.
        steps: of the solver from frame to frame; powers of two cost least.

    Raises:
        InvalidInput: an unknown experiment, fewer than two frames.

    Examples:
        >>> Wave1D("WE3").sample(4, rng=0).parameters["c"].tolist()
        [2.0, 2.0, 2.0, 2.0]
    """

    experiment: Literal["WE1", "WE2", "WE3"] = "WE1"
    resolution: int = 100
    frames: int = 250
    stop: float = 100.0
    c: float = 2.0
    degree: int = 128
    steps: int = 256

    equation: ClassVar[EquationSpec] = WAVE

    def __post_init__(self) -> None:
        require(self.experiment in FREE, f"the experiment is WE1, WE2 or WE3, got {self.experiment!r}")
        require(self.frames >= 2 and self.stop > 0, "a run has at least two frames and a positive duration")
        require(self.resolution >= 2, f"at least two points, got {self.resolution}")

    @property
    def spec(self) -> DataSpec:
        """U and its rate v."""
        ends = FREE[self.experiment]
        parameters = (ParameterSpec("c", self.c, self.c), ParameterSpec("left", *ends), ParameterSpec("right", *ends))
        fields, dt = (FieldSpec("u"), FieldSpec("v")), self.stop / (self.frames - 1)
        return DataSpec(
            "wave1d", fields, ("x",), (LOW,), (HIGH,), (self.resolution,), ("wall",), self.frames, dt, parameters
        )

    def sample(self, n: int, rng: Stream | int, first: int = 0) -> Cases:
        """Return the cases numbered first ... first + n - 1; each end is 0 or 1."""
        cases = super().sample(n, rng, first)
        ends = {name: cases.parameters[name].round() for name in ("left", "right")}
        return replaced(cases, parameters={**cases.parameters, **ends})

    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield frames of the solution at `resolution` points; the degree of the polynomial does not depend on them."""
        (n,) = resolution or self.spec.resolution
        p = cases.parameters
        keys = list(zip(p["c"].tolist(), p["left"].tolist(), p["right"].tolist(), strict=True))
        waves = {key: self._wave(*key) for key in sorted(set(keys))}
        matrices = {key: wave.propagator(self.spec.dt, self.steps) for key, wave in waves.items()}
        x = chebyshev_points(LOW, HIGH, self.degree + 1)
        stored = interpolation(x, chebyshev_points(LOW, HIGH, n)).T
        gap = x - (8 * cases.uniform((1,), "places") - 4)
        u = torch.exp(-(gap**2))
        v = -2 * p["c"][:, None] * gap * u
        groups = {key: torch.tensor([i for i, other in enumerate(keys) if other == key]) for key in waves}
        for i in range(self.frames):
            t = torch.full((len(cases),), self.spec.dt * i, dtype=torch.float64)
            yield Frame(t, {"u": u @ stored, "v": v @ stored})
            for key, rows in groups.items():
                a, b = waves[key].advance(u[rows], v[rows], matrices[key])
                u, v = u.index_copy(0, rows, a), v.index_copy(0, rows, b)

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the Chebyshev points, (N, 1)."""
        return chebyshev_points(LOW, HIGH, resolution[0])[:, None]

    def _wave(self, c: float, left: float, right: float) -> Wave:
        kinds: tuple[Literal["dirichlet"], Literal["neumann"]] = ("dirichlet", "neumann")
        return Wave(LOW, HIGH, c, kinds[int(left)], kinds[int(right)], self.degree)


__all__ = ["WAVE", "Wave1D"]
