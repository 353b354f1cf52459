"""The site: python -m sphinx -W docs FOLDER, with gpubp[docs]. It needs no network, and its pages load nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout's gpubp, not an installed one

import gpubp  # noqa: E402
from made import filled  # noqa: E402
from made.sources import linked  # noqa: E402

project, author, version = "gpubp", "the gpubp authors", gpubp.__version__
project_copyright = f"2026 {author}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "made.docstrings", "made.mathml", "made.sources"]
exclude_patterns = ["made", "benchmarks", "_build"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = f"gpubp {version}"
html_math_renderer = "mathml"
html_static_path = ["made/site.css"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {name: [] for name in ("index", "tour", "tutorial", "changes", "source/**")}
html_theme_options = {
    "logo": {"text": "gpubp"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}


def read(app: Any, docname: str, content: list[str]) -> None:
    """Sphinx's event: a page's text, before it is parsed."""
    content[0] = linked(docname, filled(content[0]))


def setup(app: Any) -> None:
    """As Sphinx asks for it."""
    app.connect("source-read", read)
