"""Foreign text (compiler output, files, names in data) as one line that is safe in a terminal or a comment: no line
breaks, no control sequences, no change of direction, nothing invisible."""

import re
import shlex

NAME, MESSAGE = 256, 2000  # characters: the longest name in file systems, and the longest message
INVISIBLE = re.compile(  # fillers, variation selectors and a blank that Python considers printable
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def line(text: object) -> str:
    """`text` on one line: lines joined by spaces, unprintable characters escaped as in Python."""
    lines = str(text).splitlines()
    joined = lines[0] if len(lines) == 1 else " ".join(part for part in map(str.strip, lines) if part)
    if joined.isprintable() and not INVISIBLE.search(joined):
        return joined
    return "".join(each if shown(each) else each.encode("unicode_escape").decode() for each in joined)


def shown(character: str) -> bool:
    """Whether a character leaves a mark of its own, or is a space."""
    return character.isprintable() and not INVISIBLE.match(character)


def short(text: str) -> str:
    """`text`, readable: overlong words, and `text` itself if overlong, lose their middles."""
    text = re.sub(rf"[^\s/]{{{NAME},}}", lambda name: f"{name[0][:80]}...{name[0][-40:]}", text)
    return text if len(text) <= MESSAGE else f"{text[: MESSAGE // 2]} ... {text[-MESSAGE // 4 :]}"


def counted(count: int, what: str) -> str:
    """`count` and `what`, singular or plural: 1 network, 1,000 networks."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def quoted(text: object) -> str:
    """`text` on one line, quoted as one word for a shell."""
    return shlex.quote(line(text))


def advised(name: str, value: object) -> str:
    """How to read a column otherwise: in Python, and with the flag that is given `value`."""
    return f"Reading({name}=...) or --{name} {quoted(value)}"
