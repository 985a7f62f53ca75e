"""Where a plan comes from: the method, its settings, and how well it did on noises it never saw."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from isocline._core.estimate import Estimate
from isocline._version import __version__


@dataclass(frozen=True)
class Provenance:
    """The origin of a plan.

    Args:
        method: name of the solver or tuner, as `isocline methods` lists it.
        arxiv: arXiv number of its paper, or an empty string.
        settings: what it was called with, as plain data.
        error: held-out error against the teacher, with its interval; None where none was measured.
        cost: what finding the plan cost, as plain numbers.
        version: the library that made it.
    """

    method: str
    arxiv: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    error: Estimate | None = None
    cost: dict[str, float] = field(default_factory=dict)
    version: str = __version__

    def changed(self, by: str, setting: Any) -> Provenance:
        """Return the origin of a plan that the function `by` has changed: its solver cannot make it again, its error is not known.

        Args:
            by: name of the function.
            setting: what it was called with, as plain data.
        """
        settings = self.settings | {by: setting}
        if "solver_settings" in settings:  # of a tuner of times, which names the solver under it
            settings["solver_settings"] = settings["solver_settings"] | {by: setting}
        return replace(self, settings=settings, error=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the provenance as plain data for a file."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: dict[str, Any]) -> Provenance:
        """Rebuild a stored provenance; unknown entries of newer versions are left out."""
        known = {f.name: stored[f.name] for f in fields(Provenance) if f.name in stored}
        if known.get("error"):
            known["error"] = Estimate(**known["error"])
        return Provenance(**known)
