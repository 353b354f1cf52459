"""How the text of an explanation writes numbers, sums and lists, and which rules it writes out as formulas.

A number has the digits of its precision. Unless `full`, long sums and lists are cut in the middle or after the first
few, and say so.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

TERMS = 6  # a longer sum shows its first terms and the last
UNITS, FEW = 8, 3  # a longer list of units, weights or samples shows its first three

# Rules written out as formulas; others, and users' rules, appear by name.
SLOPES = {"identity": "1", "sigmoid": "{out} * (1 - {out})", "tanh": "1 - {out} * {out}"}
ERRORS = {
    "half_squared_error": ("1/2 * ({target} - {out})^2", "-({target} - {out})"),
    "mean_squared_error": ("({target} - {out})^2", "-2 * ({target} - {out})"),
}


class Heading(NamedTuple):
    """The title of a part (level 1), or of a layer in it (level 2)."""

    title: str
    level: int = 1

    def __str__(self) -> str:
        return "\n" + " " * (self.level - 1) + self.title


class Term(NamedTuple):
    """A quantity's name and what it equals, from its formula to its number; a single side is a sentence. sample, slot:
    the term's sample, if there are several, and its place in the batch."""

    sides: tuple[str, ...]
    sample: int | None = None
    slot: int = 0

    def __str__(self) -> str:
        return "  " + ("" if self.sample is None else f"[sample {self.sample}] ") + " = ".join(self.sides)


class Notation:
    """Numbers, sums and lists as text. digits: decimals of a number near 1. full: nothing is cut."""

    def __init__(self, digits: int, full: bool) -> None:
        self.digits, self.full = digits, full

    def number(self, value: float | str) -> str:
        """Nine decimals as in the tutorial, seven for float32; as many digits if a number is very small or large."""
        if isinstance(value, str):
            return value
        if value == 0:
            return "0"  # not -0
        if 10 ** (5 - self.digits) <= abs(value) < 1e6:
            return f"{value:.{self.digits}f}".rstrip("0").rstrip(".")
        return f"{value:.{self.digits}g}"

    @staticmethod
    def term(*sides: str) -> Term:
        """The sides without repeats."""
        return Term(tuple(side for k, side in enumerate(sides) if not k or side != sides[k - 1]))

    def few(self, count: int) -> range:
        """Which of `count` units, weights or samples are shown."""
        return range(count if self.full or count <= UNITS else FEW)

    def more(self, count: int, what: str) -> Iterator[Term]:
        """The line that says how many are left out."""
        if len(self.few(count)) < count:
            yield self.term(f"... and {count - FEW} more {what}")

    def sum(self, count: int, term: Callable[[int], str], *more: str) -> str:
        """`count` terms and `more`, cut in the middle if there are many."""
        whole = self.full or count <= TERMS
        terms = [term(k) for k in (range(count) if whole else (*range(FEW), count - 1))]
        text = " + ".join([*terms[:FEW], *([] if whole else ["..."]), *terms[FEW:], *more])
        return text if whole else f"{text} ({count + len(more)} terms)"

    def times(self, factor: float, text: str) -> str:
        """factor * text, with brackets around a sum; the text alone if the factor is 1."""
        if factor == 1:
            return text
        return f"{self.number(factor)} * {f'({text})' if ' ' in text else text}"
