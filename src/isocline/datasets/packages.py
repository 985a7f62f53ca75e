"""Where fetched data live."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Return the folder of fetched data: ``$ISOCLINE_DATA``, else ``isocline`` in the user's cache folder."""
    if chosen := os.environ.get("ISOCLINE_DATA"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isocline"
