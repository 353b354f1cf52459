"""One self-contained page: it contains its style, scripts and data, and may load nothing else."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..line import line

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="gpubp {version}">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
{scripts}
</body>
</html>
"""


def page(title: str, body: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """The page. `body` is HTML, with quoted text already escaped; `styles` and `scripts` are our own text."""
    return FRAME.format(
        version=__version__,
        policy=POLICY,
        title=html.escape(line(title)),
        style="\n".join([text("page.css"), *styles]),
        body=body,
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def text(name: str) -> str:
    """The text of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def embedded(name: str, value: Any) -> str:
    """`value` as JSON that a script finds by its id `name`. No text in it can end the element or stay invisible."""
    written = json.dumps(_seen(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{html.escape(name)}">{written}</script>'


def _seen(value: Any) -> Any:
    """JSON whose texts and names have no invisible characters except line breaks and our no-break spaces."""
    if isinstance(value, str):
        return "".join(each if each in "\n\u00a0" else line(each) for each in re.split("([\n\u00a0])", value))
    if isinstance(value, dict):
        return {_seen(name): _seen(each) for name, each in value.items()}
    return [*map(_seen, value)] if isinstance(value, list | tuple) else value
