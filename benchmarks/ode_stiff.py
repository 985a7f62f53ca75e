"""Stiff equations: steps, evaluations and error beside diffrax and SciPy at equal tolerances.

    python benchmarks/ode_stiff.py [--quick]

Six problems in float64: Van der Pol (mu 1000), Robertson, HIRES, Oregonator, a linear system with eigenvalues -1, -1e3
and -1e6 and a forcing, and the Brusselator on 40 points. All solvers find their own first step; controllers have their
default settings, which are the same in isocline and diffrax (integral control, safety 0.9, factors 0.2 to 10). Errors
are the largest of ``|y - ref| / (atol / rtol + |ref|)`` at the end; the reference is SciPy's Radau at rtol 1e-12.
Evaluations are those of the field, n for each Jacobian of ours; SciPy's are without Jacobians, as their number is given
beside. diffrax does not count.

Peers that are not installed are left out with a note; see ``benchmarks/requirements.txt``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline import integrators as ours
from isocline._core import files
from isocline.integrators.solvers import chord

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "ode_stiff"
TOLERANCES = (1e-4, 1e-6, 1e-8)
PAIRS = ("Kvaerno3", "Kvaerno5", "KenCarp4", "KenCarp5")
COMPARED = (*PAIRS[:2], "Kvaerno5, Newton", *PAIRS[2:])
OTHERS = ("Kvaerno4", "TRBDF2", "Rosenbrock23", "Rodas3", "Rodas4", "Rodas5P")
LOW = ("TRBDF2", "Rosenbrock23", "Rodas3")
POINTS = 40
CAP = 20_000


def van_der_pol(t: Any, y: Any, xp: Any) -> Any:
    return xp.stack([y[1], 1e3 * (1 - y[0] ** 2) * y[1] - y[0]])


def robertson(t: Any, y: Any, xp: Any) -> Any:
    slow, fast, middle = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return xp.stack([fast - slow, slow - fast - middle, middle])


def hires(t: Any, y: Any, xp: Any) -> Any:
    pair = 280 * y[5] * y[7]
    return xp.stack(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
            -pair + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            pair - 1.81 * y[6],
            -pair + 1.81 * y[6],
        ]
    )


def oregonator(t: Any, y: Any, xp: Any) -> Any:
    return xp.stack(
        [
            77.27 * (y[1] + y[0] * (1 - 8.375e-6 * y[0] - y[1])),
            (y[2] - (1 + y[0]) * y[1]) / 77.27,
            0.161 * (y[0] - y[2]),
        ]
    )


def linear(t: Any, y: Any, xp: Any) -> Any:
    force = xp.cos(t * xp.ones_like(y[0]))
    slow = -((y[0] - y[1] + y[2]) / 2 - force)
    middle = -1e3 * ((y[0] + y[1] - y[2]) / 2 - force)
    fast = -1e6 * ((y[1] + y[2] - y[0]) / 2 - force)
    return xp.stack([slow + middle, middle + fast, slow + fast])


def reaction(t: Any, y: Any, xp: Any) -> Any:
    u, v = y[:POINTS], y[POINTS:]
    return xp.concatenate([1 + u * u * v - 4 * u, 3 * u - u * u * v])


def diffusion(t: Any, y: Any, xp: Any) -> Any:
    return xp.concatenate([_laplacian(y[:POINTS], 1.0, xp), _laplacian(y[POINTS:], 3.0, xp)])


def _laplacian(u: Any, end: float, xp: Any) -> Any:
    edge = end + 0 * u[:1]
    wide = xp.concatenate([edge, u, edge])
    return (POINTS + 1) ** 2 / 50 * (wide[2:] - 2 * u + wide[:-2])


def brusselator(t: Any, y: Any, xp: Any) -> Any:
    return reaction(t, y, xp) + diffusion(t, y, xp)


@dataclass(frozen=True)
class Case:
    """One problem: its field, first state, end, and what the absolute tolerance is in units of the relative one."""

    name: str
    field: Callable[[Any, Any, Any], Any]
    y0: Sequence[float]
    end: float
    atol: float = 1.0


X = np.arange(1, POINTS + 1) / (POINTS + 1)
CASES = (
    Case("Van der Pol, mu 1000", van_der_pol, (2.0, 0.0), 2000.0),
    Case("Robertson", robertson, (1.0, 0.0, 0.0), 1e5, 1e-4),
    Case("HIRES", hires, (1.0, *[0.0] * 6, 0.0057), 321.8122, 1e-3),
    Case("Oregonator", oregonator, (1.0, 2.0, 3.0), 360.0, 1e-2),
    Case("linear, forced", linear, (1.0, -1.0, 2.0), 10.0),
    Case("Brusselator", brusselator, (*(1 + np.sin(2 * math.pi * X)), *(3 + 0 * X)), 10.0),
)


@dataclass(frozen=True)
class Row:
    """What one solver did on one problem at one tolerance."""

    solver: str
    steps: int | None
    rejected: int | None
    evaluations: int | None
    jacobians: int | None
    error: float | None
    seconds: float


def error(case: Case, y: Any, ref: Any) -> float:
    return float(np.max(np.abs(np.asarray(y) - ref) / (case.atol + np.abs(ref))))


def reference(case: Case) -> Any:
    found = solve_ivp(
        lambda t, y: case.field(t, y, np),
        (0, case.end),
        case.y0,
        "Radau",
        rtol=1e-12,
        atol=1e-13 * case.atol,
        t_eval=[case.end],
    )
    return found.y[:, -1]


class Counted:
    """Counts Jacobians while it is open."""

    def __enter__(self) -> Counted:
        self.count, self.inner = 0, chord.jacobian
        chord.jacobian = self
        return self

    def __call__(self, *args: Any) -> Any:
        """Count and pass on."""
        self.count += 1
        return self.inner(*args)

    def __exit__(self, *args: object) -> None:
        chord.jacobian = self.inner


@torch.no_grad()
def our_row(case: Case, name: str, tol: float, ref: Any, *, split: bool = False, newton: bool = False) -> Row:
    terms = ours.ODE(lambda t, y: case.field(t, y, torch))
    if split:
        terms = ours.Split(lambda t, y: reaction(t, y, torch), lambda t, y: diffusion(t, y, torch))
    y0 = torch.tensor(case.y0, dtype=torch.float64)
    method = getattr(ours, name)(solver=Newton()) if newton else getattr(ours, name)()
    began = time.perf_counter()
    with Counted() as jacobians:
        s = ours.integrate(
            terms,
            y0,
            0.0,
            case.end,
            method=method,
            controller=ours.PID(tol, tol * case.atol),
            max_steps=CAP,
        )
    seconds = time.perf_counter() - began
    count = jacobians.count if hasattr(method, "solver") else s.stats.accepted
    label = f"isocline {name}" + ", split" * split + ", Newton" * newton
    miss = error(case, s.y1, ref) if s.status.ok else None
    return Row(label, s.stats.accepted, s.stats.rejected, s.stats.nfe, count, miss, seconds)


@dataclass(frozen=True)
class Newton(ours.Chord):
    """Newton's method: a Jacobian at every iterate."""

    def prepare(self, *args: Any) -> Any:
        """Return a step that takes new Jacobians."""
        return replace(super().prepare(*args), full=True)


def scipy_row(case: Case, name: str, tol: float, ref: Any) -> Row:
    began = time.perf_counter()
    s = solve_ivp(lambda t, y: case.field(t, y, np), (0, case.end), case.y0, name, rtol=tol, atol=tol * case.atol)
    seconds = time.perf_counter() - began
    return Row(f"SciPy {name}", len(s.t) - 1, None, s.nfev, s.njev, error(case, s.y[:, -1], ref), seconds)


def diffrax_row(case: Case, name: str, tol: float, ref: Any, *, split: bool = False, newton: bool = False) -> Row:
    import diffrax
    import jax
    import jax.numpy as jnp
    import optimistix

    jax.config.update("jax_enable_x64", True)
    whole = diffrax.ODETerm(lambda t, y, args: case.field(t, y, jnp))
    nothing = diffrax.ODETerm(lambda t, y, args: jnp.zeros_like(y))
    terms = diffrax.MultiTerm(nothing, whole) if name.startswith("KenCarp") else whole
    if split:
        slow = diffrax.ODETerm(lambda t, y, args: reaction(t, y, jnp))
        terms = diffrax.MultiTerm(slow, diffrax.ODETerm(lambda t, y, args: diffusion(t, y, jnp)))
    solver = getattr(diffrax, name)
    made = solver(root_finder=diffrax.with_stepsize_controller_tols(optimistix.Newton)()) if newton else solver()
    began = time.perf_counter()
    s = diffrax.diffeqsolve(
        terms,
        made,
        0.0,
        case.end,
        None,
        jnp.array(case.y0),
        stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol * case.atol),
        max_steps=CAP,
        throw=False,
    )
    good = bool(s.result == diffrax.RESULTS.successful)
    steps, rejected = int(s.stats["num_accepted_steps"]), int(s.stats["num_rejected_steps"])
    seconds = time.perf_counter() - began
    label = f"diffrax {name}" + ", split" * split + ", Newton" * newton
    return Row(label, steps, rejected, None, None, error(case, s.ys[-1], ref) if good else None, seconds)


def rows_of(case: Case, tol: float, ref: Any, peer: bool) -> list[Row]:
    rows = []
    for name in PAIRS:
        rows.append(our_row(case, name, tol, ref))
        if peer:
            rows.append(diffrax_row(case, name, tol, ref))
    rows.append(our_row(case, "Kvaerno5", tol, ref, newton=True))
    if peer:
        rows.append(diffrax_row(case, "Kvaerno5", tol, ref, newton=True))
    if case.field is brusselator:
        for name in PAIRS[2:]:
            rows.append(our_row(case, name, tol, ref, split=True))
            if peer:
                rows.append(diffrax_row(case, name, tol, ref, split=True))
    rows += [
        our_row(case, name, tol, ref) for name in OTHERS if not (tol < 1e-6 and name in ("TRBDF2", "Rosenbrock23"))
    ]
    return rows + [scipy_row(case, name, tol, ref) for name in ("Radau", "BDF")]


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def shown(value: float | None, form: str = "d") -> str:
    return "" if value is None else format(value, form)


def table(found: dict[str, dict[str, list[Row]]]) -> str:
    lines = []
    for case, by_tol in found.items():
        lines += [f"## {case}", ""]
        for tol, rows in by_tol.items():
            lines += [
                f"### Tolerance {tol}",
                "",
                "| solver | steps | rejected | attempts | evaluations | Jacobians | error |",
                "|---|---|---|---|---|---|---|",
            ]
            for r in rows:
                attempts = None if r.steps is None or r.rejected is None else r.steps + r.rejected
                cells = [r.solver, *(shown(x) for x in (r.steps, r.rejected, attempts, r.evaluations, r.jacobians))]
                lines.append("| " + " | ".join([*cells, shown(r.error, ".1e") or "failed"]) + " |")
            lines.append("")
    return "\n".join(lines)


def ratios(found: dict[str, dict[str, list[Row]]]) -> str:
    lines = ["| problem | tolerance | " + " | ".join(COMPARED) + " |", "|---|---|" + "---|" * len(COMPARED)]
    for case, by_tol in found.items():
        for tol, rows in by_tol.items():
            known = {r.solver: (r.steps or 0) + (r.rejected or 0) for r in rows if r.error is not None}
            cells = []
            for name in COMPARED:
                a, b = known.get(f"isocline {name}"), known.get(f"diffrax {name}")
                cells.append(f"{a / b:.2f}" if a and b else "")
            lines.append(f"| {case} | {tol} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stored(row: dict[str, Any]) -> Row:
    return Row(**row)


def page(found: dict[str, dict[str, list[Row]]]) -> str:
    known = [f"{name} {installed(name) or 'not installed'}" for name in ("torch", "scipy", "diffrax")]
    versions = f"isocline, {', '.join(known)}, Python {platform.python_version()}"
    parts = [
        f"# Stiff equations\n\nWritten by `python benchmarks/ode_stiff.py`; {versions}. {NOTE}",
        f"## Attempted steps over those of diffrax\n\n{ratios(found)}\n\n{READING}",
        table(found),
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tolerance 1e-6 only, nothing is stored")
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = OUT.with_suffix(".json")
    kept: dict[str, Any] = files.read_json(data) if data.exists() and not given.fresh and not given.quick else {}
    for case in CASES:
        ref: Any = None
        for tol in TOLERANCES[1:2] if given.quick else TOLERANCES:
            cells = kept.setdefault(case.name, {})
            if f"{tol:g}" not in cells:
                ref = reference(case) if ref is None else ref
                cells[f"{tol:g}"] = [vars(row) for row in rows_of(case, tol, ref, installed("diffrax") is not None)]
                print(case.name, tol, flush=True)
                if not given.quick:
                    files.write_json(data, kept)
    found = {case: {tol: [stored(r) for r in rows] for tol, rows in cells.items()} for case, cells in kept.items()}
    text = page(found)
    print(text) if given.quick else files.write_text(OUT.with_suffix(".md"), text)


READING = (
    "Tableaux, error estimates and controllers are the same; what differs is how implicit stages are solved, and it "
    "decides. Where both use Newton's method (column *Kvaerno5, Newton*) attempts agree to a few per cent and errors "
    "in their first digits, but where diffrax rejects more (Oregonator at 1e-8). Kvaerno3 with chords is within 10 % "
    "or below. With its own chord iteration diffrax rejects more steps of Kvaerno5, because more stages stay "
    "unsolved: it iterates on slopes, with the tolerances of the state, where isocline iterates on increments of the "
    "state. Of the 167 steps that isocline's Kvaerno5 rejects on Van der Pol at 1e-4, 122 have a stage that the chord "
    "does not solve; Newton's method needs fewer attempts and more evaluations. KenCarp4 and KenCarp5 begin a step of "
    "diffrax with an evaluation at the solution, which amplifies what the iteration left over by the stiffness; where "
    "all is implicit, isocline carries the slope of the last stage over. With `Split` it cannot: Robertson at 1e-4 as "
    "`Split(0, f)` needs more than 3000 attempts with kappa = 1e-2 and 160 with kappa = 1e-4, against 34 for the "
    "whole."
)
NOTE = " ".join(__doc__.split("\n\n")[2].split())

if __name__ == "__main__":
    main()
