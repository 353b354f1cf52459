"""Blocks of a page as HTML: sections, tables, places for figures. What they quote stays text, whatever is in it."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..line import line


def pairs(values: Mapping[str, Any], kind: str = "pairs") -> str:
    """Names and values. kind: their class."""
    each = (f"<div><dt>{safe(name)}</dt><dd>{safe(shown(value))}</dd></div>" for name, value in values.items())
    return f"<dl class={kind}>{''.join(each)}</dl>"


def section(title: str, body: str) -> str:
    """A part of the page."""
    return f"<section>\n<h2>{safe(title)}</h2>\n{body}\n</section>"


def figure(draws: str, about: str, beside: str, title: str, told: str = "", **keys: Any) -> str:
    """A place where report.js draws: `draws` names its function, `keys` some of the data; beside: the same as text."""
    named = "".join(f" data-{name}='{safe(value)}'" for name, value in keys.items())
    small = f"<small>{safe(told)}</small>" if told else ""
    table = f"<details><summary>as a table</summary>{beside}</details>" if beside else ""
    head = f"<figcaption><h3>{safe(title)}</h3>{small}</figcaption>"
    place = f"<div class=plot role=img aria-label='{safe(about)}' data-draw={draws}{named}></div>"
    return f"<figure>{head}{place}{table}</figure>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], about: str) -> str:
    """Rows of cells; numbers to the right."""
    made = [
        [(shown(cell), isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in row] for row in rows
    ]
    right = [any(cells) for cells in zip(*([number for _, number in row] for row in made))]
    kinds = [" class=number" if each else "" for each in right] or [""] * len(head)
    top = "".join(f"<th scope=col{kind}>{safe(name)}</th>" if name else "<td></td>" for name, kind in zip(head, kinds))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{safe(cell)}</td>" for (cell, _), kind in zip(row, kinds)) + "</tr>\n"
        for row in made
    )
    inner = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>"
    return f"<div class=wide role=region tabindex=0 aria-label='{safe(about)}'><table>{inner}</table></div>"


def records(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """A table with a row for each mapping."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return table(names, [[row[name] for name in names] for row in rows], about)


def words(name: str) -> str:
    """The name of a figure in words."""
    return name.replace("_", " ")


def share(part: int, whole: int) -> str:
    """A share of a whole."""
    return f"{part / whole:.1%}" if whole else ""


def label(*values: Any) -> str:
    """A value, "none", or a range."""
    return ", ".join(
        "none" if each is None else " to ".join(map(shown, each)) if isinstance(each, list | tuple) else shown(each)
        for each in values
    )


def shown(value: Any) -> str:
    """A cell; a number that is not whole has four digits."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def safe(value: Any) -> str:
    """Foreign text on one line, escaped for an element or for quotes."""
    return html.escape(line(value))
