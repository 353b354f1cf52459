"""What the pages show of the package, made from its tables, parsers and explanations when the site is built.

A page says where with a comment, `<!-- made: activations -->`, which `filled` replaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import commands, figures, rules

PARTS: dict[str, Callable[[], str]] = {**rules.PARTS, **figures.PARTS, **commands.PARTS}
MARK = re.compile(r"^<!-- made: (.+) -->$", re.M)


def filled(text: str) -> str:
    """A page in Markdown with its parts. Raises KeyError for a part that does not exist."""
    return MARK.sub(lambda found: PARTS[found[1]](), text)
