"""Tables for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from isocline.recipes.quickstart import Quickstart


def quickstart_table(result: Quickstart, console: Console) -> None:
    """Print the quick start's table and its headline."""
    table = Table(title="Held-out error: median RMS distance to the teacher, pixels in [-1, 1]", title_justify="left")
    for name in ("plan", "calls", "error", "95 % interval", "seconds"):
        table.add_column(name, justify="left" if name == "plan" else "right")
    for row in result.rows:
        interval = f"{row.error.low:.4f} to {row.error.high:.4f}"
        style = "bold" if row.name == "tuned" else ""
        table.add_row(row.name, str(row.calls), f"{row.error.value:.4f}", interval, f"{row.seconds:.2f}", style=style)
    console.print(table)
    outcome = result.outcome
    console.print(
        f"Tuned at {outcome.plan.calls} calls: {outcome.ratio.value:.2f} times the error of the best classical plan "
        f"[95 % interval {outcome.ratio.low:.2f} to {outcome.ratio.high:.2f}], {result.seconds:.0f} seconds in all.",
        markup=False,
    )
