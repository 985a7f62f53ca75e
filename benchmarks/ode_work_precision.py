"""Work and precision of the explicit methods on eight classical problems, beside SciPy and diffrax.

Every cell is one run: a problem, a method, a tolerance (rtol = atol). Counted are evaluations of the vector field; the error is
that of the final state, root mean square in units of ``1 + |y|``, against a reference of DOP853 at 1e-13. Pairs that two
libraries share are then compared at equal tolerance: evaluations of ours over theirs. A library that an interpreter lacks is
left out, and the stored cells of the others stay; run it once in each interpreter:

    python benchmarks/ode_work_precision.py            # ours and SciPy
    python benchmarks/ode_work_precision.py            # diffrax, in an environment that has it

The controllers are those that the libraries use by default, which differ: after a rejected attempt SciPy's next step does not
grow; after an accepted one diffrax's does not shrink, and its first step is 0.01 (diffrax 0.7.2 has the rule of Hairer, Norsett
and Wanner, but does not reach it). The rows "SciPy's rule" and "diffrax's rules" repeat ours with them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

HERE = Path(__file__).parent
STORE = HERE.parent / "docs" / "benchmarks" / "ode_work_precision.json"
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10)
# name here -> names there
SCIPY = {"Bosh3": "RK23", "Dopri5": "RK45", "Dopri8": "DOP853"}
DIFFRAX = {"Bosh3": "Bosh3", "Tsit5": "Tsit5", "Dopri5": "Dopri5", "Dopri8": "Dopri8"}
OURS = ("Bosh3", "CashKarp", "Dopri5", "Tsit5", "Vern7", "Dopri8")
HIGH = ("Vern7", "Dopri8", "DOP853")
LOW = ("Bosh3", "RK23")


@dataclass(frozen=True)
class Bed:
    """One problem: a field that is written for any array module, a start and a span."""

    name: str
    field: Callable[[Any, Any, list[Any]], list[Any]]
    y0: tuple[float, ...]
    end: float
    source: str


def lotka_volterra(m: Any, t: Any, y: list[Any]) -> list[Any]:
    return [1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3.0 * y[1]]


def lorenz(m: Any, t: Any, y: list[Any]) -> list[Any]:
    return [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]


def brusselator(m: Any, t: Any, y: list[Any]) -> list[Any]:
    square = y[0] * y[0] * y[1]
    return [1 + square - 4 * y[0], 3 * y[0] - square]


def rigid_body(m: Any, t: Any, y: list[Any]) -> list[Any]:
    return [y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]


def arenstorf(m: Any, t: Any, y: list[Any]) -> list[Any]:
    small = 0.012277471
    large = 1 - small
    x, z, u, v = y
    d1 = ((x + small) ** 2 + z * z) ** 1.5
    d2 = ((x - large) ** 2 + z * z) ** 1.5
    return [
        u,
        v,
        x + 2 * v - large * (x + small) / d1 - small * (x - large) / d2,
        z - 2 * u - large * z / d1 - small * z / d2,
    ]


def kepler(m: Any, t: Any, y: list[Any]) -> list[Any]:
    cube = (y[0] * y[0] + y[1] * y[1]) ** 1.5
    return [y[2], y[3], -y[0] / cube, -y[1] / cube]


def van_der_pol(m: Any, t: Any, y: list[Any]) -> list[Any]:
    return [y[1], 5 * (1 - y[0] * y[0]) * y[1] - y[0]]


def driven(m: Any, t: Any, y: list[Any]) -> list[Any]:
    return [-0.5 * y[0] + 2 * m.cos(3 * t) * y[1], -2 * m.cos(3 * t) * y[0] - 0.5 * y[1] + m.sin(t)]


BEDS = (
    Bed("Lotka-Volterra", lotka_volterra, (1.0, 1.0), 10.0, "Hairer, Norsett, Wanner I, chapter I.1"),
    Bed("Lorenz", lorenz, (-8.0, 8.0, 27.0), 2.0, "Hairer, Norsett, Wanner I, chapter I.16"),
    Bed("Brusselator", brusselator, (1.5, 3.0), 20.0, "Hairer, Norsett, Wanner I, chapter II.4"),
    Bed("rigid body", rigid_body, (0.0, 1.0, 1.0), 20.0, "DETEST B5"),
    Bed(
        "Arenstorf orbit",
        arenstorf,
        (0.994, 0.0, 0.0, -2.00158510637908252),
        17.0652165601579625,
        "Hairer I, chapter II.0",
    ),
    Bed("Kepler, e = 0.5", kepler, (0.5, 0.0, 0.0, 3.0**0.5), 20.0, "DETEST D3"),
    Bed("van der Pol, mu = 5", van_der_pol, (2.0, 0.0), 20.0, "Hairer, Norsett, Wanner I, chapter I.16"),
    Bed("driven rotation", driven, (1.0, 0.0), 10.0, "linear, with coefficients that depend on time"),
)


def array_field(bed: Bed) -> Callable[[Any, Any], Any]:
    return lambda t, y: np.array(bed.field(np, t, list(y)))


def reference(bed: Bed) -> Any:
    return solve_ivp(array_field(bed), (0, bed.end), bed.y0, "DOP853", rtol=1e-13, atol=1e-13).y[:, -1]


def scipy_cells(bed: Bed, exact: Any) -> Iterator[dict[str, Any]]:
    for name in SCIPY.values():
        for rtol in wanted(name):
            found = solve_ivp(array_field(bed), (0, bed.end), bed.y0, name, rtol=rtol, atol=rtol)
            yield cell(bed, "scipy", name, rtol, found.nfev, found.y[:, -1], exact)


def our_cells(bed: Bed, exact: Any) -> Iterator[dict[str, Any]]:
    import torch

    from isocline import integrators

    start = torch.tensor(bed.y0, dtype=torch.float64)
    for name in OURS:
        for rtol in wanted(name):
            for library, kind in rules().items():
                if name not in (SCIPY if "SciPy" in library else DIFFRAX) and "," in library:
                    continue
                found = integrators.integrate(
                    lambda t, y: torch.stack(bed.field(torch, t, list(y))),
                    start,
                    0.0,
                    bed.end,
                    method=getattr(integrators, name)(),
                    controller=kind(rtol, rtol),
                    dt0=0.01 if "diffrax" in library else None,
                    max_steps=200_000,
                ).check()
                yield cell(bed, library, name, rtol, found.stats.nfe, found.y1.numpy(), exact)


def rules() -> dict[str, Any]:
    """Return our controller, and the same with the rule of each other library in which it differs."""
    from isocline.integrators import PID
    from isocline.integrators.controllers.base import Decision

    class AfterRejection(PID):
        def start(self, shape: tuple[int, ...]) -> Any:
            return (np.zeros(shape),)

        def decide(self, h: Any, ratio: Any, memory: Any, order: int) -> Any:
            found = super().decide(h, ratio, super().start(np.shape(h)), order)
            size = np.where(found.accept & (memory[0] > 0), np.minimum(found.h, h), found.h)
            return Decision(found.accept, size, (np.where(found.accept, 0.0, 1.0),))

    class NeverSmaller(PID):
        def decide(self, h: Any, ratio: Any, memory: Any, order: int) -> Any:
            found = super().decide(h, ratio, memory, order)
            return Decision(found.accept, np.where(found.accept, np.maximum(found.h, h), found.h), found.memory)

    return {"isocline": PID, "isocline, SciPy's rule": AfterRejection, "isocline, diffrax's rules": NeverSmaller}


def diffrax_cells(bed: Bed, exact: Any) -> Iterator[dict[str, Any]]:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    term = diffrax.ODETerm(lambda t, y, args: jnp.stack(bed.field(jnp, t, list(y))))
    for name in DIFFRAX.values():
        solver = getattr(diffrax, name)()
        run = jax.jit(
            lambda rtol, solver=solver: diffrax.diffeqsolve(
                term,
                solver,
                0.0,
                bed.end,
                None,
                jnp.array(bed.y0),
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
                max_steps=None,
            )
        )
        # all four are FSAL: stages minus one for each attempt, one for the first slope; its first step is 0.01, whatever the field
        stages = solver.tableau.num_stages - 1
        for rtol in wanted(name):
            found = run(rtol)
            evaluations = stages * int(found.stats["num_steps"]) + 1
            yield cell(bed, "diffrax", name, rtol, evaluations, np.asarray(found.ys[-1]), exact)


def wanted(name: str) -> tuple[float, ...]:
    """Return the tolerances a method is meant for."""
    return TOLERANCES[:2] if name in LOW else TOLERANCES if name in HIGH else TOLERANCES[:3]


def cell(bed: Bed, library: str, method: str, rtol: float, evaluations: int, y: Any, exact: Any) -> dict[str, Any]:
    error = float(np.sqrt(np.mean(((y - exact) / (1 + np.abs(exact))) ** 2)))
    return {
        "problem": bed.name,
        "library": library,
        "method": method,
        "rtol": rtol,
        "evaluations": int(evaluations),
        "error": float(f"{error:.3e}"),
    }


LIBRARIES: dict[str, Callable[[Bed, Any], Iterator[dict[str, Any]]]] = {
    "isocline": our_cells,
    "scipy": scipy_cells,
    "diffrax": diffrax_cells,
}


def measured() -> dict[str, Any]:
    """Return the stored cells with those of the libraries of this interpreter renewed."""
    stored = json.loads(STORE.read_text()) if STORE.exists() else {"versions": {}, "cells": []}
    # SciPy is measured where isocline is, so that both come from one run
    here = [name for name in LIBRARIES if importlib.util.find_spec(name) and not (name == "scipy" and not has_ours())]
    cells = [c for c in stored["cells"] if c["library"].split(",")[0] not in here]
    for bed in BEDS:
        exact = reference(bed)
        for name in here:
            print(f"{bed.name}: {name}", file=sys.stderr)
            cells += LIBRARIES[name](bed, exact)
    for name in here:
        stored["versions"][name] = version(name)
    if has_ours():
        stored["versions"] |= {
            "torch": version("torch"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        }
    return {"versions": stored["versions"], "tolerances": TOLERANCES, "cells": cells}


def has_ours() -> bool:
    return importlib.util.find_spec("isocline") is not None


def ratios(cells: list[dict[str, Any]], ours: str, library: str, pairs: dict[str, str]) -> list[dict[str, Any]]:
    """Return, for each pair and tolerance, evaluations of ours over theirs on every problem."""
    count = {(c["library"], c["method"], c["rtol"], c["problem"]): c for c in cells}
    found = []
    for mine, theirs in pairs.items():
        for rtol in TOLERANCES:
            both = [
                (count[ours, mine, rtol, bed.name], count[library, theirs, rtol, bed.name])
                for bed in BEDS
                if (ours, mine, rtol, bed.name) in count and (library, theirs, rtol, bed.name) in count
            ]
            if both:
                work = [a["evaluations"] / b["evaluations"] for a, b in both]
                precision = [a["error"] / b["error"] for a, b in both if b["error"] > 0]
                found.append({"pair": (mine, theirs), "rtol": rtol, "work": work, "precision": precision})
    return found


def geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def page(data: dict[str, Any]) -> str:
    """Return the page of tables."""
    cells = data["cells"]
    lines = [
        "# Work and precision of explicit methods",
        "",
        "Written by `benchmarks/ode_work_precision.py`. Nothing here is random.",
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(data["versions"].items())) + ".",
        "",
        "Evaluations are those of the vector field, the choice of the first step included. Tolerance: rtol = atol. The error is",
        "that of the final state against DOP853 at 1e-13, root mean square in units of 1 + |y|.",
        "",
        "## The same pair in two libraries",
        "",
        "Evaluations of isocline over those of the other library at equal tolerance, over the eight problems. Errors are",
        "compared likewise (geometric mean). diffrax's Dopri8 is another pair of order 8, with an embedded solution of order 7;",
        "its Dopri5 takes Shampine's error estimate, two thirds of the classical one that is taken here and by SciPy.",
        "By default the libraries differ: after a rejected attempt SciPy's next step does not grow; after an accepted one",
        "diffrax's does not shrink, and its first step is 0.01 whatever the field. Rows that name rules repeat ours with them.",
        "On the Arenstorf orbit nothing is resolved at 1e-4, so that counts there say little.",
        "",
        "| isocline | other | tolerance | mean | lowest | highest | error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    compared = [
        ("isocline", "scipy", SCIPY, ""),
        ("isocline, SciPy's rule", "scipy", SCIPY, ", SciPy's rule"),
        ("isocline", "diffrax", DIFFRAX, ""),
        ("isocline, diffrax's rules", "diffrax", DIFFRAX, ", diffrax's rules"),
    ]
    for ours, library, pairs, note in compared:
        for row in ratios(cells, ours, library, pairs):
            work = row["work"]
            lines.append(
                f"| {row['pair'][0]}{note} | {library} {row['pair'][1]} | {row['rtol']:.0e} | {geometric(work):.3f} "
                f"| {min(work):.3f} | {max(work):.3f} | {geometric(row['precision']):.2f} |"
            )
    for bed in BEDS:
        lines += ["", f"## {bed.name}", "", f"{bed.source}; t from 0 to {bed.end:g}. Evaluations / error.", ""]
        lines += [
            "| method | " + " | ".join(f"{r:.0e}" for r in TOLERANCES) + " |",
            "| --- |" + " --- |" * len(TOLERANCES),
        ]
        mine = [c for c in cells if c["problem"] == bed.name and "," not in c["library"]]
        for library, method in dict.fromkeys((c["library"], c["method"]) for c in mine):
            row = {c["rtol"]: c for c in mine if (c["library"], c["method"]) == (library, method)}
            entries = [f"{row[r]['evaluations']} / {row[r]['error']:.1e}" if r in row else "" for r in TOLERANCES]
            lines.append(f"| {library} {method} | " + " | ".join(entries) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--page", action="store_true", help="write the page again from the stored cells")
    if not parser.parse_args().page:
        STORE.write_text(json.dumps(measured(), indent=1) + "\n")
    STORE.with_suffix(".md").write_text(page(json.loads(STORE.read_text())))


if __name__ == "__main__":
    main()
