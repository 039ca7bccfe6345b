"""How sphinx makes build/docs of docs/*.md: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import fentry

project = "fentry"
author = "the fentry authors"
release = version = fentry.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "contents"
exclude_patterns = ["man"]
html_theme = "furo"
html_title = f"fentry {release}"
html_copy_source = False

myst_heading_anchors = 4  # links to headings, as GitHub makes them
autodoc_default_options = {"undoc-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"


def setup(app: object) -> None:
    """Called by sphinx with its application."""
    for name in fentry.__all__:  # fetched when used, so sphinx would not find them
        setattr(fentry, name, getattr(fentry, name))
    app.connect("autodoc-process-docstring", _docstring)  # type: ignore[attr-defined]


def _docstring(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = list(_restructured("\n".join(lines)))


def _restructured(text: str) -> Iterator[str]:
    # Docstrings are plain text: `name` is code, and an indented paragraph is, too.
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.startswith("    "):
            yield from ("::", "", *paragraph.split("\n"))
        else:
            pieces = re.split(r"(`[^`]+`)", paragraph)
            yield from "".join(map(_piece, pieces)).split("\n")
        yield ""


def _piece(text: str) -> str:
    if text.startswith("`") and text.endswith("`") and len(text) > 2:
        return f"`{text}`"
    return re.sub(r"([\\*|_`])", r"\\\1", text)
