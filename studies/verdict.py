"""What all studies share: claims with a bar, a slope with its interval, one command line, one picture.

A study is a function ``quick -> Study``. Every claim compares one measured number with a bar that was set before; a number that
is NaN, or an interval that reaches beyond the bar, fails.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy
import torch
from scipy import stats

from isocline._core import files
from isocline._core.estimate import Estimate
from isocline._version import __version__
from isocline.recipes import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "studies.md"
Numbers = Sequence[float] | np.ndarray
COLOURS = (pictures.INK, pictures.ACCENT, pictures.GREEN, pictures.GREY)


@dataclass(frozen=True)
class Claim:
    """One sentence, what was measured, the bar, and whether it holds."""

    claim: str
    measured: str
    bar: str
    holds: bool


@dataclass(frozen=True)
class Panel:
    """One log-log plot: its labels, and lines as name -> (x, y)."""

    title: str
    across: str
    up: str
    lines: Mapping[str, tuple[Numbers, Numbers]]


@dataclass(frozen=True)
class Study:
    """The outcome of a study: its claims, and what makes its picture, called only where one is wanted."""

    claims: list[Claim]
    panels: Callable[[], list[Panel]] = list

    @property
    def holds(self) -> bool:
        """Whether there is a claim and every claim holds."""
        return bool(self.claims) and all(claim.holds for claim in self.claims)


def near(claim: str, found: Estimate | float, target: float, within: float) -> Claim:
    """Return the claim that `found`, with its whole interval, lies within `within` of `target`.

    >>> near("pi is three", 3.14, 3.0, 0.2).holds, near("nothing is near NaN", float("nan"), 0.0, 1.0).holds
    (True, False)
    """
    low, high = _ends(found)
    holds = bool(target - within <= low and high <= target + within)
    return Claim(claim, _shown(found), f"{target:g} ± {within:g}", holds)


def below(claim: str, found: Estimate | float, bar: float) -> Claim:
    """Return the claim that `found`, with its whole interval, is at most `bar`."""
    return Claim(claim, _shown(found), f"≤ {bar:g}", bool(_ends(found)[1] <= bar))


def above(claim: str, found: Estimate | float, bar: float) -> Claim:
    """Return the claim that `found`, with its whole interval, is at least `bar`."""
    return Claim(claim, _shown(found), f"≥ {bar:g}", bool(_ends(found)[0] >= bar))


def slope(x: Numbers, y: Numbers) -> Estimate:
    """Return the slope of ``log y`` against ``log x`` by least squares, with its 95 % t interval.

    The interval says how straight the line is: a curve has a wide one.

    >>> print(slope([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]))
    2 [2, 2]
    """
    fit = stats.linregress(np.log(x), np.log(y))
    half = float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    return Estimate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, n=len(x))


def spread(values: Numbers) -> Estimate:
    """Return the mean of `values` with their full range, so that a claim about it is a claim about the worst of them."""
    low, high = float(np.min(values)), float(np.max(values))
    return Estimate(min(max(float(np.mean(values)), low), high), low, high, 1.0, len(values))


def _ends(found: Estimate | float) -> tuple[float, float]:
    return (found.low, found.high) if isinstance(found, Estimate) else (found, found)


def _shown(found: Estimate | float) -> str:
    return str(found) if isinstance(found, Estimate) else f"{found:.3g}"


def table(claims: Sequence[Claim]) -> str:
    """Return the claims as a Markdown table."""
    rows = [f"| {c.claim} | {c.measured} | {c.bar} | {'PASS' if c.holds else 'FAIL'} |" for c in claims]
    return "\n".join(["| claim | measured | bar | |", "|---|---|---|---|", *rows])


def figure(panels: Sequence[Panel]) -> Figure:
    """Return one log-log plot for each panel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    picture = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(picture.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for k, (name, (x, y)) in enumerate(panel.lines.items()):
            axes.loglog(x, y, color=COLOURS[k], marker=".", label=name)
        axes.set(title=panel.title, xlabel=panel.across, ylabel=panel.up)
        axes.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap
        axes.legend(frameon=False, fontsize=8)
    return picture


def stored(name: str) -> list[Claim]:
    """Return the stored claims of a study."""
    return [Claim(**row) for row in files.read_json(STORED / f"studies_{name}.json")["claims"]]


def on_page(name: str, page: str) -> str:
    """Return `page` with the table between the marks of study `name` replaced by the stored one."""
    before, rest = page.split(f"<!-- {name} -->\n", 1)
    after = rest.split(f"\n<!-- end of {name} -->", 1)[1]
    return f"{before}<!-- {name} -->\n{table(stored(name))}\n<!-- end of {name} -->{after}"


def main(name: str, about: str | None, run: Callable[[bool], Study], arguments: Sequence[str] | None = None) -> int:
    """Run a study as a command; return the exit code: 0 if every claim holds, else 1.

    Args:
        name: of the script.
        about: its docstring.
        run: the study.
        arguments: of the command line.
    """
    given = _read(about, arguments)
    began = time.monotonic()
    study = run(given.quick)
    result = _result(name, given.quick, study)
    verdict, seconds = "PASS" if study.holds else "FAIL", time.monotonic() - began
    if given.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        print(f"{table(study.claims)}\n\n{verdict}: {name}, {len(study.claims)} claims, {seconds:.0f} s")
    if given.picture:
        pictures.save(figure(study.panels()), given.picture)
    if given.store:
        pictures.save(figure(study.panels()), STORED / f"studies_{name}.png")
        files.write_json(STORED / f"studies_{name}.json", result)
        files.write_text(PAGE, on_page(name, PAGE.read_text(encoding="utf-8")))
    return 0 if study.holds else 1


def _read(about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the short form: the same claims, fewer samples and steps")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw what was measured, as PNG")
    parser.add_argument("--store", action="store_true", help="write claims and picture into docs/")
    given = parser.parse_args(arguments)
    if given.store and given.quick:
        parser.error("--store keeps the full form only; leave --quick out")
    return given


def _result(name: str, quick: bool, study: Study) -> dict[str, object]:
    versions = {
        "isocline": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    claims = [asdict(claim) for claim in study.claims]
    return {"study": name, "quick": quick, "versions": versions, "holds": study.holds, "claims": claims}
