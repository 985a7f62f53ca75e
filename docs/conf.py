"""Sphinx configuration: pages in Markdown, an API page for each room, a gallery that is run. Nothing remote is loaded."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import isocline  # noqa: E402
from tools.api_pages import write_api, write_methods  # noqa: E402

project, author = "isocline", "The isocline authors"
copyright = "The isocline authors"
version = release = isocline.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "examples"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 3
default_role = "literal"

html_theme = "furo"
html_title = f"isocline {release}"
html_show_sourcelink = False

# methods that scikit-learn adds to every estimator
REQUESTS = "set_fit_request, set_predict_request, set_predict_proba_request, set_score_request"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": REQUESTS}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # its page loads scripts from elsewhere
}

write_api(HERE / "api")
write_methods(HERE / "methods.md")


def plain_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make our docstrings, which are written for the terminal, readable to reStructuredText.

    A shape's star would open an emphasis, and an indented formula under a sentence would run together.
    """
    lines[:] = [re.sub(r"(?<=[(\s,])\*(?=[),])", "\N{ASTERISK OPERATOR}", line) for line in lines]
    for i in range(len(lines) - 1, 1, -1):
        indented, above = lines[i].startswith("    "), lines[i - 2]
        if indented and not lines[i - 1].strip() and above.strip() and not above.startswith((" ", "- ", "..")):
            lines[i:i] = ["::", ""] if not above.endswith("::") else []


def setup(app: Any) -> None:
    """Rewrite docstrings before napoleon (priority 500) reads them."""
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
