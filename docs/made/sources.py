"""Links from pages to the repository's files, which become pages with the file's text.

GitHub shows `[network.h](../gpubp/kernel/network.h)` as a link to the file; on the site the same link leads to
source/gpubp/kernel/network.h.html.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[\w./-]+)\)")
LANGUAGES = {".py": "python", ".h": "cpp", ".cpp": "cpp", ".toml": "toml", ".json": "json", ".sh": "bash"}
FOUND: set[str] = set()  # files and folders that pages link


def linked(docname: str, text: str) -> str:
    """A page's Markdown with its links to files beyond docs/ leading to their pages."""

    def replaced(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), link[2]))
        if path.startswith("docs/") or path.endswith(".md"):
            return link[0]
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"docs/{docname}.md links {link[2]}, which does not exist")
        FOUND.add(path)
        return f'<a href="{"../" * docname.count("/")}source/{path}.html">{link[1]}</a>'

    return LINK.sub(replaced, text)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for every file that is linked, and for every folder and its files."""
    highlight = PygmentsBridge("html", app.config.pygments_style).highlight_block
    folders = [path for path in FOUND if (ROOT / path).is_dir()]
    inside = {folder: sorted(path for path in (ROOT / folder).iterdir() if path.suffix in LANGUAGES)
              for folder in folders}  # fmt: skip
    files = {ROOT / path for path in FOUND - set(folders)}.union(*inside.values())
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        body = highlight(path.read_text(encoding="utf-8"), LANGUAGES.get(path.suffix, "text"))
        yield f"source/{name}", {"title": name, "body": f"<h1>{escape(name)}</h1>{body}"}, "page.html"
    for folder, paths in inside.items():
        near = folder.rpartition("/")[2]
        rows = "".join(f'<li><a href="{near}/{path.name}.html">{path.name}</a></li>' for path in paths)
        yield f"source/{folder}", {"title": folder, "body": f"<h1>{escape(folder)}</h1><ul>{rows}</ul>"}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """As Sphinx asks for it."""
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False}
