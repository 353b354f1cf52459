"""Text from elsewhere (a compiler, a file, a name in somebody's data) as one line that a terminal or a comment can
hold: it begins no second line and moves no cursor."""

from __future__ import annotations

import re
import shlex

NAME, MESSAGE = 256, 2000  # characters: the longest name that file systems take, and the longest message


def line(text: object) -> str:
    """`text` on one line: lines are joined by spaces, what does not print is shown as Python would escape it."""
    lines = str(text).splitlines()
    joined = lines[0] if len(lines) == 1 else " ".join(part for part in map(str.strip, lines) if part)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in joined)


def short(text: str) -> str:
    """`text` without the middles of what is longer than any name, and of itself, for a person to read."""
    text = re.sub(rf"[^\s/]{{{NAME},}}", lambda name: f"{name[0][:80]}...{name[0][-40:]}", text)
    return text if len(text) <= MESSAGE else f"{text[: MESSAGE // 2]} ... {text[-MESSAGE // 4 :]}"


def quoted(text: object) -> str:
    """`text` on one line, as a shell takes it for one word."""
    return shlex.quote(line(text))
