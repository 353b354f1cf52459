"""How the text of an explanation writes numbers, sums and lists, and which rules it writes out as formulas.

A number has the digits that its precision knows. Long sums and lists are cut in the middle or after the first few, and
say so, unless everything is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

TERMS = 6  # a longer sum shows its first and its last terms
UNITS, FEW = 8, 3  # a longer list of units, weights or samples shows its first three

# How the text writes a rule out; a rule that is not here is written by its name, as are its users'.
SLOPES = {"identity": "1", "sigmoid": "{out} * (1 - {out})", "tanh": "1 - {out} * {out}"}
ERRORS = {
    "half_squared_error": ("1/2 * ({target} - {out})^2", "-({target} - {out})"),
    "mean_squared_error": ("({target} - {out})^2", "-2 * ({target} - {out})"),
}


class Notation:
    """Numbers, sums and lists as text. digits: decimals of a number around 1. full: nothing is cut."""

    def __init__(self, digits: int, full: bool) -> None:
        self.digits, self.full = digits, full

    def number(self, value: float | str) -> str:
        """Nine decimals as in the tutorial, seven for float32; as many digits where a number is very small or large."""
        if isinstance(value, str):
            return value
        if value == 0:
            return "0"  # not -0
        if 10 ** (5 - self.digits) <= abs(value) < 1e6:
            return f"{value:.{self.digits}f}".rstrip("0").rstrip(".")
        return f"{value:.{self.digits}g}"

    @staticmethod
    def line(*sides: str) -> str:
        """The sides with = between them; none twice in a row."""
        return "  " + " = ".join(side for k, side in enumerate(sides) if not k or side != sides[k - 1])

    def few(self, count: int) -> range:
        """What is shown of `count` units, weights or samples."""
        return range(count if self.full or count <= UNITS else FEW)

    def more(self, count: int, what: str) -> Iterator[str]:
        """The line that says what is not shown."""
        if len(self.few(count)) < count:
            yield f"  ... and {count - FEW} more {what}"

    def sum(self, count: int, term: Callable[[int], str], *more: str) -> str:
        """`count` terms and some more, cut in the middle where they are many."""
        whole = self.full or count <= TERMS
        terms = [term(k) for k in (range(count) if whole else (*range(FEW), count - 1))]
        text = " + ".join([*terms[:FEW], *([] if whole else ["..."]), *terms[FEW:], *more])
        return text if whole else f"{text} ({count + len(more)} terms)"

    def times(self, factor: float, text: str) -> str:
        """factor * text, brackets around a sum; the text alone where the factor is 1."""
        if factor == 1:
            return text
        return f"{self.number(factor)} * {f'({text})' if ' ' in text else text}"
