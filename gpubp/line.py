"""Foreign text (compiler output, files, names in data) as one line that is safe in a terminal or a comment: no line
breaks, no control sequences."""

from __future__ import annotations

import re
import shlex

NAME, MESSAGE = 256, 2000  # characters: the longest name in file systems, and the longest message


def line(text: object) -> str:
    """`text` on one line: lines joined by spaces, unprintable characters escaped as in Python."""
    lines = str(text).splitlines()
    joined = lines[0] if len(lines) == 1 else " ".join(part for part in map(str.strip, lines) if part)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in joined)


def short(text: str) -> str:
    """`text`, readable: overlong words, and `text` itself if overlong, lose their middles."""
    text = re.sub(rf"[^\s/]{{{NAME},}}", lambda name: f"{name[0][:80]}...{name[0][-40:]}", text)
    return text if len(text) <= MESSAGE else f"{text[: MESSAGE // 2]} ... {text[-MESSAGE // 4 :]}"


def quoted(text: object) -> str:
    """`text` on one line, quoted as one word for a shell."""
    return shlex.quote(line(text))
