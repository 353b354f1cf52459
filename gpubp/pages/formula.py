"""Formulas in the notation of explaining/text.py as HTML, and the places of a network that they name.

A place is a unit (i1, h2, h1_2, o1), a weight (w5), a bias (b1, b_h1) or the total error. Anything else that a formula
names, such as a custom rule, is plain text.
"""

import html
import re
from collections.abc import Iterator

TOTAL = "total"
PLACE = r"(?:[iho]\d+(?:_\d+)?|w\d+|b_[ho]\d+(?:_\d+)?|b\d+)"
SYMBOL = rf"(?:[A-Za-z]\w*?_{TOTAL}|(?:[A-Za-z]\w*?_)??{PLACE})"
PARTS = re.compile(rf"(?:([A-Za-z]\w*?)_)??({PLACE}|{TOTAL})")
TOKEN = re.compile(rf"(?<!\w)d({SYMBOL})/d({SYMBOL})(?!\w)|(\^?)(?<!\w)({SYMBOL})(?!\w)(\+?)")
POWER = r"-?[\d.]+(?:e[+-]\d+)?|[a-z]\w*(?:\([^()]*\))?"  # a number, a name, a function
OF_TOTAL = ("E", "loss")  # names for the total error


def places(*texts: str) -> list[str]:
    """The places that formulas name, each once, in order."""
    return list(dict.fromkeys(each for text in texts for each in _places(text)))


def _places(text: str) -> Iterator[str]:
    if text in OF_TOTAL:
        yield TOTAL
    for token in TOKEN.finditer(text):
        for symbol in (token[1], token[2], token[4]):
            if symbol:
                yield PARTS.fullmatch(symbol)[2]  # type: ignore[index]


def markup(text: str) -> str:
    """A formula as HTML, with fractions, indices and powers."""
    found, at = "", 0
    for token in TOKEN.finditer(text):
        found += _plain(text[at : token.start()]) + _token(*token.groups())
        at = token.end()
    return found + _plain(text[at:])


def _token(over: str | None, under: str | None, power: str, symbol: str, plus: str) -> str:
    if over and under:
        slope = f"<span>∂{_symbol(over)}</span><i>/</i><span>∂{_symbol(under)}</span>"
        return f'<span class="slope">{slope}</span>'
    found = _symbol(symbol) + ("<sup>+</sup>" if plus else "")
    return f"<sup>{found}</sup>" if power else found


def _symbol(symbol: str) -> str:
    """A name with its index."""
    base, place = PARTS.fullmatch(symbol).groups()  # type: ignore[union-attr]
    base, index = (base, place) if base else (place[0], place[1:].lstrip("_"))
    return f"{html.escape(base)}<sub>{index}</sub>"


def _plain(text: str) -> str:
    """The text between symbols."""
    found = html.escape(text).replace(" * ", "\u00a0×\u00a0").replace(" - ", " −\u00a0").replace("sqrt(", "√(")
    found = re.sub(r"-(?=\(|ln\b)|-$", "−", found)
    found = re.sub(r"([a-z]\w*)\+(?!\d)", r"\1<sup>+</sup>", found)
    return re.sub(rf"\^({POWER})", r"<sup>\1</sup>", found)
