"""Errors that name the user's thing and the way out.

Every error of isocline is an `IsoclineError`, so one ``except`` is enough; each also derives from the built-in
exception a Python user would expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IsoclineError(Exception):
    """Base of all errors raised by isocline. Its text is one line that says what is wrong and what to do."""


class InvalidInput(IsoclineError, ValueError):
    """A value was refused before any work started."""


class Mismatch(IsoclineError, ValueError):
    """Two things that were made for different settings were put together, for example a plan and a denoiser."""


class NotFinite(IsoclineError, FloatingPointError):
    """A computation produced NaN or infinity; the text names the place."""


class DataMissing(IsoclineError, FileNotFoundError):
    """A data set or file is not there; the text says how to get it."""


class BadFile(IsoclineError, ValueError):
    """A file is damaged, truncated, or of another kind than expected."""


class CannotWrite(IsoclineError, OSError):
    """A place cannot be written to."""


class ExtraMissing(IsoclineError, ImportError):
    """An optional dependency is not installed; the text names the extra."""


def require(condition: bool, message: str) -> None:
    """Raise `InvalidInput` with `message` unless `condition` holds.

    >>> require(1 + 1 == 2, "arithmetic is broken")
    """
    if not condition:
        raise InvalidInput(message)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint such as `` Did you mean 'ddim'?``, or the list of choices where none is near.

    >>> nearest("dimm", ["ddim", "euler"])
    "Did you mean 'ddim'?"
    >>> nearest("zzz", ["ddim", "euler"])
    'Choose from: ddim, euler.'
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean '{close[0]}'?" if close else f"Choose from: {', '.join(known)}."
