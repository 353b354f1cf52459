"""Docstrings of the package as reStructuredText: plain text with `code`, in which no other sign means anything.

Lists of attributes, as "Attributes:" with indented entries or in numpydoc's form, become lists of definitions.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

HEADS = {"Attributes:": 4, "Parameters": 0, "Attributes": 0}  # and how far entries are indented
ENTRY = re.compile(r"( *)([\w*, ]+?) ?: (.*)")


def plain(line: str) -> str:
    """A line whose `code` stays code, and whose other signs are shown as they are."""
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(f"`{part}`" if k % 2 else re.sub(r"([|*\\]|_\b)", r"\\\1", part) for k, part in enumerate(parts))


def rewritten(lines: list[str]) -> list[str]:
    """A whole docstring."""
    made: list[str] = []
    indent = None  # of entries, in a list of attributes
    for line in lines:
        entry = ENTRY.fullmatch(line)
        if line.strip() in HEADS:
            indent = HEADS[line.strip()]
            made += ["", f"**{line.strip().rstrip(':')}**", ""]
        elif indent is None or (indent and line and not line.startswith(" ")):
            indent = None
            made.append(plain(line))
        elif entry and len(entry[1]) == indent:
            made += [f"``{entry[2]}``", f"    {plain(entry[3])}"]
        elif not line.startswith("---"):
            made.append(f"    {plain(line.strip())}" if line.strip() else "")
    return made


def process(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """autodoc's event."""
    lines[:] = rewritten(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """As Sphinx asks for it."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
