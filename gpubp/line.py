"""Text from elsewhere (a compiler, a file, a name in somebody's data) as one line that a terminal or a comment can
hold: it begins no second line and moves no cursor."""

from __future__ import annotations

import shlex


def line(text: object) -> str:
    """`text` on one line: lines are joined by spaces, what does not print is shown as Python would escape it."""
    lines = str(text).splitlines()
    joined = lines[0] if len(lines) == 1 else " ".join(part for part in map(str.strip, lines) if part)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in joined)


def quoted(text: object) -> str:
    """`text` on one line, as a shell takes it for one word."""
    return shlex.quote(line(text))
